"""What each checkpoint was tuned from, as a checkpoint that can be asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from prefbench.checkpoints import read_checkpoint
from prefbench.errors import InputError
from prefbench.records import Checkpoint

References: TypeAlias = Mapping[Path, Checkpoint | str]
"""By a checkpoint's path: its reference, or why it has none."""

UNKNOWN = (
    "what it was tuned from is not known; name it as `reference` in prefbench.yaml, or for all "
    "by --reference"
)


def find_references(
    checkpoints: Sequence[Checkpoint],
    *,
    wanted: str | None = None,
    allow_pickle: bool = False,
    allow_remote_code: bool = False,
) -> dict[Path, Checkpoint | str]:
    """The reference of every checkpoint that can be measured, or why it has none.

    An adapter that names none was tuned from its base. A reference may lie outside of what is
    measured: it is read where it lies.

    Args:
        checkpoints: of the run; references are looked for among them first.
        wanted: a checkpoint's name, its method or a directory: the reference of all others.
        allow_pickle: as for the run.
        allow_remote_code: as for the run.

    Raises:
        InputError: the wanted one is not there, or cannot be asked.
    """
    by_path = {one.path: one for one in checkpoints}

    def read(path: Path) -> Checkpoint:
        if path not in by_path:
            by_path[path] = read_checkpoint(
                path, allow_pickle=allow_pickle, allow_remote_code=allow_remote_code
            )
        return by_path[path]

    for_all = None
    if wanted is not None:
        named = [one for one in checkpoints if wanted in (one.name, one.method)]
        if not named and Path(wanted).is_dir():
            named = [read(Path(wanted).resolve())]
        if len(named) != 1:
            who = ", ".join(one.name for one in named)
            what = f"may be {who}" if named else "is neither a row, a method nor a directory"
            raise InputError(f"--reference {wanted}: {what}")
        (for_all,) = named
        if for_all.state != "ready":
            raise InputError(f"--reference {wanted}: {for_all.reason or for_all.state}")
    found: dict[Path, Checkpoint | str] = {}
    for one in checkpoints:
        if one.state != "ready":
            continue
        if for_all is not None and one.path != for_all.path:
            found[one.path] = for_all
            continue
        place = one.reference or (one.base if one.adapter else None)
        if place is None:
            found[one.path] = UNKNOWN
        elif not Path(place).is_dir():
            found[one.path] = f"its reference {place} is not on this machine; --reference names one"
        else:
            reference = read(Path(place))
            ready = reference.state == "ready"
            reason = reference.reason or reference.state
            found[one.path] = reference if ready else f"its reference {place}: {reason}"
    return found
