"""Gradients of a pair against full finite differences, and what must not change by looking."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from prefbench.engines.base import TokenRequest
from prefbench.engines.gradients import Prober, Probing, TokenPair, randomly_initialised
from prefbench.engines.gradients.conditions import weights_of
from prefbench.engines.gradients.heat import token_cosines
from prefbench.engines.gradients.parameters import ready, select
from prefbench.errors import EngineError, InputError
from prefbench.objectives import OBJECTIVES, PairLogps
from tests.small_models import CONFIGS, OTHER_CONFIGS

PAIR = TokenPair(
    TokenRequest([1, 2, 3], [4, 5, 6, 0]), TokenRequest([1, 2, 3], [4, 7, 0]), (-9.0, -6.0)
)
APART = TokenPair(TokenRequest([1, 2, 3], [4, 5]), TokenRequest([8, 2], [9, 5, 6]), (-4.5, -6.5))
PLAIN = Probing(objectives=(), n_steps=0)


def llama(*, tied=False, seed=1, **settings):
    torch.manual_seed(seed)
    sizes = {"vocab_size": 11, "hidden_size": 4, "intermediate_size": 6, "num_hidden_layers": 1}
    config = LlamaConfig(
        **(sizes | settings),
        num_attention_heads=2,
        max_position_embeddings=32,
        tie_word_embeddings=tied,
        initializer_range=0.5,
    )
    model = LlamaForCausalLM(config)
    # transformers' own goes through float32, in whose rounding small differences are lost.
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child).__name__ == "LlamaRMSNorm":
                setattr(module, name, torch.nn.RMSNorm(config.hidden_size, config.rms_norm_eps))
    return model.double().eval()


def token_logps(model, pair):
    """Log-probs of all tokens of both responses, each (n_tokens,), the plainest way."""
    found = []
    for context, continuation in pair[:2]:
        ids = torch.tensor([[*context, *continuation]])
        logps = model(input_ids=ids).logits[0].log_softmax(-1)
        found.append(logps[torch.arange(len(context) - 1, ids.shape[1] - 1), continuation])
    return found


@torch.no_grad()
def jacobian(model, pair, step=1e-5):
    """Derivatives of every token's log-prob by every parameter, by central differences."""
    rows = []
    for one in model.parameters():
        flat = one.view(-1)
        for i in range(len(flat)):
            before = flat[i].item()
            ends = []
            for moved in (before + step, before - step):
                flat[i] = moved
                ends.append(torch.cat(token_logps(model, pair)))
            flat[i] = before
            rows.append((ends[0] - ends[1]) / (2 * step))
    n = len(pair.chosen.continuation)
    found = torch.stack(rows, dim=1).numpy()
    return found[:n], found[n:]


def direction(name, logps, pair, of_chosen, of_rejected, step=1e-6):
    """−∇ℓ from finite differences of the formula and of the model, without any autograd."""
    lengths = np.array([len(logps[0])]), np.array([len(logps[1])])
    reference = PairLogps(*(np.array([one]) for one in pair.reference), *lengths)
    tokens = np.concatenate([one.detach().numpy() for one in logps])
    n = len(logps[0])

    def loss(values):
        policy = PairLogps(
            values[None, :n].sum(1), values[None, n:].sum(1), *lengths, None, values[None, n:]
        )
        return OBJECTIVES[name](policy, reference)[0]

    slopes = [
        (loss(tokens + step * unit) - loss(tokens - step * unit)) / (2 * step)
        for unit in np.eye(len(tokens))
    ]
    return -np.array(slopes) @ np.concatenate([of_chosen, of_rejected])


def autograd(model, pair, parameters):
    """g_w and g_l, flat, the plainest way."""
    for one in model.parameters():
        one.requires_grad_(True)
    rows = [
        torch.autograd.grad(one.sum(), parameters, materialize_grads=True)
        for one in token_logps(model, pair)
    ]
    return [torch.cat([g.reshape(-1).double() for g in row]).numpy() for row in rows]


def check_gram(found, g_w, g_l, **tolerance):
    assert found["norm_chosen"] == pytest.approx(np.linalg.norm(g_w), **tolerance)
    assert found["norm_rejected"] == pytest.approx(np.linalg.norm(g_l), **tolerance)
    assert found["inner"] == pytest.approx(g_w @ g_l, **tolerance)
    cosine = g_w @ g_l / np.linalg.norm(g_w) / np.linalg.norm(g_l)
    assert found["cosine"] == pytest.approx(cosine, **tolerance)
    entanglement = g_w @ g_l / min(g_w @ g_w, g_l @ g_l)
    assert found["entanglement"] == pytest.approx(entanglement, **tolerance)


@pytest.fixture(scope="module", params=["untied", "tied"])
def differentiated(request):
    """A small model, and the derivatives of a pair's token log-probs by all its parameters."""
    model = llama(tied=request.param == "tied")
    return model, *jacobian(model, PAIR)


# --- against finite differences


def test_inner_product_and_norms_are_those_of_full_finite_differences(differentiated):
    model, of_chosen, of_rejected = differentiated
    found = Prober(model, PLAIN).probe(PAIR)
    check_gram(found, of_chosen.sum(0), of_rejected.sum(0), rel=1e-6)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_predicted_changes_are_directional_derivatives(differentiated, name):
    model, of_chosen, of_rejected = differentiated
    logps = token_logps(model, PAIR)
    v = direction(name, logps, PAIR, of_chosen, of_rejected)
    found = Prober(model, Probing(own=name)).probe(PAIR)
    changes = of_chosen.sum(0) @ v, of_rejected.sum(0) @ v
    assert found["predicted_chosen"] == pytest.approx(changes[0], rel=1e-5)
    assert found["predicted_rejected"] == pytest.approx(changes[1], rel=1e-5)
    assert found[f"chosen_rises/{name}"] == (changes[0] > 0)
    assert found[f"rejected_falls/{name}"] == (changes[1] < 0)


@pytest.mark.parametrize("own", [None, "dpo", "exmate_token"])
def test_conditions_of_all_objectives_do_not_hang_on_the_own_one(differentiated, own):
    model, of_chosen, of_rejected = differentiated
    found = Prober(model, Probing(own=own, n_steps=0)).probe(PAIR)
    logps = token_logps(model, PAIR)
    for name in OBJECTIVES:
        v = direction(name, logps, PAIR, of_chosen, of_rejected)
        assert found[f"chosen_rises/{name}"] == (of_chosen.sum(0) @ v > 0), name
        assert found[f"rejected_falls/{name}"] == (of_rejected.sum(0) @ v < 0), name


def test_heat_map_is_every_cosine(differentiated):
    model, of_chosen, of_rejected = differentiated
    unit = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in (of_chosen, of_rejected)]
    expected = unit[0] @ unit[1].T
    found = Prober(model, PLAIN).heat_map(PAIR)
    assert found.shape == (4, 3)
    assert found == pytest.approx(expected, abs=1e-7)
    parameters = select(model, "all").tensors
    with ready(model, parameters, checkpointing=False):  # room for one gradient, and for two
        for n_held in (1, 2 * sum(one.numel() for one in parameters)):
            again = token_cosines(model, PAIR, parameters, held=n_held)
            assert again == pytest.approx(expected, abs=1e-7)
    # Both responses begin with the same token behind the same prompt.
    assert found[0, 0] == pytest.approx(1.0)


# --- closed forms


def test_one_token_of_a_uniform_distribution():
    # With every logit 0 and M tokens, e_y − 1/M are M vectors whose cosines are −1 / (M − 1).
    model = llama()
    with torch.no_grad():
        model.lm_head.weight.zero_()
    pair = TokenPair(TokenRequest([1, 2], [3]), TokenRequest([1, 2], [4]))
    prober = Prober(model, Probing(parameters="last_layer"))
    found = prober.probe(pair)
    assert found["cosine"] == pytest.approx(-1 / 10)
    assert found["norm_chosen"] == pytest.approx(found["norm_rejected"])
    # Nothing pulls the two together: each margin loss moves both as it should.
    assert found["chosen_rises/simpo"] == found["rejected_falls/simpo"] == 1


def test_weights_of_the_unit_pair():
    tokens = torch.full((8,), -13.0 / 8), torch.full((11,), -13.5 / 11)
    found = weights_of(OBJECTIVES, *tokens, (-12.0, -14.0), {"dpop": {"beta": 0.1}})
    # Worked out by hand in tests/test_objectives.py; signs are those of −∇ℓ.
    for name, chosen, rejected in (
        ("dpo", 0.053743, -0.053743),
        ("dpop", 5.070594, -0.099423),
        ("ipo_sum", 13.0, -13.0),
        ("ipo_mean", 1.292614, -0.940083),
        ("slic_hf", 1.5, -1.0),
        ("rrhf", 1.125, -0.090909),
        ("simpo", 0.214399, -0.155926),
        ("exmate", 0.125, -0.001332),
    ):
        assert found[name][:2] == pytest.approx((chosen, rejected), abs=1e-6), name
    # λ Σ p_t / n over tokens: each token's weight is −λ p_t / n.
    expected = -0.05 * math.exp(-13.5 / 11) / 11
    assert found["exmate_token"].tokens.tolist() == pytest.approx([expected] * 11, rel=1e-6)


def test_an_objective_that_asks_nothing_has_no_conditions_and_no_step():
    model = llama()
    pair = PAIR._replace(reference=(-100.0, 0.0))  # a margin far beyond the hinge's
    found = Prober(model, Probing(own="hinge")).probe(pair)
    assert "chosen_rises/hinge" not in found
    assert not [name for name in found if name.startswith(("predicted", "observed"))]
    assert "chosen_rises/dpo" in found


def test_without_a_reference_objectives_that_need_one_are_absent():
    found = Prober(llama(), Probing(own="dpo")).probe(PAIR._replace(reference=None))
    named = {name.partition("/")[2] for name in found if "/" in name}
    assert named == {name for name, one in OBJECTIVES.items() if not one.needs_reference}
    assert not [name for name in found if name.startswith(("predicted", "observed"))]


# --- aligned steps


def test_aligned_steps_by_hand():
    model = llama()
    found = Prober(model, Probing(n_steps=8)).probe(APART)
    with torch.no_grad():
        outputs = [
            model.model(input_ids=torch.tensor([[*one.context, *one.continuation]]))
            for one in APART[:2]
        ]
    for t in (1, 2):
        at = [len(one.context) - 2 + t for one in APART[:2]]
        h = [out.last_hidden_state[0, i] for out, i in zip(outputs, at, strict=True)]
        apart = model.lm_head(h[0]).softmax(-1) - model.lm_head(h[1]).softmax(-1)
        targets = [one.continuation[t - 1] for one in APART[:2]]
        e = torch.eye(11, dtype=torch.double)
        gradient = e[targets[0]] - e[targets[1]] - apart
        for p in (1, 2):
            assert found[f"probability_difference_l{p}@{t}"] == pytest.approx(apart.norm(p).item())
            assert found[f"gradient_difference_l{p}@{t}"] == pytest.approx(gradient.norm(p).item())
        assert found[f"same_target@{t}"] == (t == 2)
        expected = (h[0] - h[1]).square().mean().item()
        assert found[f"information_difference@{t}"] == pytest.approx(expected)
    assert "same_target@3" not in found  # the chosen response has two tokens


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shared_prefixes_differ_by_exactly_nothing(dtype):
    model = llama().to(dtype)
    untrained = randomly_initialised(model, 0)
    found = Prober(model, Probing(n_steps=8), random_model=untrained).probe(PAIR)
    for suffix in ("", "_random"):
        for p in (1, 2):
            assert found[f"probability_difference_l{p}{suffix}@1"] == 0
            assert found[f"probability_difference_l{p}{suffix}@2"] == 0
            assert found[f"probability_difference_l{p}{suffix}@3"] > 0
            assert found[f"gradient_difference_l{p}{suffix}@1"] == 0
            # Other targets under one distribution: ‖e_5 − e_7‖.
            assert found[f"gradient_difference_l{p}{suffix}@2"] == pytest.approx(2 ** (1 / p))
        assert found[f"information_difference{suffix}@2"] == 0
        assert found[f"information_difference{suffix}@3"] > 0
    assert (found["same_target@1"], found["same_target@2"], found["same_target@3"]) == (1, 0, 0)


def test_a_random_model_is_that_of_its_seed_and_leaves_random_numbers_alone():
    model = llama().float()
    state = torch.get_rng_state()
    first, again, other = (randomly_initialised(model, seed) for seed in (3, 3, 4))
    from_config = randomly_initialised(model.config, 3)
    assert torch.equal(torch.get_rng_state(), state)
    for one, same, third, fourth in zip(
        *(m.state_dict().values() for m in (first, again, from_config, other)), strict=True
    ):
        assert torch.equal(one, same)
        assert torch.equal(one, third)
        assert one.shape == fourth.shape
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)
    spread = first.model.layers[0].mlp.up_proj.weight.std().item()
    assert spread == pytest.approx(model.config.initializer_range, rel=0.3)
    assert not first.training
    # Of an adapter's model, the base's shape.
    adapted = get_peft_model(llama().float(), LoraConfig(r=2, target_modules=["q_proj"]))
    assert not [n for n, _ in randomly_initialised(adapted, 3).named_parameters() if "lora" in n]


# --- which parameters


@pytest.mark.parametrize("which", ["all", "last_layer"])
@pytest.mark.parametrize(
    "architecture", [*CONFIGS, "gemma2", "mixtral", "mistral_window", "opt", "bloom", "mamba"]
)
def test_architectures_against_plain_autograd(architecture, which):
    torch.manual_seed(3)
    config = (CONFIGS | OTHER_CONFIGS)[architecture](300)
    config.initializer_range = 0.3
    model = AutoModelForCausalLM.from_config(config).eval()
    prober = Prober(model, Probing(parameters=which, own="unlikelihood"))
    found = prober.probe(APART)
    parameters = select(model, which).tensors
    assert len(parameters) > 0
    assert (len(parameters) < len(list(model.parameters()))) == (which == "last_layer")
    check_gram(found, *autograd(model, APART, parameters), rel=2e-3, abs=1e-4)
    agreed = [found[name] for name in ("chosen_agrees", "rejected_agrees") if name in found]
    assert agreed  # one of the two may not move enough to tell
    assert all(agreed)


@pytest.mark.parametrize(
    ("tied", "proxy", "names"),
    [(False, "the output layer", {"lm_head.weight"}), (True, "last transformer block", None)],
)
def test_the_last_layer_is_named(tied, proxy, names):
    model = llama(tied=tied, num_hidden_layers=2)
    selected = select(model, "last_layer")
    assert set(selected.names) == (
        names or {n for n, _ in model.named_parameters() if n.startswith("model.layers.1.")}
    )
    prober = Prober(model, Probing(parameters="last_layer"))
    assert "proxy" in prober.what
    assert proxy in prober.what


def adapted(**settings):
    torch.manual_seed(2)
    asked = LoraConfig(r=2, target_modules=["q_proj", "down_proj"], **settings)
    model = get_peft_model(llama(num_hidden_layers=2).float(), asked).double().eval()
    for name, one in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(one, std=0.3)
        one.requires_grad_(False)  # as a loaded adapter's are
    return model


def test_of_an_adapter_training_moves_the_adapter_alone():
    model = adapted()
    names = {n for n, _ in model.named_parameters() if "lora_" in n}
    for which in ("lora", "all"):
        assert set(select(model, which).names) == names
    found = Prober(model, Probing(parameters="lora", own="dpo")).probe(PAIR)
    assert not any(one.requires_grad for one in model.parameters())
    parameters = [one for n, one in model.named_parameters() if n in names]
    check_gram(found, *autograd(model, PAIR, parameters), rel=1e-9)
    assert found["chosen_agrees"] == 1
    # The output layer is not the adapter's.
    last = select(model, "last_layer")
    assert last.names
    assert all("layers.1." in name and "lora_" in name for name in last.names)


def test_layers_that_an_adapter_trains_whole_are_its_own():
    model = adapted(modules_to_save=["lm_head"])
    assert [n for n in select(model, "all").names if n.startswith("base_model.model.lm_head.")]
    assert not [n for n in select(model, "lora").names if "lm_head" in n]
    (head,) = select(model, "last_layer").names
    assert "modules_to_save" in head
    found = Prober(model, Probing(parameters="last_layer", own="dpo")).probe(PAIR)
    assert found["observed_chosen"] != 0


def test_lora_parameters_of_a_model_without_are_refused():
    with pytest.raises(InputError, match="no parameters for the LoRA parameters"):
        Prober(llama(), Probing(parameters="lora"))


# --- errors and limits


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"own": "ppo"}, "no objective 'ppo'"),
        ({"objectives": ("dpo", "mle")}, "no objective 'mle'"),
        ({"settings": {"dpo": {"lambda_": 1}}}, "objective dpo has no parameter lambda_"),
        ({"parameters": "head"}, "parameters is one of all, lora, last_layer"),
        ({"n_steps": -1}, "n_steps must be at least 0"),
    ],
)
def test_probing_refuses_what_makes_no_sense(settings, message):
    with pytest.raises(InputError, match=message):
        Probing(**settings)


def test_texts_are_cut_from_the_left_as_in_scoring():
    model = llama()
    long = PAIR._replace(chosen=TokenRequest([9, 9, 1, 2, 3], PAIR.chosen.continuation))
    cut = Prober(model, PLAIN, max_length=6).probe(long)
    assert cut["norm_chosen"] == Prober(model, PLAIN).probe(PAIR)["norm_chosen"]
    for some, message in (
        (TokenRequest([], [1]), "at least one token"),
        (TokenRequest([1], []), "at least one token"),
        (TokenRequest([1], [1] * 7), "7 tokens, the context length is 6"),
    ):
        with pytest.raises(EngineError, match=message):
            Prober(model, PLAIN, max_length=6).probe(PAIR._replace(rejected=some))


def test_what_is_no_number_is_absent():
    model = llama()
    with torch.no_grad():
        model.lm_head.weight[4] = math.nan
    found = Prober(model, Probing(own="dpo")).probe(PAIR)
    assert set(found) == {f"same_target@{t}" for t in (1, 2, 3)} | {
        f"{name}@{t}" for t in (1, 2, 3) for name in ("information_difference",)
    } | {
        f"{name}_difference_l{p}@{t}" for t in (1, 2) for p in (1, 2) for name in ("probability",)
    } | {f"gradient_difference_l{p}@{t}" for t in (1, 2) for p in (1, 2)}


# --- activation checkpointing, dropout


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen2_tied"])
def test_activation_checkpointing_gives_the_same_numbers(architecture):
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(CONFIGS[architecture](300)).double().eval()
    plain, again = (
        Prober(model, Probing(own="unlikelihood", checkpointing=on)) for on in (False, True)
    )
    expected = plain.probe(APART)
    assert again.probe(APART) == pytest.approx(expected, rel=1e-9)
    assert again.heat_map(APART) == pytest.approx(plain.heat_map(APART))
    assert plain.probe(APART) == expected  # nothing of it is left in the model


def test_activation_checkpointing_keeps_less():
    """Counts what autograd saves: whole activations without, inputs of blocks with it."""
    model = llama(num_hidden_layers=6)
    saved = {}
    for on in (False, True):
        sizes = []

        def pack(tensor, sizes=sizes):
            sizes.append(tensor.numel())
            return tensor

        parameters = select(model, "all").tensors
        with (
            ready(model, parameters, checkpointing=on),
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        ):
            model(input_ids=torch.tensor([[1, 2, 3, 4]])).logits.sum()
        saved[on] = sum(sizes)
    assert saved[True] < saved[False] / 2


def test_a_model_in_training_is_probed_without_dropout_and_goes_on_with_it():
    torch.manual_seed(3)
    config = CONFIGS["gpt2"](300)  # dropout 0.1
    model = AutoModelForCausalLM.from_config(config).double().eval()
    expected = Prober(model, Probing(own="dpo")).probe(APART)
    model.train()
    model.transformer.h[0].eval()
    before = [module.training for module in model.modules()]
    assert Prober(model, Probing(own="dpo")).probe(APART) == expected
    assert [module.training for module in model.modules()] == before


def test_probing_inside_inference_mode():
    model = llama()
    with torch.inference_mode():
        found = Prober(model, Probing(own="dpo")).probe(PAIR)
    assert found == Prober(model, Probing(own="dpo")).probe(PAIR)


def test_pairs_are_independent_of_one_another():
    model = llama()
    prober = Prober(model, Probing(own="dpo"))
    rounds = [[prober.probe(pair) for pair in (PAIR, APART)] for _ in range(3)]
    assert all(first == second for first, second in pairwise(rounds))
