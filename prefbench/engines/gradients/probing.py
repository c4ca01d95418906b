"""What is asked about gradients, and of which pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, get_args

from prefbench.engines.base import TokenRequest
from prefbench.engines.gradients.parameters import Which
from prefbench.errors import InputError
from prefbench.objectives import OBJECTIVES


class TokenPair(NamedTuple):
    """A chosen and a rejected response, whose contexts may differ.

    `reference` has the summed log-probs of both under what the checkpoint was tuned from, in nats,
    or is None where that is not known.
    """

    chosen: TokenRequest
    rejected: TokenRequest
    reference: tuple[float, float] | None = None


@dataclass(frozen=True)
class Probing:
    """How a checkpoint's gradients are looked at.

    Args:
        parameters: those that gradients are taken of; see `select`.
        own: the objective that the checkpoint was trained by, whose step is predicted and
            observed; None for no step.
        n_steps: aligned steps of both responses that are compared.
        objectives: those whose two conditions are looked at.
        settings: an objective's parameters that differ from their defaults.
        checkpointing: keep the inputs of blocks alone and run them again in the backward pass:
            less memory for long texts, a third more time, the same numbers.

    Raises:
        InputError: a name is none of those that there are, or a number is below 0.
    """

    parameters: Which = "all"
    own: str | None = None
    n_steps: int = 8
    objectives: tuple[str, ...] = tuple(OBJECTIVES)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.parameters not in get_args(Which):
            raise InputError(
                f"parameters is one of {', '.join(get_args(Which))}, not {self.parameters!r}"
            )
        named = (*self.objectives, *self.settings, *([self.own] if self.own else []))
        for name in named:
            if name not in OBJECTIVES:
                raise InputError(f"there is no objective {name!r}, but {', '.join(OBJECTIVES)}")
        for name, given in self.settings.items():
            if unknown := sorted(set(given) - set(OBJECTIVES[name].parameters)):
                raise InputError(
                    f"objective {name} has no parameter {', '.join(unknown)}; "
                    f"it takes {', '.join(OBJECTIVES[name].parameters)}"
                )
        if self.n_steps < 0:
            raise InputError(f"n_steps must be at least 0, not {self.n_steps}")

    def known(self, reference: object) -> tuple[str, ...]:
        """The objectives, the own one among them, that need no reference or have one."""
        names = dict.fromkeys((*self.objectives, *([self.own] if self.own else [])))
        return tuple(n for n in names if reference or not OBJECTIVES[n].needs_reference)
