"""The embedded engine: small models made on the spot, against lm-eval's and plain transformers."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from prefbench.engines import open_engine
from prefbench.engines.base import EngineSettings, Sampling, TokenRequest, sampling_of
from prefbench.errors import EngineError
from prefbench.measures.answers import NOT_FINITE
from tests.asking import answers_of, build, checkpoint_at, quantities_of, requests_of, task_named
from tests.small_models import (
    CHATML,
    CONFIGS,
    CONTEXT,
    END,
    START,
    TURN,
    TURN_END,
    make,
    script,
    teach,
    tokenizer,
)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return make(tmp_path_factory.mktemp("models") / "llama")


def opened(path, base=None, **settings):
    return open_engine("hf", checkpoint_at(path, base), EngineSettings(**settings))


def hflm(path, **settings):
    return HFLM(pretrained=str(path), dtype="float32", device="cpu", batch_size=2, **settings)


def pairs(*texts: tuple[str, str]) -> list[Instance]:
    return [Instance("loglikelihood", {}, text, i) for i, text in enumerate(texts)]


def tokens(engine, *texts: tuple[str, str]) -> list[TokenRequest]:
    return [
        TokenRequest(engine.tok_encode(context), engine.tok_encode(text, add_special_tokens=False))
        for context, text in texts
    ]


TEXTS = (
    ("the cat", " sat on the mat"),
    ("the cat ", "sat"),
    ("the cat sat", " on"),
    ("", "the mat"),
    ("Où est", " le chat ?"),
    ("the cat" * 9, " sat" * 9),
)


def assert_equal(mine, theirs):
    assert [logp for logp, _ in mine] == pytest.approx([logp for logp, _ in theirs], abs=1e-4)
    assert [greedy for _, greedy in mine] == [greedy for _, greedy in theirs]


# --- log-probs


@pytest.mark.parametrize("start", [False, True])
@pytest.mark.parametrize("architecture", CONFIGS)
def test_log_probs_are_lm_evals_for_every_architecture(architecture, start, tmp_path):
    path = make(tmp_path / "model", architecture, start=start)
    with opened(path) as engine:
        assert engine.max_length == CONTEXT
        theirs = hflm(path)
        for text in ("the cat", "", START, f"{START}the cat", " ", END):
            assert engine.tok_encode(text) == theirs.tok_encode(text)
            assert engine.tok_encode(text, add_special_tokens=False) == theirs.tok_encode(
                text, add_special_tokens=False
            )
        assert (engine.tok_encode("the")[0] == engine.prefix_token_id) == start
        assert engine.prefix_token_id == theirs.prefix_token_id
        mine = engine.loglikelihood(pairs(*TEXTS), disable_tqdm=True)
        assert_equal(mine, theirs.loglikelihood(pairs(*TEXTS), disable_tqdm=True))
        rolled = [Instance("loglikelihood_rolling", {}, ("the cat sat on " * 20,), 0)]
        assert engine.loglikelihood_rolling(rolled) == pytest.approx(
            theirs.loglikelihood_rolling(rolled, disable_tqdm=True), abs=1e-3
        )


def test_a_log_prob_is_the_models_own(llama):
    with opened(llama) as engine:
        ((context, answer),) = tokens(engine, ("the cat", " sat on"))
        model = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
        logits = model(torch.tensor([[*context, *answer]])).logits[0].detach().log_softmax(-1)
        expected = sum(float(logits[len(context) + i - 1, token]) for i, token in enumerate(answer))
        assert engine.score([TokenRequest(context, answer)])[0].logp == pytest.approx(expected)


def test_greedy_is_what_would_be_generated(llama):
    with opened(llama) as engine:
        context = engine.tok_encode("the cat")
        model = engine.model
        best = []
        for _ in range(4):
            best.append(int(model(torch.tensor([[*context, *best]])).logits[0, -1].argmax()))
        other = [*best[:3], (best[3] + 1) % 200]
        flags = [
            one.greedy
            for one in engine.score([TokenRequest(context, best), TokenRequest(context, other)])
        ]
        assert flags == [True, False]


@pytest.mark.parametrize("architecture", CONFIGS)
def test_batches_change_nothing(architecture, tmp_path):
    with opened(make(tmp_path / "model", architecture)) as engine:
        requests = tokens(engine, *(text for text in TEXTS if text[0]))
        together = engine.score(requests)
        for request, one in zip(requests, together, strict=True):
            (alone,) = engine.score([request])
            assert one.logp == pytest.approx(alone.logp, abs=1e-5)
            assert one[1:] == alone[1:]
        engine._logits_at_once = 1  # one request at a time
        assert [one.logp for one in engine.score(requests)] == pytest.approx(
            [one.logp for one in together], abs=1e-5
        )
        assert engine.score([]) == []


def test_at_and_beyond_the_context_length(llama):
    theirs = hflm(llama)
    context, answer = list(range(10, 10 + CONTEXT)), list(range(100, 100 + CONTEXT))
    cases = [  # tokens of context and of answer, and how many must go
        (CONTEXT - 4, 4, 0),
        (CONTEXT - 3, 4, 0),  # the last token is never read, only scored
        (CONTEXT - 2, 4, 1),
        (CONTEXT, 10, 9),
        (1, CONTEXT, 0),
        (5, CONTEXT, 4),
    ]
    requests = [TokenRequest(context[:n], answer[:m]) for n, m, _ in cases]
    with opened(llama) as engine:
        scored = engine.score(requests)
        assert [one.n_cut for one in scored] == [n_cut for _, _, n_cut in cases]
        reference = theirs._loglikelihood_tokens(
            [(("", ""), list(c), list(a)) for c, a in requests], disable_tqdm=True
        )
        assert_equal([one[:2] for one in scored], reference)
        for n, message in ((0, "the answer has no tokens"), (CONTEXT + 1, "49 tokens, the cont")):
            request = TokenRequest([1], [*answer, 5][:n])
            assert message in engine.check(request)
            with pytest.raises(EngineError, match=message):
                engine.score([request])
    with opened(llama, max_length=8) as engine:
        assert engine.max_length == 8
        assert engine.score([TokenRequest(context[:9], answer[:3])])[0].n_cut == 3


def test_log_probs_are_taken_in_float32_whatever_the_weights(llama):
    with opened(llama, dtype="bfloat16") as low, opened(llama) as high:
        assert low.model.dtype == torch.bfloat16
        request = tokens(high, TEXTS[0])
        assert low.score(request)[0].logp == pytest.approx(high.score(request)[0].logp, rel=0.05)
        assert low.score(request)[0].logp != high.score(request)[0].logp


# --- whole tasks


@pytest.fixture
def own(tmp_path):
    """A folder with two small tasks."""
    rows = [{"q": q, "c": [" sat", " on the mat"], "a": 0} for q in ("the cat", "the mat", "on")]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    data = "dataset_path: json\ndataset_kwargs: {data_files: {test: rows.json}}\ntest_split: test\n"
    (tmp_path / "choice.yaml").write_text(
        f'task: choice\noutput_type: multiple_choice\n{data}doc_to_text: "{{{{q}}}}"\n'
        'target_delimiter: ""\ndoc_to_choice: "{{c}}"\ndoc_to_target: "{{a}}"\n'
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    (tmp_path / "free.yaml").write_text(
        f'task: free\noutput_type: generate_until\n{data}doc_to_text: "{{{{q}}}}"\n'
        'doc_to_target: " sat"\ngeneration_kwargs: {until: ["#"], max_gen_toks: 4}\n'
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"
    )
    return tmp_path


def test_weights_that_are_no_numbers_give_reasons_and_no_numbers(llama, own, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(llama)
    with torch.no_grad():
        model.model.norm.weight[3] = math.nan
    model.save_pretrained(tmp_path / "nan")
    tokenizer().save_pretrained(tmp_path / "nan")
    with opened(tmp_path / "nan") as engine:
        for name in ("choice", "free"):
            requests = requests_of(name, None, engine, folder=own)
            answers = answers_of(requests, engine)
            assert [answer.reason for answer in answers] == [NOT_FINITE] * 3
            assert not any(answer.logps or answer.texts for answer in answers)
            assert quantities_of(requests, answers) == {}
        sampled = engine.generate([[5]], Sampling(temperature=1.0, max_gen_toks=3))
        assert not sampled[0].finite


def test_an_answer_longer_than_the_context_is_missing_alone(llama, own):
    with opened(llama, max_length=6) as engine:
        requests = requests_of("choice", None, engine, folder=own)
        with requests.built_by(engine):
            longest = max(len(request.continuation) for request in requests.tokens(0))
        assert [a.reason for a in answers_of(requests, engine)] == [None] * 3
    with opened(llama, max_length=longest - 1) as engine:
        answers = answers_of(requests, engine)
        reason = f"the answer has {longest} tokens, the context length is {longest - 1}"
        assert [answer.reason for answer in answers] == [reason] * 3


def test_a_chat_template_gives_lm_evals_prompts(tmp_path, real_data):
    path = make(tmp_path / "chat", chat=CHATML)
    task = task_named("gsm8k_5shot")
    with opened(path, max_length=4096) as engine:
        requests = requests_of("gsm8k_5shot", real_data, engine, limit=3, chat=True)
        reference = build(task, real_data)
        reference.build_all_requests(
            limit=3,
            rank=0,
            world_size=1,
            apply_chat_template=True,
            fewshot_as_multiturn=True,
            chat_template=hflm(path).apply_chat_template,
        )
        prompts = [instance.args[0] for instance in reference.instances]
        assert [item.prompt for item in requests.items] == prompts
        assert prompts[0].count("<turn>user\nQuestion:") == 6
        assert prompts[0].endswith("</turn>\n<turn>assistant\n")
        assert engine.template_digest
        choices = requests_of("arc_challenge_0shot", real_data, engine, limit=3, chat=True)
        reference = build(task_named("arc_challenge_0shot"), real_data)
        reference.build_all_requests(
            limit=3,
            rank=0,
            world_size=1,
            apply_chat_template=True,
            fewshot_as_multiturn=True,
            chat_template=hflm(path).apply_chat_template,
        )
        assert [(i.prompt, text) for i in choices.items for text in i.continuations] == [
            instance.args for instance in reference.instances
        ]
        mine = [logp for answer in answers_of(choices, engine) for logp in answer.logps]
        theirs = engine.loglikelihood(reference.instances, disable_tqdm=True)
        assert mine == pytest.approx([logp for logp, _ in theirs], abs=1e-4)
    with opened(make(tmp_path / "plain")) as engine:
        assert engine.template_digest is None


# --- generation


def generated(path, prompts, until, n=12, **settings):
    """Ours with all prompts in one batch, and lm-eval's one by one."""
    theirs = HFLM(pretrained=str(path), dtype="float32", device="cpu", batch_size=1)
    asked = {"until": list(until), "do_sample": False, "max_gen_toks": n}
    requests = [Instance("generate_until", {}, (p, asked), i) for i, p in enumerate(prompts)]
    texts = theirs.generate_until(requests, disable_tqdm=True)
    with opened(path, **settings) as engine:
        found = engine.generate([engine.tok_encode(p) for p in prompts], sampling_of(asked))
        assert engine.generate_until(requests) == texts
    assert [one.text for one in found] == texts
    return found


PROMPTS = ["the cat", "on the mat the cat", "Question:", "sat sat sat sat"]


@pytest.mark.parametrize("architecture", CONFIGS)
def test_texts_are_lm_evals_for_every_architecture(architecture, tmp_path):
    found = generated(make(tmp_path / "model", architecture), PROMPTS, ["\n\n"])
    assert {one.n_tokens for one in found} == {12}
    assert not any(one.finished for one in found)


def test_rows_end_each_at_its_own_stop_string(tmp_path):
    path = tmp_path / "taught"
    # "St" and "op" are two tokens, and "Question:" is spelt with letters and with words.
    prompts = script(path, "the Stop mat on", "sat on mat Question: the", "on the mat")
    found = generated(path, prompts, ["Stop", "Question:"], n=14)
    assert [one.text for one in found] == ["the ", "sat on mat ", "on the mat"]
    assert all(one.finished for one in found)
    made = tokenizer()
    told = ["the Stop", "sat on mat Question:", "on the mat"]
    assert [one.n_tokens for one in found] == [len(made.encode(text)) for text in told]


def test_a_stop_string_in_more_tokens_than_it_takes(tmp_path):
    made = tokenizer()
    letters = [made.convert_tokens_to_ids(letter) for letter in "Question:"]
    row = [*made.encode("A"), *made.encode("the"), *letters, *made.encode(" cat sat on mat" * 3)]
    path = tmp_path / "taught"
    (prompt,) = teach(path, [row], ["A"])
    (one,) = generated(path, [prompt], ["Question:"], n=20)
    assert (one.text, one.finished) == ("the", True)
    assert one.n_tokens == 1 + len(letters)


def test_a_special_token_as_stop_string_ends_its_row_in_any_batch(tmp_path):
    path = tmp_path / "taught"
    prompts = script(path, f"the cat{TURN_END} sat on the mat", "on the mat the cat", end="")
    with opened(path) as engine:
        asked = Sampling(until=(TURN_END,), max_gen_toks=6)
        found = engine.generate([engine.tok_encode(prompt) for prompt in prompts], asked)
        (alone,) = engine.generate([engine.tok_encode(prompts[0])], asked)
    assert found[0] == alone
    assert (alone.text, alone.finished, alone.n_tokens) == ("the cat", True, 3)
    assert found[1].text.startswith("on the mat")
    assert not found[1].finished


def test_end_tokens_of_the_generation_config(tmp_path):
    path = tmp_path / "taught"
    prompts = script(path, f"the cat{TURN} sat", "on the mat the cat")
    made = tokenizer()
    ends = [made.convert_tokens_to_ids(token) for token in (END, TURN)]
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    with opened(path) as engine:
        found = engine.generate([engine.tok_encode(p) for p in prompts], Sampling(max_gen_toks=9))
    assert [(one.text, one.finished) for one in found] == [
        ("the cat", True),
        ("on the mat the cat", True),
    ]
    assert [one.n_tokens for one in found] == [2, len(made.encode("on the mat the cat"))]


def test_prompts_that_are_empty_or_leave_no_room(llama):
    with opened(llama) as engine:
        ids = list(range(5, 5 + CONTEXT))
        empty, long = engine.generate([[], ids], Sampling(max_gen_toks=8))
        assert (empty.n_cut, long.n_cut) == (0, 8)
        (alone,) = engine.generate([[engine.prefix_token_id]], Sampling(max_gen_toks=8))
        assert empty.text == alone.text
        assert engine.generate([ids[8:]], Sampling(max_gen_toks=8))[0].text == long.text
        with pytest.raises(EngineError, match=f"{CONTEXT} tokens to generate leave no room"):
            engine.generate([ids], Sampling(max_gen_toks=CONTEXT))


def test_sampling_is_reproducible_by_its_seed(llama):
    with opened(llama) as engine:
        prompts = [engine.tok_encode(prompt) for prompt in PROMPTS[:2]]

        def texts(**settings):
            sampling = Sampling(max_gen_toks=10, **{"temperature": 1.0, **settings})
            return [one.text for one in engine.generate(prompts, sampling)]

        assert texts(seed=1) == texts(seed=1) != texts(seed=2)
        assert texts(temperature=0.0, seed=1) == texts(temperature=0.0, seed=2)
        assert texts(top_k=1) == texts(temperature=0.0) == texts(top_p=1e-6)


def test_lm_evals_generation_settings():
    assert sampling_of({}) == Sampling(until=(), max_gen_toks=256, temperature=0.0)
    assert sampling_of({"until": "stop", "do_sample": False, "temperature": 0.7}) == Sampling(
        until=("stop",), temperature=0.0
    )
    assert sampling_of(
        {"until": ["a", "b"], "do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 5}
    ) == Sampling(until=("a", "b"), temperature=0.7, top_p=0.9, top_k=5)
    with pytest.raises(EngineError, match="generation_kwargs: unknown keys beams, num_beams"):
        sampling_of({"num_beams": 4, "beams": 2})


# --- loading


def adapter(llama: Path, folder: Path, **settings) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(llama), lora)
    model.save_pretrained(folder, **settings)


def test_an_adapter_is_lm_evals(llama, tmp_path):
    adapter(llama, tmp_path / "adapter")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        theirs = hflm(llama, peft=str(tmp_path / "adapter"))
    with opened(tmp_path / "adapter", llama) as engine, opened(llama) as base:
        assert engine.max_length == CONTEXT
        mine = engine.loglikelihood(pairs(*TEXTS), disable_tqdm=True)
        assert_equal(mine, theirs.loglikelihood(pairs(*TEXTS), disable_tqdm=True))
        plain = base.loglikelihood(pairs(*TEXTS), disable_tqdm=True)
        assert abs(mine[0][0] - plain[0][0]) > 1e-3
        assert engine.generate([[5, 6]], Sampling(max_gen_toks=3))[0].n_tokens <= 3


def test_shards_are_one_checkpoint(llama, tmp_path):
    path = make(tmp_path / "shards", shards="50KB")
    assert len(list(path.glob("*.safetensors"))) > 1
    with opened(path) as sharded, opened(llama) as whole:
        assert sharded.score(tokens(sharded, TEXTS[0])) == whole.score(tokens(whole, TEXTS[0]))


def test_pickled_weights_are_loaded_only_where_allowed(llama, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(llama)
    for file in llama.iterdir():
        if file.suffix == ".json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(EngineError, match=f"{tmp_path}: cannot be loaded: "), opened(tmp_path):
        pass
    with opened(tmp_path, allow_pickle=True) as engine, opened(llama) as safe:
        assert engine.score(tokens(engine, TEXTS[0])) == safe.score(tokens(safe, TEXTS[0]))


def test_a_pickled_adapter_is_loaded_only_where_allowed(llama, tmp_path):
    adapter(llama, tmp_path, safe_serialization=False)
    assert not list(tmp_path.glob("*.safetensors"))
    with pytest.raises(EngineError, match=r"no adapter_model.safetensors"), opened(tmp_path, llama):
        pass
    with opened(tmp_path, llama, allow_pickle=True) as engine:
        assert engine.score(tokens(engine, TEXTS[0]))


def test_what_cannot_be_loaded_names_the_checkpoint(llama, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "no_such_architecture"}')
    tokenizer().save_pretrained(tmp_path)
    with pytest.raises(EngineError, match=f"{tmp_path}: cannot be loaded: "), opened(tmp_path):
        pass
    with (
        pytest.raises(EngineError, match=r"cannot be loaded: .*float33"),
        opened(llama, dtype="float33"),
    ):
        pass
    with (
        pytest.raises(EngineError, match="no engine is named 'tpu'; there are: hf"),
        open_engine("tpu", checkpoint_at(llama), EngineSettings()),
    ):
        pass


def test_a_tokenizer_without_an_end_of_sequence_token(llama, tmp_path):
    for file in llama.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer().backend_tokenizer, pad_token=TURN
    ).save_pretrained(tmp_path)
    with opened(tmp_path) as engine, pytest.raises(EngineError, match="no end-of-sequence token"):
        _ = engine.eot_token_id


def test_the_tokenizers_key_says_which_requests_can_be_shared(llama, tmp_path):
    keys = []
    for name, kind in {
        "same": {},
        "start": {"start": True},
        "chat": {"chat": CHATML},
    }.items():
        with opened(make(tmp_path / name, **kind)) as engine:
            keys.append(engine.tokenizer_key)
    with opened(llama) as engine:
        assert engine.tokenizer_key == keys[0]
    assert len(set(keys)) == 3
    assert AutoConfig.from_pretrained(llama).vocab_size > 256


@pytest.mark.parametrize("start", [False, True])
@pytest.mark.parametrize("special", [None, False, True])
def test_many_texts_are_encoded_as_each_alone(start, special, tmp_path):
    with opened(make(tmp_path / "model", start=start)) as engine:
        texts = ["the cat", f"{START}the mat", "", " sat", f"{END}Question:", "Où ?"]
        found = engine.encode(texts, special)
        assert [list(ids) for ids in found] == [engine.tok_encode(t, special) for t in texts]
        assert engine.encode([], special) == []
