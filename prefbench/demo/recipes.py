"""Which checkpoints the demo trains, from which, and with which settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

BASE = "base"
REWARD = "reward"
JUDGE = "judge"


@dataclass(frozen=True)
class Recipe:
    """One run: its method, objective with parameters, and the run that it starts from.

    Objectives that need a reference take the checkpoint of that run. A run is named by its method
    unless it has a name of its own. With `own_samples` what is rejected is what that checkpoint
    answers itself.
    """

    method: str
    objective: str
    start: str
    parameters: Mapping[str, float] = field(default_factory=dict)
    name: str = ""
    own_samples: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.method)


RECIPES = (
    Recipe("sft", "sft", BASE),
    Recipe("exmate", "exmate", BASE, {"lambda_": 0.05}),
    Recipe("dpo", "dpo", "sft", {"beta": 0.1}),
    # Two iterations, each with λ = 0.1 against the one before it. The paper's later iterations
    # train on the samples of the iteration before, too; here each has its own alone.
    Recipe("spin", "dpo", "sft", {"beta": 0.1}, name="spin-1", own_samples=True),
    Recipe("spin", "dpo", "spin-1", {"beta": 0.1}, name="spin-2", own_samples=True),
    Recipe("dpop", "dpop", "sft", {"beta": 0.3, "lambda_": 50.0}),
    # The paper's sum over tokens: a mean asks a margin of 1/2τ nats of every token, most of which
    # the two responses of a low-edit pair share.
    Recipe("ipo", "ipo_sum", "sft", {"tau": 0.1}),
    Recipe("slic", "slic_hf", "sft", {"delta": 1.0, "lambda_": 0.5}),
    Recipe("unlikelihood", "unlikelihood", "sft", {"alpha": 1.0}),
    # Without a reference, but from SFT: the candidates that RRHF ranks are those of a model that
    # answers already. Weight and sums are the paper's equations.
    Recipe("rrhf", "rrhf", "sft", {"weight": 1.0}),
    # In two stages: ExMATE in the place of SFT, then DPO against it.
    Recipe("dpo_exmate", "dpo", "exmate", {"beta": 0.1}),
)
"""In an order in which each starts from one that stands before it."""


@dataclass(frozen=True)
class Base:
    """The base: a Llama of about a million parameters, and how long it reads."""

    n_tokens: int = 1024
    context: int = 8192
    """Rotary positions cost nothing; 9,000 characters of real English are about 4,500 tokens."""
    width: int = 128
    inner_width: int = 352
    n_layers: int = 4
    n_heads: int = 4
    n_steps: int = 600
    n_short_steps: int = 400
    """Steps on single questions in short rows, where copying and adding are learnt; the others
    read long rows with several questions, like few-shot prompts."""
    tokens_per_step: int = 2048
    short_row: int = 128
    long_row: int = 512
    learning_rate: float = 3e-3


@dataclass(frozen=True)
class Tuning:
    """How every method is trained, whatever its loss."""

    n_steps: int = 60
    n_pairs: int = 24
    """Pairs in a step."""
    learning_rate: float = 2e-4


@dataclass(frozen=True)
class Reward:
    """How the reward model is trained, from the base's weights, on pairs of dialogues."""

    n_steps: int = 24
    n_pairs: int = 16
    learning_rate: float = 3e-4


@dataclass(frozen=True)
class Judge:
    """How the judging language model is trained, from the base's weights, on judges' prompts."""

    n_steps: int = 160
    n_pairs: int = 4
    """Pairs of replies in a step, each shown in both orders."""
    learning_rate: float = 2e-3


@dataclass(frozen=True)
class Settings:
    """What decides the bytes of a zoo, beside this version of the code, libraries and machine."""

    seed: int = 0
    base: Base = Base()
    tuning: Tuning = Tuning()
    recipes: tuple[Recipe, ...] = RECIPES
    reward: Reward = Reward()
    judge: Judge = Judge()

    def scaled(self, scale: float) -> Settings:
        """The same with fewer steps, or more; what learns less is as real in its structure."""
        base = replace(
            self.base,
            n_steps=max(4, round(self.base.n_steps * scale)),
            n_short_steps=max(2, round(self.base.n_short_steps * scale)),
        )
        # An even number: the checkpoint in the middle is saved, too.
        n_steps = 2 * max(1, round(self.tuning.n_steps * scale / 2))
        reward = replace(self.reward, n_steps=max(2, round(self.reward.n_steps * scale)))
        judge = replace(self.judge, n_steps=max(2, round(self.judge.n_steps * scale)))
        tuning = replace(self.tuning, n_steps=n_steps)
        return replace(self, base=base, tuning=tuning, reward=reward, judge=judge)
