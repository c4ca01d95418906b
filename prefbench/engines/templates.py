"""A checkpoint's chat template is a program: it is tried where it may run on or grow without harm.

    python -m prefbench.engines.templates

renders the template on its stdin, within limits of its own.
"""

from __future__ import annotations

import functools
import os
import resource
import subprocess
import sys

from prefbench.errors import EngineError
from prefbench.processes import import_places

SECONDS = 5
"""Of processor, where a template takes a millisecond."""
MEMORY = 1 << 30
"""Bytes of address space."""
MOST = 1_000_000
"""Characters that a conversation of one word may become."""
PATIENCE = 120.0
"""Seconds of a machine that has much else to do."""
TALK = ({"role": "user", "content": "Hello"},)
TOO_LONG, TOO_MUCH = 3, 4
TOLD = {
    TOO_LONG: f"writes more than {MOST} characters for one word",
    TOO_MUCH: f"takes more than {MEMORY >> 20} MiB for one word",
}


@functools.cache
def try_template(text: str) -> None:
    """Renders a template once, for a conversation of one word, in a process of its own.

    Raises:
        EngineError: it takes too long, too much memory, or writes too much. What else may be wrong
            with it shows when it is used.
    """
    command = [sys.executable, "-P", "-m", "prefbench.engines.templates"]
    try:
        done = subprocess.run(
            command,
            input=text.encode("utf-8", "backslashreplace"),
            env={**os.environ, "PYTHONPATH": import_places()},
            capture_output=True,
            check=False,
            timeout=PATIENCE,
        )
        reason = TOLD.get(done.returncode)
        if done.returncode < 0:  # by the limit's signal
            reason = f"takes more than {SECONDS} s for one word"
        elif done.returncode and not reason:
            said = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
            reason = f"cannot be tried: {said[:300]}"
    except subprocess.TimeoutExpired:
        reason = f"takes more than {PATIENCE:.0f} s for one word"
    if reason:
        raise EngineError(f"its chat template {reason}")


def main() -> None:
    """The process of its own: as transformers renders, but that errors are left to it."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    sandbox = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    try:
        template = sandbox.from_string(sys.stdin.read())
        written = template.render(messages=list(TALK), add_generation_prompt=True)
    except MemoryError:
        sys.exit(TOO_MUCH)
    except Exception:  # noqa: BLE001  # whoever uses it says what is wrong
        sys.exit(0)
    sys.exit(TOO_LONG if len(written) > MOST else 0)


if __name__ == "__main__":
    main()
