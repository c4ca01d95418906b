"""Steps that are really taken: what they change, and that they leave nothing behind."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from prefbench.engines.base import TokenRequest
from prefbench.engines.gradients import Prober, Probing, domain_products
from prefbench.engines.gradients.passes import summed
from prefbench.engines.gradients.steps import SMALL
from prefbench.errors import EngineError, InputError
from prefbench.objectives import OBJECTIVES, PairLogps
from tests.engines.test_gradients import (
    APART,
    PAIR,
    autograd,
    llama,
    token_logps,
)

OWN = ("dpo", "dpop", "unlikelihood", "exmate_token")


def loss_of(model, name, pair=PAIR):
    chosen, rejected = token_logps(model, pair)
    lengths = torch.tensor([len(chosen)]), torch.tensor([len(rejected)])
    policy = PairLogps(chosen.sum()[None], rejected.sum()[None], *lengths, None, rejected[None])
    reference = PairLogps(*(torch.tensor([one]).double() for one in pair.reference), *lengths)
    return OBJECTIVES[name](policy, reference).sum()


def after_step(model, name, kind, size):
    """Changes of both log-probs by a step of torch's own optimiser down the loss."""
    moved = copy.deepcopy(model)
    optimizer = kind(moved.parameters(), lr=size)
    loss_of(moved, name).backward()
    optimizer.step()
    ends = [torch.stack([one.sum() for one in token_logps(m, PAIR)]) for m in (moved, model)]
    return (ends[0] - ends[1]).tolist()


# --- what a step changes


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        (torch.optim.SGD, ""),
        (lambda p, lr: torch.optim.AdamW(p, lr=lr, weight_decay=0.0), "_adamw"),
    ],
    ids=["sgd", "adamw"],
)
def test_observed_changes_are_those_of_torchs_own_optimiser(name, kind, suffix):
    model = llama()
    found = Prober(model, Probing(own=name)).probe(PAIR)
    observed = [found[f"observed_{side}{suffix}"] for side in ("chosen", "rejected")]
    size = 1e-4  # the learning rate at which torch's step changes the chosen log-prob by as much
    for _ in range(12):
        size *= observed[0] / after_step(model, name, kind, size)[0]
    assert size > 0
    assert after_step(model, name, kind, size) == pytest.approx(observed, rel=1e-6)


@pytest.mark.parametrize("name", OWN)
def test_observed_changes_are_the_predicted_ones_times_a_small_step(name):
    found = Prober(llama(), Probing(own=name)).probe(PAIR)
    predicted = [found["predicted_chosen"], found["predicted_rejected"]]
    observed = [found["observed_chosen"], found["observed_rejected"]]
    size = SMALL / max(map(abs, predicted))
    # What is left is of the second order.
    assert observed == pytest.approx([size * one for one in predicted], abs=0.1 * SMALL)
    assert found["chosen_agrees"] == found["rejected_agrees"] == 1


def test_agreement_is_of_signs():
    """AdamW goes another way than plain steps on some random models."""
    seen = set()
    for seed in range(4):
        found = Prober(llama(seed=seed), Probing(own="orpo", objectives=())).probe(APART)
        for side in ("chosen", "rejected"):
            for suffix in ("", "_adamw"):
                names = f"predicted_{side}", f"observed_{side}{suffix}"
                if f"{side}_agrees{suffix}" not in found:
                    continue
                agree = found[names[0]] * found[names[1]] > 0
                assert found[f"{side}_agrees{suffix}"] == agree
                seen.add((suffix, agree))
    assert {("", True), ("_adamw", True), ("_adamw", False)} <= seen


def test_parameters_of_an_objective_can_be_given():
    model = llama()
    plain, strong = (
        Prober(model, Probing(own="dpop", settings=settings)).probe(PAIR)
        for settings in ({}, {"dpop": {"lambda_": 0.0, "beta": 0.1}})
    )
    dpo = Prober(model, Probing(own="dpo")).probe(PAIR)
    assert plain["predicted_chosen"] != pytest.approx(dpo["predicted_chosen"], rel=0.1)
    assert strong["predicted_chosen"] == pytest.approx(dpo["predicted_chosen"])


def test_changes_within_noise_are_absent():
    # The two gradients are one, and their difference is rounding.
    model = llama().float()
    twins = PAIR._replace(rejected=PAIR.chosen, reference=(-9.0, -9.0))
    found = Prober(model, Probing(own="dpo")).probe(twins)
    assert not [name for name in found if name.startswith(("predicted", "observed"))]
    assert found["cosine"] == pytest.approx(1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_observe_no_step_and_say_so(dtype):
    model = llama(hidden_size=16).to(dtype)
    prober = Prober(model, Probing(own="dpo"))
    found = prober.probe(PAIR)
    assert not [name for name in found if name.startswith("observed")]
    assert not [name for name in found if "agrees" in name]
    assert "rounding would swallow it" in prober.notes[0]
    wide = Prober(model.double(), Probing(own="dpo"))
    assert not wide.notes
    expected = wide.probe(PAIR)
    assert found["cosine"] == pytest.approx(expected["cosine"], abs=0.1)
    assert found["predicted_rejected"] == pytest.approx(expected["predicted_rejected"], rel=0.2)


# --- nothing is left of it


def state(model):
    """All that probing could leave behind, down to the bytes."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return (
        [(n, t.data_ptr(), t.detach().numpy().tobytes(), t.requires_grad) for n, t in tensors],
        [p.grad is None for p in model.parameters()],
        [(m.training, sorted(m.__dict__), len(m._forward_pre_hooks)) for m in model.modules()],
        [len(p._post_accumulate_grad_hooks or ()) for p in model.parameters()],
    )


@pytest.mark.parametrize("checkpointing", [False, True])
def test_weights_are_restored_bit_for_bit(checkpointing):
    model = llama().float()
    model.lm_head.weight.requires_grad_(False)
    with torch.no_grad():
        model.lm_head.weight[0, :2] = torch.tensor([-0.0, 1e-40])  # signs and subnormals, too
    before = state(model)
    prober = Prober(model, Probing(own="unlikelihood", checkpointing=checkpointing))
    assert "observed_chosen_adamw" in prober.probe(PAIR)
    prober.heat_map(PAIR)
    domain_products(model, {"a": [PAIR], "b": [APART]}, Probing(own="dpo"))
    assert state(model) == before


@pytest.mark.parametrize("n_passes", range(1, 8))
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_weights_are_restored_bit_for_bit_after_any_error(n_passes, error):
    model = llama().float()
    before = state(model)
    calls = []

    def fail(module, given):
        calls.append(module.up_proj.weight.detach().clone())
        if len(calls) == n_passes:
            raise error("in the middle of it")

    hook = model.model.layers[0].mlp.register_forward_pre_hook(fail)
    prober = Prober(model, Probing(own="exmate_token"))
    if n_passes <= 4:  # one of each response, and one after each kind of step
        with pytest.raises(error, match="in the middle"):
            prober.probe(PAIR)
        # The step had been taken.
        assert torch.equal(calls[-1], model.model.layers[0].mlp.up_proj.weight) == (n_passes <= 2)
    else:
        prober.probe(PAIR)
    hook.remove()
    assert state(model) == before


def test_a_gradient_of_somebody_elses_stays():
    model = llama()
    expected = Prober(model, Probing(own="dpo")).probe(PAIR)
    model.lm_head.weight.grad = torch.ones_like(model.lm_head.weight)
    assert Prober(model, Probing(own="dpo")).probe(PAIR) == expected
    assert torch.equal(model.lm_head.weight.grad, torch.ones_like(model.lm_head.weight))


def test_running_out_of_memory_says_what_takes_less():
    model = llama()

    def fail(module, given):
        raise torch.OutOfMemoryError("CUDA out of memory")

    model.model.layers[0].register_forward_pre_hook(fail)
    with pytest.raises(EngineError, match=r"bfloat16, or parameters: last_layer need less"):
        Prober(model, Probing()).probe(PAIR)


# --- memory

PEAK = """
import json, sys, torch
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
from prefbench.engines.base import TokenRequest
from prefbench.engines.base import TokenRequest
from prefbench.engines.gradients import Prober, Probing, TokenPair

def memory(key):
    (line,) = (s for s in Path("/proc/self/status").read_text().splitlines() if key in s)
    return int(line.split()[1]) * 1024

torch.set_num_threads(1)
model = LlamaForCausalLM(LlamaConfig(vocab_size=4096, hidden_size=512, intermediate_size=1536,
    num_hidden_layers=8, num_attention_heads=8, max_position_embeddings=64)).eval()
pair = TokenPair(TokenRequest([1, 2], [3, 4, 5]), TokenRequest([1, 2], [6, 7, 8]), (-30.0, -30.0))
small = Prober(model, Probing(parameters="last_layer", own="unlikelihood"))
small.probe(pair)  # loads kernels
prober = Prober(model, Probing(own="unlikelihood"))
before = memory("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
found = prober.probe(pair)
assert "observed_chosen_adamw" in found
size = sum(4 * one.numel() for one in model.parameters())
print(json.dumps({"weights": size, "peak": memory("VmHWM") - before}))
"""


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(),
    reason="peaks of memory are read as Linux tells them",
)
def test_memory_is_that_of_two_gradients():
    done = subprocess.run(
        [sys.executable, "-c", PEAK], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    # Conditions of all objectives, two of them by token, and both steps.
    assert 1.9 < found["peak"] / found["weights"] < 2.4


# --- domains


def brute_force(model, name, pairs):
    """The gradient of each pair's loss, flat, by one backward pass through all of it."""
    for one in model.parameters():
        one.requires_grad_(True)
    found = []
    for pair in pairs:
        parts = torch.autograd.grad(loss_of(model, name, pair), list(model.parameters()))
        found.append(torch.cat([one.reshape(-1) for one in parts]))
    return found


def other_pairs(seed, n):
    rng = torch.Generator().manual_seed(seed)
    return [
        PAIR._replace(
            chosen=TokenRequest([1, 2, 3], torch.randint(11, (3,), generator=rng).tolist()),
            rejected=APART.rejected,
            reference=(-8.0, -7.0 - i),
        )
        for i in range(n)
    ]


@pytest.mark.parametrize("name", ["dpo", "exmate_token"])
@pytest.mark.parametrize("n_domains", [2, 3])
def test_products_with_the_other_domain_are_exact(name, n_domains):
    model = llama()
    pairs = {"helpful": [PAIR, APART], "harmless": other_pairs(0, 3), "honest": other_pairs(1, 1)}
    pairs = dict(list(pairs.items())[:n_domains])
    gradients = {domain: brute_force(model, name, some) for domain, some in pairs.items()}
    means = {domain: torch.stack(some).mean(0) for domain, some in gradients.items()}
    found = domain_products(model, pairs, Probing(own=name))
    assert {domain: len(some) for domain, some in found.items()} == {
        domain: len(some) for domain, some in pairs.items()
    }
    for domain, some in gradients.items():
        other = torch.stack([mean for d, mean in means.items() if d != domain]).mean(0)
        for one, got in zip(some, found[domain], strict=True):
            assert got["domain_inner"] == pytest.approx(float(one @ other), rel=1e-5)
            cosine = float(one @ other / one.norm() / other.norm())
            assert got["domain_cosine"] == pytest.approx(cosine, rel=1e-5)


def test_mean_product_of_two_domains_is_that_of_their_means():
    model = llama()
    pairs = {"a": [PAIR, APART], "b": other_pairs(0, 3)}
    found = domain_products(model, pairs, Probing(own="dpo"))
    a, b = (sum(one["domain_inner"] for one in some) / len(some) for some in found.values())
    assert a == pytest.approx(b)


def test_pairs_that_the_objective_cannot_know_are_left_out_of_domains():
    model = llama()
    lacking = PAIR._replace(reference=None)
    pairs = {"a": [APART, lacking], "b": other_pairs(0, 2), "c": [lacking]}
    found = domain_products(model, pairs, Probing(own="dpo"))
    assert found["a"][1] == {}
    assert found["c"] == [{}]
    without = domain_products(model, {"a": [APART], "b": pairs["b"]}, Probing(own="dpo"))
    assert found["a"][0] == without["a"][0]
    assert found["b"] == without["b"]


def test_a_pair_of_which_nothing_is_asked_is_in_the_mean_and_has_no_cosine():
    model = llama()
    met = PAIR._replace(reference=(-100.0, 0.0))
    unmet = APART._replace(reference=(0.0, -100.0))
    found = domain_products(model, {"a": [met, unmet], "b": [unmet]}, Probing(own="hinge"))
    assert found["a"][0] == {"domain_inner": 0.0}
    g = autograd(model, APART, list(model.parameters()))
    square = 0.1**2 * float((g[0] - g[1]) @ (g[0] - g[1]))
    assert found["b"][0]["domain_inner"] == pytest.approx(square / 2)


@pytest.mark.parametrize(
    ("pairs", "own", "message"),
    [
        ({"a": [PAIR], "b": [PAIR]}, None, "not known; name it as `objective`"),
        ({"a": [PAIR]}, "dpo", "two domains .* there are 1 in a"),
        ({"a": [PAIR], "b": []}, "dpo", "there are 1 in a, 0 in b"),
        ({}, "dpo", "there are none"),
    ],
)
def test_domains_that_cannot_be_compared_are_refused(pairs, own, message):
    with pytest.raises(InputError, match=message):
        domain_products(llama(), pairs, Probing(own=own))


def test_scores_after_a_step_are_those_of_one_response_at_a_time():
    model = llama()
    alone = [summed(model, [one])[0] for one in APART[:2]]
    assert summed(model, APART[:2]) == pytest.approx(alone, rel=1e-12)
    expected = [one.sum().item() for one in token_logps(model, APART)]
    assert alone == pytest.approx(expected)
