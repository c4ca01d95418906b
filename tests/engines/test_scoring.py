"""Shared prefixes change no number: packed scoring against lm-eval's model and the plain way."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from lm_eval.models.huggingface import HFLM
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    LlamaForCausalLM,
)

from prefbench.engines import open_engine
from prefbench.engines.attention import NAME, packed_attention
from prefbench.engines.base import EngineSettings, TokenRequest
from prefbench.engines.scoring import Scorer
from tests.asking import checkpoint_at
from tests.small_models import CONFIGS, CONTEXT

PACKED = [
    *CONFIGS,
    "mistral_window",
    "qwen2_window",
    "qwen3",
    "gemma2",
    "phi3_window",
    "mixtral",
    "afmoe",
    "opt",
]
REFUSED = {
    "bloom": "cannot be replaced",
    "mamba": "cannot be replaced",
    "gpt_oss": "s_aux",
    "llama_dynamic": "depends on the length of the text",
    "gemma_both_ways": "not causal",
    "roberta": "counts positions itself",
}


def model_at(path, dtype=torch.float32):
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval()


def scorer_of(model, *, tokens=None, logits=None, max_length=CONTEXT):
    scorer = Scorer(model, max_length, torch.device("cpu"))
    assert scorer.plain_reason is None
    scorer._tokens_at_once = tokens or scorer._tokens_at_once
    scorer._logits_at_once = logits or scorer._logits_at_once
    return scorer


def plain_scorer(model, *, max_length=CONTEXT):
    scorer = Scorer(model, max_length, torch.device("cpu"))
    scorer.__dict__["plain_reason"] = "for comparison"
    return scorer


def lm_eval_scores(path, requests, batch_size=3):
    lm = HFLM(
        pretrained=str(path),
        dtype="float32",
        device="cpu",
        batch_size=batch_size,
        max_length=CONTEXT,
        # The only one that caps scores where a model asks for it.
        attn_implementation="eager" if path.name == "gemma2" else None,
    )
    triples = [(None, list(context), list(answer)) for context, answer in requests]
    return lm._loglikelihood_tokens(triples, disable_tqdm=True)


def assert_equal(mine, theirs, within=1e-4):
    assert [one[0] for one in mine] == pytest.approx([one[0] for one in theirs], abs=within)
    assert [one[1] for one in mine] == [one[1] for one in theirs]


def draw(rng, n):
    return rng.integers(0, 250, n).tolist()


def few_shot_requests(seed=0):
    """Items behind a common prefix, some far beyond the context length, and all kinds of choice."""
    rng = np.random.default_rng(seed)
    shots = draw(rng, 20)
    requests = []
    for _ in range(6):
        context = [*shots, *draw(rng, int(rng.integers(1, 9)))]
        choices = [draw(rng, n) for n in (1, 1, 2, 3, 17)]
        choices += [choices[-1], [*choices[3], 7], [*choices[3], 8]]
        requests += [TokenRequest(context, choice) for choice in choices]
    requests += [TokenRequest(draw(rng, 1), draw(rng, n)) for n in (1, 5, CONTEXT - 1, CONTEXT)]
    for n in (CONTEXT - 6, CONTEXT - 5, CONTEXT - 4, CONTEXT, 3 * CONTEXT):
        context = draw(rng, n)
        requests += [TokenRequest(context, draw(rng, 5)) for _ in range(2)]
    return requests


@contextmanager
def warned(caplog):
    with caplog.at_level(logging.WARNING, logger="prefbench"):
        yield
    assert "without sharing prefixes" in caplog.text


# --- against lm-eval's model


@pytest.mark.parametrize("architecture", PACKED)
def test_log_probs_are_lm_evals(architecture, path):
    requests = few_shot_requests()
    theirs = lm_eval_scores(path(architecture), requests)
    model = model_at(path(architecture))
    for tokens in (512, 48, 16):
        scorer = scorer_of(model, tokens=tokens)
        assert_equal(scorer.score(requests), theirs)
        assert_equal(scorer.score(requests[:9]), theirs[:9])  # behind the prefix that is kept


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", REFUSED)
def test_what_cannot_be_packed_goes_the_plain_way_and_says_so(architecture, dtype, path, caplog):
    requests = few_shot_requests()
    scorer = Scorer(model_at(path(architecture), dtype), CONTEXT, torch.device("cpu"))
    with warned(caplog):
        assert REFUSED[architecture] in scorer.plain_reason
    if dtype == torch.float32:
        # One by one: where texts change what stands beside them, lm-eval's batches do.
        theirs = lm_eval_scores(path(architecture), requests, batch_size=1)
        assert_equal(scorer.score(requests), theirs)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_an_adapter_is_packed(path, tmp_path):
    model = get_peft_model(model_at(path("llama")), LoraConfig(target_modules=["q_proj", "v_proj"]))
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    model.save_pretrained(tmp_path / "adapter")
    requests = few_shot_requests()
    mine = scorer_of(model.eval()).score(requests)
    lm = HFLM(
        pretrained=str(path("llama")),
        peft=str(tmp_path / "adapter"),
        dtype="float32",
        device="cpu",
        batch_size=4,
    )
    triples = [(None, list(context), list(answer)) for context, answer in requests]
    assert_equal(mine, lm._loglikelihood_tokens(triples, disable_tqdm=True))
    base = scorer_of(model_at(path("llama"))).score(requests)
    assert abs(mine[0].logp - base[0].logp) > 0.01


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_an_adapter_with_tokens_of_its_own_is_not_packed(path):
    config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    model = get_peft_model(model_at(path("llama")), config)
    scorer = Scorer(model, CONTEXT - 3, torch.device("cpu"))
    assert "tokens of its own" in scorer.plain_reason


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_an_adapter_that_looks_at_the_text_is_not_packed(path):
    config = LoraConfig(
        task_type="CAUSAL_LM", target_modules=["q_proj"], alora_invocation_tokens=[5, 6]
    )
    model = get_peft_model(model_at(path("llama")), config)
    assert "looks for tokens" in Scorer(model, CONTEXT, torch.device("cpu")).plain_reason


def test_thousands_of_choices(path):
    rng = np.random.default_rng(3)
    context = draw(rng, 12)
    requests = [TokenRequest(context, draw(rng, 1 + i % 3)) for i in range(3000)]
    model = model_at(path("llama"))
    theirs = lm_eval_scores(path("llama"), requests, batch_size=64)
    assert_equal(scorer_of(model).score(requests), theirs)


# --- against the plain way


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_no_budget_changes_a_number(architecture, seed, path):
    rng = np.random.default_rng(seed)
    requests = [few_shot_requests(seed)[i] for i in rng.permutation(60)[:40]]
    model = model_at(path(architecture))
    plain = plain_scorer(model).score(requests)
    for _ in range(3):
        tokens, logits = int(rng.integers(1, 90)), int(rng.integers(1, 20_000))
        mine = scorer_of(model, tokens=tokens, logits=logits).score(requests)
        assert_equal(mine, plain)
        assert [one.n_cut for one in mine] == [one.n_cut for one in plain]


@pytest.mark.parametrize("tokens", [48, 16])
@pytest.mark.parametrize("architecture", CONFIGS)
def test_numbers_do_not_depend_on_what_was_scored_before(architecture, tokens, path):
    """Not to the last bit: a run that goes on after it was killed gives the same table."""
    model = model_at(path(architecture))
    calls = [few_shot_requests(0)[i : i + 9] for i in range(0, 60, 9)]
    calls += [few_shot_requests(1)[:5], calls[0][:1], calls[0]]
    alone = [scorer_of(model, tokens=tokens).score(call) for call in calls]
    scorer = scorer_of(model, tokens=tokens)
    rows = []
    model.get_input_embeddings().register_forward_hook(lambda *args: rows.append(1))
    assert [scorer.score(call) for call in calls] == alone
    n_kept, rows[:] = len(rows), []
    for call in calls:
        scorer.release()
        scorer.score(call)
    assert n_kept < len(rows)  # and yet something was used again


def test_cut_tokens_are_counted(path):
    requests = few_shot_requests()
    cuts = [one.n_cut for one in scorer_of(model_at(path("llama"))).score(requests)]
    assert cuts == [max(0, len(c) + len(a) - CONTEXT - 1) for c, a in requests]
    assert sum(cuts) > 0


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.3), (torch.float16, 0.03)])
@pytest.mark.parametrize("architecture", CONFIGS)
def test_weights_of_16_bits_with_log_softmax_in_32(architecture, dtype, tolerance, path):
    requests = few_shot_requests()
    exact = model_at(path(architecture), dtype).float()  # the same rounded weights
    mine = scorer_of(model_at(path(architecture), dtype)).score(requests)
    wide = plain_scorer(exact).score(requests)
    per_token = [
        abs(a.logp - b.logp) / len(request.continuation)
        for a, b, request in zip(mine, wide, requests, strict=True)
    ]
    assert max(per_token) < tolerance
    with torch.inference_mode():
        output = model_at(path(architecture), dtype)(torch.tensor([requests[0].context]))
    logits = output.logits[0, -1]
    first = logits.float().log_softmax(-1)[requests[0].continuation[0]]
    assert first.to(dtype) != first  # a log-prob that the weights' own format could not hold
    assert mine[0].logp == pytest.approx(float(first), abs=tolerance)


def test_each_parts_attention_is_given_back():
    size = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 1}
    text = {"vocab_size": 60, "num_key_value_heads": 1, "head_dim": 16, "num_hidden_layers": 2}
    config = Gemma3Config(
        text_config={**size, **text},
        vision_config={**size, "num_hidden_layers": 1, "image_size": 16, "patch_size": 8},
        mm_tokens_per_image=4,
        image_token_index=58,
    )
    given = {"text_config": "eager", "vision_config": "sdpa"}
    model = Gemma3ForConditionalGeneration._from_config(config, attn_implementation=given)
    with packed_attention(model):
        assert model.config.text_config._attn_implementation == NAME
    assert model.config.text_config._attn_implementation == "eager"
    assert model.config.vision_config._attn_implementation == "sdpa"


def test_the_models_attention_is_given_back(path):
    model = model_at(path("llama"))
    before = model.config._attn_implementation
    scorer_of(model).score(few_shot_requests()[:4])
    assert model.config._attn_implementation == before != NAME


# --- the check


class NoPositions(LlamaForCausalLM):
    """A model whose own code counts positions itself."""

    def forward(self, input_ids=None, position_ids=None, logits_to_keep=0, **kwargs):
        kwargs["position_ids"] = torch.arange(input_ids.shape[1])[None]
        return super().forward(input_ids=input_ids, logits_to_keep=logits_to_keep, **kwargs)


class OneTextAlone(LlamaForCausalLM):
    """A model whose own code takes no positions."""

    def forward(self, input_ids=None, position_ids=None, logits_to_keep=0, **kwargs):
        if position_ids is not None:
            raise ValueError("counts\x1b[2J for itself")
        return super().forward(input_ids=input_ids, logits_to_keep=logits_to_keep, **kwargs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_model_that_packing_would_change_is_found_out(dtype, path, caplog):
    model = NoPositions.from_pretrained(path("llama"), dtype=dtype).eval()
    scorer = Scorer(model, CONTEXT, torch.device("cpu"))
    with warned(caplog):
        assert "differ from" in scorer.plain_reason
    requests = few_shot_requests()
    if dtype == torch.float32:
        assert_equal(scorer.score(requests), lm_eval_scores(path("llama"), requests))


def test_a_model_whose_code_refuses_a_row_is_found_out(path, caplog):
    model = OneTextAlone.from_pretrained(path("llama")).eval()
    scorer = Scorer(model, CONTEXT, torch.device("cpu"))
    with warned(caplog):
        assert "ValueError: counts\x1b[2J for itself" in scorer.plain_reason
    assert f"{path('llama')}: scores without" in caplog.text
    assert "counts?[2J for itself" in caplog.text
    assert scorer.notes == [
        f"scores without sharing prefixes, which is slower: {scorer.plain_reason}"
    ]
    requests = few_shot_requests()
    assert_equal(scorer.score(requests), lm_eval_scores(path("llama"), requests))


def test_a_window_that_is_not_named_limits_what_is_packed(path, monkeypatch):
    """As of a model that masks its window without telling its attention."""
    window = 40  # longer than the texts of the check
    model = model_at(path("mistral_window"))
    model.config.sliding_window = window
    requests = few_shot_requests()
    plain = plain_scorer(model).score(requests)
    for layer in model.model.layers:
        inner = layer.self_attn.forward

        def unnamed(*args, inner=inner, **kwargs):
            model.config.sliding_window = (
                None if model.config._attn_implementation == NAME else window
            )
            try:
                return inner(*args, **kwargs)
            finally:
                model.config.sliding_window = window

        monkeypatch.setattr(layer.self_attn, "forward", unnamed)
    scorer = scorer_of(model)
    assert scorer.longest_packed == window
    assert_equal(scorer.score(requests), plain)
    scorer.longest_packed = CONTEXT
    assert max(abs(a.logp - b.logp) for a, b in zip(scorer.score(requests), plain, strict=True)) > 1


class AttendsTwice(LlamaForCausalLM):
    """A model that runs its layers twice."""

    def __init__(self, config):
        super().__init__(config)
        self.model.layers[1] = self.model.layers[0]


class Masks(LlamaForCausalLM):
    """A model that hands a mask of its own to its attention."""

    def __init__(self, config):
        super().__init__(config)
        inner = self.model.layers[0].self_attn.forward
        n = config.max_position_embeddings

        def masked(*args, **kwargs):
            if self.config._attn_implementation == NAME:
                kwargs["attention_mask"] = torch.zeros(1, 1, n, n)
            return inner(*args, **kwargs)

        self.model.layers[0].self_attn.forward = masked


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(AttendsTwice, "attends twice in layer 0"), (Masks, "takes a mask of its own")],
)
def test_more_than_one_causal_attention_a_layer_is_refused(kind, reason, path):
    scorer = Scorer(kind.from_pretrained(path("llama")).eval(), CONTEXT, torch.device("cpu"))
    assert reason in scorer.plain_reason
    assert all(np.isfinite(one.logp) for one in scorer.score(few_shot_requests()[:3]))


@pytest.mark.parametrize("architecture", CONFIGS)
def test_one_text_that_is_no_number_leaves_the_others_as_they_are(architecture, path):
    model = model_at(path(architecture))
    requests = few_shot_requests()
    with torch.no_grad():
        rows = model.get_input_embeddings().weight.clone()
        rows[requests[4].continuation[0]] = math.nan
        model.get_input_embeddings().weight = torch.nn.Parameter(rows)
    alone = [plain_scorer(model).score([request])[0] for request in requests]
    found = scorer_of(model).score(requests)
    lost = [math.isnan(one.logp) for one in alone]
    assert [math.isnan(one.logp) for one in found] == lost
    if architecture != "qwen2_tied":  # its output shares the lost row
        assert 0 < sum(lost) < len(requests)
    for one, other in zip(found, alone, strict=True):
        assert math.isnan(one.logp) or one.logp == pytest.approx(other.logp, abs=1e-4)


# --- memory


def test_logits_are_never_more_than_the_budget(path):
    model = model_at(path("llama"))
    seen = []
    model.lm_head.register_forward_hook(lambda module, inputs, out: seen.append(out.numel()))
    packed, plain = scorer_of(model), plain_scorer(model)
    for scorer in (packed, plain):
        seen.clear()
        scorer._logits_at_once = 2000
        scorer.score(few_shot_requests())
        assert 1000 < max(seen) <= 2000


def test_out_of_memory_halves_what_is_done_at_once(path):
    model = model_at(path("llama"))
    requests = few_shot_requests()
    want = scorer_of(model).score(requests)
    sizes = []

    def full(module, inputs, out):
        sizes.append(inputs[0].shape[1])
        if inputs[0].shape[1] > 40:
            raise torch.OutOfMemoryError("as a device says it")

    model.model.embed_tokens.register_forward_hook(full)
    scorer = scorer_of(model)
    assert_equal(scorer.score(requests), want, within=1e-5)
    assert max(sizes) > 40 >= sizes[-1]
    assert scorer._tokens_at_once == 32


LIMITED = """
import json, resource, sys
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from prefbench.engines.base import TokenRequest
from prefbench.engines.scoring import Scorer

torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=120_000, hidden_size=32, intermediate_size=4096, num_hidden_layers=1,
    num_attention_heads=2, max_position_embeddings=4096,
)
model = LlamaForCausalLM(config).eval()
scorer = Scorer(model, 4096, torch.device("cpu"))
assert scorer.plain_reason is None
rng = torch.Generator().manual_seed(0)
draw = lambda n: torch.randint(0, 120_000, (n,), generator=rng).tolist()
requests = [TokenRequest(draw(1500), draw(500)) for _ in range(2)]
want = [one.logp for one in scorer.score(requests)]
scorer._tokens_at_once, scorer._logits_at_once = 4096, 1 << 31
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20),) * 2)
got = [one.logp for one in scorer.score(requests)]
print(json.dumps([want, got, scorer._tokens_at_once]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is one of Linux")
def test_too_little_memory_is_lived_with():
    """A process that may not have what it would like to."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    want, got, tokens_at_once = json.loads(done.stdout)
    assert got == pytest.approx(want, abs=1e-2)
    assert tokens_at_once < 4096


def test_what_is_kept_does_not_grow_with_the_number_of_items(path):
    scorer = scorer_of(model_at(path("llama")), tokens=48)
    sizes = set()
    for seed in range(12):
        scorer.score(few_shot_requests(seed))
        sizes.add(sum(t.numel() for places in scorer.kept._layers.values() for t in places))
    assert len(sizes) == 1
    assert len(scorer.kept.chain) <= CONTEXT


def test_memory_is_given_back_when_an_engine_closes(path):
    with open_engine("hf", checkpoint_at(Path(path("llama"))), EngineSettings()) as engine:
        engine.score(few_shot_requests()[:4])
        kept = engine._scorer.kept
        assert len(kept.chain) or kept._layers
    assert not hasattr(engine, "_scorer")
