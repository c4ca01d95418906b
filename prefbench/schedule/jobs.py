"""What a schedule runs: the commands, and what must not be written into a file."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, fields
from pathlib import PurePath
from typing import TypeAlias

from prefbench.addresses import shown
from prefbench.errors import InputError
from prefbench.schedule.times import Timing

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPTION = re.compile(r"--[a-z][a-z0-9-]*(=.*)?", re.DOTALL)
_KEY = re.compile(
    r"(?<![A-Za-z0-9])("
    r"(sk|pk|rk|glpat|nvapi|xapp|xox[a-z])-[\w-]{16,}"  # OpenAI and its like, GitLab, NVIDIA, Slack
    r"|(hf|gsk|gh[a-z])_[A-Za-z0-9]{24,}|github_pat_\w{20,}"
    r"|(AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{30,}|eyJ[\w-]{10,}\.[\w-]+"
    r"|[Bb]earer\s+\S{8,})"
)
_LONG_WORD = re.compile(r"[A-Za-z0-9+]{32,}")
_NAMES_A_KEY = re.compile(r"--(.*-)?(key|token|secret|password|passwd|credentials?)", re.IGNORECASE)
_ADDRESS = re.compile(r"\w+://\S+")


Place: TypeAlias = PurePath | str


@dataclass(frozen=True)
class Job:
    """What to run, how often, and with what around it.

    Attributes:
        python: the interpreter that has prefbench.
        folder: where the commands run.
        runs: directories of trained checkpoints.
        results: where rows are kept.
        timing: when.
        suites, tasks: what to measure; neither is prefbench's own default.
        mirrors: local data.
        policy: of the gate; None: no gate.
        env_file: lines of NAME=value that the commands get as their environment.
        key_variables: names of variables that hold keys.
        run_options: further options of `prefbench run`, each one word: --engine=hf.
        offline: the hub is never asked.
        name: of the unit and its files.
        address: of results on an object store; `results` is their working copy then.
        cache: where working copies are, if not at the usual place.
    """

    python: str
    folder: PurePath
    runs: tuple[Place, ...]
    results: Place
    timing: Timing
    suites: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    mirrors: tuple[Place, ...] = ()
    policy: Place | None = None
    env_file: Place | None = None
    key_variables: tuple[str, ...] = ()
    run_options: tuple[str, ...] = ()
    offline: bool = False
    name: str = "prefbench"
    address: str | None = None
    cache: str | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            for one in value if isinstance(value, tuple) else (value,):
                refuse_breaks(field.name, one)
        refuse_keys("--suite", *self.suites)
        refuse_keys("--task", *self.tasks)
        refuse_keys("--name", self.name)
        refuse_keys("--key-env", *self.key_variables)
        refuse_keys("--run-option", *self.run_options)
        if not self.runs:
            raise InputError("a schedule needs at least one directory of checkpoints")
        if not _NAME.fullmatch(self.name):
            raise InputError(
                "--name: letters, digits, - and _, at most 64, a letter or digit first"
            )
        for variable in self.key_variables:
            if not _VARIABLE.fullmatch(variable):
                raise InputError("--key-env takes the name of an environment variable, not a value")
        for option in self.run_options:
            if not _OPTION.fullmatch(option):
                raise InputError(
                    f"--run-option: {option!r} is no option in one word, such as --engine=hf"
                )

    def measuring(self) -> list[str]:
        """The words of `prefbench run`."""
        return [
            *self._prefbench("run"),
            *(f"--suite={one}" for one in self.suites),
            *(f"--task={one}" for one in self.tasks),
            f"--results={self.address or self.results}",
            *(f"--mirror={one}" for one in self.mirrors),
            *self.run_options,
            "--",
            *map(str, self.runs),
        ]

    def gating(self, *more: str) -> list[str]:
        """The words of `prefbench gate`; none without a policy."""
        if self.policy is None:
            return []
        results = self.address or str(self.results)
        return [*self._prefbench("gate"), f"--policy={self.policy}", *more, "--", results]

    def commands(self) -> list[list[str]]:
        """What runs, one after the other, as long as each ends with exit code 0."""
        return [words for words in (self.measuring(), self.gating()) if words]

    def environment(self) -> dict[str, str]:
        """What is set besides the file of variables."""
        # Whatever a checkpoint names, an offline machine must not wait for time-outs.
        offline = {"HF_HUB_OFFLINE": "1"} if self.offline else {}
        return offline | ({"PREFBENCH_CACHE": self.cache} if self.cache else {})

    def _prefbench(self, verb: str) -> list[str]:
        return [self.python, "-m", "prefbench", verb]


def refuse_keys(option: str, *values: str) -> None:
    """Refuses what looks like a key, without repeating it: units are read by many.

    Raises:
        InputError: it does.
    """
    for value in values:
        if looks_like_a_key(value):
            raise InputError(
                f"{option} holds what looks like a key; put it into the file of --env-file (chmod "
                "600) or a secret of the same name, and name its variable by --key-env"
            )


def looks_like_a_key(text: str) -> bool:
    """Whether text is an option for a key, an address with a password, or looks made up by chance.

    Errs on the side of refusing.
    """
    name, sign, value = text.partition("=")
    if sign and _NAMES_A_KEY.fullmatch(name):
        return True
    for word in (value, text):
        if _ADDRESS.fullmatch(word) and shown(word) != word:
            return True
    return bool(_KEY.search(text)) or any(map(_is_random, _LONG_WORD.findall(text)))


def _is_random(word: str) -> bool:
    """Whether a long word mixes letters and digits, as keys do and names of checkpoints do not."""
    return any(map(str.isdigit, word)) and any(map(str.isalpha, word))


def refuse_breaks(field: str, value: object) -> None:
    """Refuses line breaks and control characters, which end a line or cannot be written.

    Raises:
        InputError: a text or a path has one.
    """
    if not isinstance(value, str | PurePath):
        return
    text = str(value)
    if any(unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") for one in text):
        raise InputError(
            f"{field}: {text!r:.200} has a line break, another control character or bytes that are "
            "no UTF-8, which no schedule can hold; rename it"
        )
