"""What papers say of preference tuning, as claims that measurements can hold or contradict.

How a statement becomes numbers, and the thresholds, are ours throughout; `remark` says where a
paper's own formula could not be read.
"""

from __future__ import annotations

from collections.abc import Sequence

from prefbench.claims import numbers as n
from prefbench.claims.claim import Alike, Between, Beyond, Change, Claim, Zero
from prefbench.errors import InputError

EXMATE, DPOP, ENTANGLED = "2408.16751", "2402.13228", "2410.13828"
DISPLACEMENT, RANKINGS = "2410.08847", "2405.19534"
MARGIN_ALONE = ("dpo", "ipo", "spin", "dpo_exmate")
"""Their losses see the margin only, not whether the chosen answer rises or falls."""
TUNED_ON_PAIRS = (
    "unlikelihood", "exmate", "exmate_token", "dpo", "dpop", "ipo", "slic", "hinge", "rrhf", "spin",
    "dpo_exmate", "dpo_nll", "simpo", "orpo", "sppo", "kto",
)  # fmt: skip

_CAPTIONS = f"{EXMATE}, captions of Figs 2 and 4"
_AGILITY = "the formula of agility is ours: none could be read"
_STEPS = (
    "the difference of the two softmax outputs, which the paper uses as the gradient difference; "
    "‖·‖₂, which norm it takes could not be read"
)

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "displacement",
        "What rewards the margin alone lowers the chosen answer's log-prob where the two answers "
        "differ little",
        f"{DPOP} §3, {DISPLACEMENT} Def. 1",
        MARGIN_ALONE,
        (Beyond(n.DISPLACED_LOW, "above", 0.5),),
        (n.DELTA_LOW,),
        "decided by the share of pairs below a normalised edit distance of 0.1 whose chosen "
        "log-prob fell against the reference, beside one half; Definition 1 has the mean, which is "
        "shown",
    ),
    Claim(
        "displacement-after",
        "What rewards the margin alone lowers what follows the first differing token of such pairs",
        f"{DPOP} §3 and Fig. 4",
        MARGIN_ALONE,
        (Beyond(n.AFTER_LOW, "below"),),
    ),
    Claim(
        "dpop-rises",
        "DPOP does not lower the chosen answer's log-prob where the two answers differ little",
        f"{DPOP} Eq. 3",
        ("dpop",),
        (Beyond(n.DISPLACED_LOW, "below", 0.5),),
        (n.DELTA_LOW, n.AFTER_LOW),
    ),
    Claim(
        "dpop-dpo",
        "DPOP lowers the chosen answer's log-prob on fewer such pairs than DPO does",
        f"{DPOP} Fig. 4",
        ("dpop",),
        (Change(n.DISPLACED_LOW, "below", "dpo"),),
        (n.DELTA_LOW,),
    ),
    Claim(
        "exmate",
        "ExMATE improves perplexity and agility together over SFT",
        _CAPTIONS,
        ("exmate", "exmate_token"),
        (Change(n.PERPLEXITY, "below", "baseline"), Change(n.AGILITY, "above", "baseline")),
        remark=_AGILITY,
    ),
    Claim(
        "unlikelihood-agility",
        "Unlikelihood gains agility over SFT",
        _CAPTIONS,
        ("unlikelihood",),
        (Change(n.AGILITY, "above", "baseline"),),
        remark=_AGILITY,
    ),
    Claim(
        "unlikelihood-perplexity",
        "Unlikelihood costs perplexity",
        _CAPTIONS,
        ("unlikelihood",),
        (Change(n.PERPLEXITY, "above", "baseline"),),
        remark="its reason, that tokens which both answers share are held at one half, is ours",
    ),
    Claim(
        "dpo-agility",
        "DPO gains agility",
        f"{EXMATE}, captions, of HH-RLHF",
        ("dpo",),
        (Change(n.AGILITY, "above", "reference"),),
        remark=f"the captions have it fall on CausalDialogue; {_AGILITY}",
    ),
    Claim(
        "dpo-perplexity",
        "DPO costs perplexity",
        f"{EXMATE}, captions",
        ("dpo",),
        (Change(n.PERPLEXITY, "above", "reference"),),
    ),
    Claim(
        "dpo-exmate",
        "DPO after ExMATE is better than DPO after SFT in perplexity and agility",
        f"{EXMATE}, abstract",
        ("dpo_exmate",),
        (Change(n.PERPLEXITY, "below", "dpo"), Change(n.AGILITY, "above", "dpo")),
        remark="which statistical metrics it means could not be read; two stages is our reading",
    ),
    Claim(
        "dpo-exmate-win-rate",
        "DPO after ExMATE wins more often than DPO after SFT",
        f"{EXMATE}, abstract",
        ("dpo_exmate",),
        (Change(n.WIN_RATE, "above", "dpo"),),
    ),
    Claim(
        "win-rate",
        "Tuning on preferences raises the win rate",
        "2305.18290 §6, 2305.10425 Table 1, 2304.05302, each of its own method",
        ("dpo", "slic", "rrhf"),
        (Change(n.WIN_RATE, "above", "baseline"),),
    ),
    Claim(
        "dpop-answers",
        "DPOP gives more right answers than DPO where texts are generated",
        f"{DPOP} Fig. 2, of GSM8K after tuning on pairs that differ little",
        ("dpop",),
        (Change(n.RIGHT, "above", "dpo"),),
        remark="what the rows were tuned on is not known here",
    ),
    Claim(
        "implicit-reward",
        "The implicit reward of what DPO's loss tunes ranks most pairs right",
        "2305.18290 Eq. 7",
        MARGIN_ALONE,
        (Beyond(n.ACCURACY, "above", 0.5),),
        (n.MARGIN,),
    ),
    Claim(
        "ranking-accuracy",
        "The log-probs themselves rank fewer pairs right than the implicit reward does",
        f"{RANKINGS}, Def. 2.3",
        MARGIN_ALONE,
        (Beyond(n.BELOW_REWARD, "below"),),
        (n.RANKED_RIGHT, n.ACCURACY),
        "that one is held against the other is ours: the paper finds ranking accuracy low",
    ),
    Claim(
        "entanglement",
        "Gradients of the two answers are more alike where the answers differ little: within a "
        "task",
        f"{ENTANGLED} §4.3, {DPOP} §3",
        (),
        (Beyond(n.COSINE_GAP, "above"),),
        (n.COSINE_LOW, n.COSINE_HIGH),
        "edit distance below 0.1 beside 0.5 and above; the paper varies the shared suffix",
    ),
    Claim(
        "entanglement-tasks",
        "Gradients of the two answers are more alike where the answers differ little: between "
        "tasks",
        f"{ENTANGLED} §4.3, {DPOP} §3",
        (),
        (Between(n.COSINE, "above", "edit distance"),),
        remark="tasks differ in more than edit distance",
    ),
    Claim(
        "direction",
        "The conditions predict where a small step of gradient descent moves both answers",
        f"{ENTANGLED} Condition 1, Eqs 3–5",
        (),
        tuple(Beyond(n.agrees(text), "above", 0.5) for text in ("chosen", "rejected")),
        remark="of other losses than DPO by the derivatives of the loss; beside one half, though "
        "the claim would be near all",
    ),
    Claim(
        "direction-adamw",
        "The conditions predict where a small step of AdamW moves both answers",
        "ours: the paper's argument is about gradient descent",
        (),
        tuple(Beyond(n.agrees(text, "adamw"), "above", 0.5) for text in ("chosen", "rejected")),
    ),
    Claim(
        "both-fall",
        "Both answers fall on as many pairs as the conditions predict of DPO",
        f"{ENTANGLED} Condition 1",
        ("dpo", "spin", "dpo_exmate"),
        (Alike(n.BOTH_FALL_PREDICTED, n.BOTH_DOWN, 0.1),),
        remark="predicted of one step from where the training began if that was measured, else "
        "from where it ended; agreement within 10 points, which is ours",
    ),
    Claim(
        "ches",
        "The CHES score tells which chosen answers fall, and better than edit distance does",
        f"{DISPLACEMENT} Def. 2, §5",
        MARGIN_ALONE,
        (Beyond(n.CHES, "above"), Beyond(n.CHES_ADVANTAGE, "above")),
        remark="the paper ranks training sets; over pairs of one task, by Spearman's ρ, is ours",
    ),
    Claim(
        "rrhf",
        "RRHF ranks candidates as their rewards do, and better than SFT does",
        "2304.05302 §3",
        ("rrhf",),
        (Beyond(n.KENDALL, "above"), Change(n.KENDALL, "above", "baseline")),
        (n.BEST_FIRST,),
    ),
    Claim(
        "repetition",
        "Texts repeat themselves more the farther a policy is from its reference",
        "2304.05302 and 1908.04319 on rewards that rise while texts get worse",
        TUNED_ON_PAIRS,
        (Change(n.REPETITION, "above", "reference"),),
        (n.KL,),
        "that repetition is where it shows is ours",
    ),
    Claim(
        "spin-win-rate",
        "Each iteration of SPIN wins more often than the one before",
        "2401.01335 §6",
        ("spin",),
        (Change(n.WIN_RATE, "above", "previous"),),
        remark="the paper has averages over benchmarks",
    ),
    Claim(
        "spin-answers",
        "Each iteration of SPIN gives more right answers than the one before",
        "2401.01335 §6, of averages over benchmarks",
        ("spin",),
        (Change(n.RIGHT, "above", "previous"),),
    ),
    Claim(
        "spin-perplexity",
        "Each iteration of SPIN brings it nearer to the data",
        "2401.01335 Theorem 5.2",
        ("spin",),
        (Change(n.PERPLEXITY, "below", "previous"),),
        remark="measured by perplexity, which is ours",
    ),
    Claim(
        "gradient-first-step",
        "The gradient difference is smallest at the first step",
        f"{EXMATE} Lemma 4.1 and captions, of CausalDialogue",
        (),
        (Beyond(n.FIRST_SMALLEST, "below"),),
        remark=f"{_STEPS}; 0 at step 1 by construction where both answers have one prompt",
    ),
    Claim(
        "gradient-random",
        "Randomly initialised models have smaller gradient differences",
        f"{EXMATE}, captions",
        (),
        (Beyond(n.OVER_RANDOM, "below"),),
        remark=_STEPS,
    ),
    Claim(
        "gradient-zero",
        "With one prompt the gradient difference at step 1 is 0 where the two targets agree",
        f"{EXMATE} Lemma 4.1",
        (),
        (Zero("gradient_difference_l2@1", "same_target@1", "probability_difference_l2@1"),),
        remark="true by construction: it checks the measurement",
    ),
    Claim(
        "information",
        "The information difference is smaller where the prompts differ than where both answers "
        "have one prompt",
        f"{EXMATE}, captions: below 1e-26 on CausalDialogue, higher on HH-RLHF",
        (),
        (Between(n.INFORMATION, "below", "prompts"),),
        remark="our definition; the paper's could not be read, so its numbers cannot be compared",
    ),
)


def claims_named(names: Sequence[str]) -> tuple[Claim, ...]:
    """The claims of these names, in their own order; none: all.

    Raises:
        InputError: there is no such claim.
    """
    known = {claim.id for claim in CLAIMS}
    for name in names:
        if name not in known:
            raise InputError(f"no claim is named {name!r}; there are: {', '.join(sorted(known))}")
    return tuple(claim for claim in CLAIMS if not names or claim.id in names)
