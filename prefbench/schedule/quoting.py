"""One word, so that the shell, cron, systemd or GitHub Actions passes on exactly that word.

Line breaks and control characters never come here: Job refuses them.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from prefbench.errors import InputError


def for_shell(words: Iterable[str]) -> str:
    """Words of a POSIX shell's command line."""
    return shlex.join(words)


def for_cron(words: Iterable[str]) -> str:
    r"""The same within a crontab, whose `%` ends the command unless a backslash stands before it.

    Crons differ in what two backslashes are, and in `\\%`: so no backslash of ours may have another
    or a `%` behind it. The quote is closed and opened again between them.
    """
    quoted = (shlex.quote(word) for word in words)
    return " ".join(word.replace("\\", "\\''").replace("%", r"\%") for word in quoted)


def for_systemd(words: Iterable[str]) -> str:
    """Words of ExecStart=; the first, which is the program, must have no `$` (see systemd.service).

    Raises:
        InputError: it has one.
    """
    program, *rest = words
    if "$" in program:
        raise InputError(
            f"{program}: systemd would not find a program with a $ in its path; install prefbench "
            "into a virtual environment elsewhere"
        )
    return " ".join([setting(program), *(setting(word).replace("$", "$$") for word in rest)])


def setting(text: str) -> str:
    """One word of any other systemd setting that takes words: `%` and backslashes are special."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def whole_line(name: str, text: str) -> str:
    r"""The value of a systemd setting that takes the whole line as it is, but for `%`.

    Raises:
        InputError: it begins or ends with a space, or ends with a backslash, which would be lost.
    """
    if text != text.strip() or text.endswith("\\"):
        raise InputError(
            f"{name}: {text!r} begins or ends with a space or ends with a backslash, which systemd "
            "cannot hold there; rename it or link to it"
        )
    return text.replace("%", "%%")


def for_actions(text: str) -> str:
    """Text that GitHub does not take for one of its `${{ … }}` expressions, wherever it stands."""
    return text.replace("${{", "${{ '${{' }}")
