"""What a tracker is to prefbench: a place to which points of curves are added."""

from __future__ import annotations

import importlib.util
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path

from prefbench.errors import InputError
from prefbench.trackers.curves import Curve


@dataclass(frozen=True)
class Place:
    """Where a tracker shall write.

    Attributes:
        folder: of what it keeps on this machine.
        project: what it files runs under.
        uri: of an MLflow server or database, instead of one in `folder`.
        offline: also where somebody is logged in.
        own: the folder is that of the results for this tracker, and moves with them.
    """

    folder: Path
    project: str = "prefbench"
    uri: str | None = None
    offline: bool = False
    own: bool = False

    def unless_told_by(self, variable: str) -> Place:
        """The folder that a variable of the library's own names, where none was asked for."""
        told = os.environ.get(variable)
        return replace(self, folder=Path(told), own=False) if told and self.own else self

    @property
    def here(self) -> str:
        """The folder, in words that stay when the results are moved with it."""
        return "beside the results" if self.own else str(self.folder.resolve())


class Tracker(ABC):
    """A tracker that can be written to; its library is imported when it is made."""

    def __init__(self, place: Place) -> None:
        """Finds the library.

        Raises:
            InputError: it is not installed; says what to install.
        """
        self.place = place

    @property
    @abstractmethod
    def destination(self) -> str:
        """Where points go, in words by which pushes to another place are told apart."""

    @property
    @abstractmethod
    def look(self) -> str:
        """What to do to see them."""

    @property
    def is_gone(self) -> bool:
        """What was kept on this machine is not there, so that nothing of it need be added to."""
        return self.is_local and not self.place.folder.exists()

    @property
    @abstractmethod
    def is_local(self) -> bool:
        """It keeps its files in the place's folder."""

    @abstractmethod
    def write(self, curve: Curve) -> None:
        """Adds points to the run of the curve's id, which is made where it is not there."""


def need(library: str, extra: str) -> None:
    """That a library is there.

    Raises:
        InputError: it is not.
    """
    if importlib.util.find_spec(library) is None:
        raise InputError(f'{library} is not installed: pip install "prefbench[{extra}]"')
