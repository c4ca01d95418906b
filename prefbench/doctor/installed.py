"""Installed packages, told by their metadata alone: nothing is imported."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from prefbench.doctor.findings import Finding, joined

Places = Sequence[str] | None
"""Folders to look in, as sys.path; None is sys.path itself."""


def version_of(name: str, path: Places = None) -> str | None:
    """The version of an installed distribution; None if there is none."""
    found = _distribution(name, path)
    return found.version if found else None


def requirements(name: str, path: Places = None, *, extra: str = "") -> list[Requirement]:
    """What a distribution asks for on this machine; nothing if it is not installed."""
    found = _distribution(name, path)
    asked = []
    for text in (found.requires if found else None) or ():
        try:
            requirement = Requirement(text)
        except InvalidRequirement:  # of a package that is none of ours
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            asked.append(requirement)
    return asked


def unmet(
    asked: Sequence[Requirement], path: Places = None
) -> Iterator[tuple[Requirement, str | None]]:
    """The requirements that are not met, each with the version that is there, if any."""
    for requirement in asked:
        version = version_of(requirement.name, path)
        if version is None or not _meets(version, requirement):
            yield requirement, version


def install_command(asked: Sequence[Requirement], *, options: str = "") -> str:
    """A pip command for requirements."""
    specified = (shlex.quote(f"{one.name}{one.specifier}") for one in asked)
    return " ".join(["pip install", *([options] if options else []), *specified])


def packages_finding(path: Places = None) -> Finding:
    """Whether all is there that prefbench itself needs, in the versions that it allows."""
    asked = requirements("prefbench", path)
    if not asked:
        return Finding(
            "prefbench",
            "packages",
            "unknown",
            "prefbench runs from a folder and is not installed: what it needs is not known",
            "pip install -c constraints.txt -e .   # in a checkout of prefbench",
        )
    lacking = list(unmet(asked, path))
    if not lacking:
        return Finding("prefbench", "packages", "ok", f"all {len(asked)} that prefbench needs")
    said = [
        f"{one.name} {version}, not {one.specifier}" if version else f"no {one.name}"
        for one, version in lacking
    ]
    return Finding(
        "prefbench",
        "packages",
        "broken" if all(version for _, version in lacking) else "missing",
        joined(said),
        install_command([one for one, _ in lacking]),
        needed=True,
        facts={canonicalize_name(one.name): version for one, version in lacking},
    )


def _distribution(name: str, path: Places) -> metadata.Distribution | None:
    places = sys.path if path is None else path
    return next(iter(metadata.distributions(name=name, path=list(places))), None)


def _meets(version: str, requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:  # a build of somebody's own
        return True
