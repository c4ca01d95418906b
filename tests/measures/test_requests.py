"""Requests: what is sent for each kind of task, as text and as token ids."""

from __future__ import annotations

import gc
import json
import threading
import weakref
from types import SimpleNamespace

import pytest
from jinja2 import TemplateError

from prefbench.engines import open_engine
from prefbench.engines.base import EngineSettings, TokenRequest
from prefbench.errors import EngineError
from prefbench.measures.requests import CHUNK, build_requests
from prefbench.tasks import tasks_folder
from tests.asking import (
    answers_of,
    build,
    checkpoint_at,
    requests_of,
    task_named,
    tokens_of,
)
from tests.scripted import END, START, ScriptedEngine
from tests.small_models import CHATML, make

PAIRS = """
include: {pairs}
task: own_pairs
dataset_path: json
dataset_kwargs: {{data_files: {{test: pairs.json}}}}
test_split: test
process_docs: !function prefbench.documents.{form}
"""
TALK = "\n\nHuman: Hello\n\nAssistant: Yes?\n\nHuman: What is it?\n\nAssistant:"


class Chat(ScriptedEngine):
    """Has a chat template in brackets; a turn ends with a special token, "■"."""

    tokenizer = SimpleNamespace(
        chat_template="brackets",
        added_tokens_decoder={ord("■"): SimpleNamespace(special=True)},
    )

    def apply_chat_template(self, chat_history, add_generation_prompt=True):
        if any(turn["role"] == "system" for turn in chat_history):
            raise TemplateError("no system turns")
        turns = "".join(f"[{turn['role']}]{turn['content']}■\n" for turn in chat_history)
        return turns + ("[assistant]" if add_generation_prompt else "")


def write_pairs(folder, rows, form="plain_pairs"):
    """The task `own_pairs`."""
    (folder / "pairs.json").write_text(json.dumps(rows))
    text = PAIRS.format(pairs=tasks_folder() / "_pairs.yaml", form=form)
    (folder / "own.yaml").write_text(text)


@pytest.fixture
def pairs(tmp_path):
    """Requests of a task of pairs with these rows."""

    def get(rows, engine, form="plain_pairs", **settings):
        write_pairs(tmp_path, rows, form)
        return requests_of("own_pairs", None, engine, folder=tmp_path, **settings)

    return get


def ids(text):
    return [ord(letter) for letter in text]


HH = [{"chosen": TALK + " A cat.", "rejected": TALK + " A dog, maybe."}]


def test_prompt_and_replies_are_tokenised_apart_and_end_with_the_end_of_turn(pairs):
    engine = ScriptedEngine()
    requests = pairs(HH, engine, "hh_pairs")
    ((chosen, rejected),) = tokens_of(requests)
    # The space after "Assistant:" belongs to the reply.
    assert requests.items[0].prompt == TALK
    assert chosen == TokenRequest(ids(TALK), [*ids(" A cat."), END])
    assert rejected == TokenRequest(ids(TALK), [*ids(" A dog, maybe."), END])
    (answer,) = answers_of(requests, engine)
    assert answer.n_tokens == (len(" A cat.") + 1, len(" A dog, maybe.") + 1)
    assert answer.n_bytes == (len(" A cat."), len(" A dog, maybe."))


class Merging(ScriptedEngine):
    """Tokenises ": A" into one token, as a tokenizer of words might."""

    def tok_encode(self, string, add_special_tokens=None, **kwargs):
        start = [] if add_special_tokens is False else [START]
        return [*start, *ids(string.replace(": A", "§"))]


def test_no_token_reaches_over_the_boundary_of_a_reply(pairs):
    ((chosen, _),) = tokens_of(pairs(HH, Merging(), "hh_pairs"))
    assert chosen.context == [START, *ids(TALK)]
    assert chosen.continuation == [*ids(" A cat."), END]


def test_a_pair_without_a_prompt_is_read_from_the_start_token(pairs):
    requests = pairs([{"prompt": "", "chosen": "a", "rejected": "b"}], ScriptedEngine())
    assert tokens_of(requests)[0] == [
        TokenRequest([START], [ord("a"), END]),
        TokenRequest([START], [ord("b"), END]),
    ]


def test_a_pair_under_a_chat_template_is_a_conversation(pairs):
    engine = Chat()
    requests = pairs(HH, engine, "hh_pairs", chat=True)
    (item,) = requests.items
    assert item.prompt == "[user]Hello■\n[assistant]Yes?■\n[user]What is it?■\n[assistant]"
    assert item.continuations == ("A cat.", "A dog, maybe.")
    ((chosen, rejected),) = tokens_of(requests)
    assert chosen == TokenRequest(ids(item.prompt), ids("A cat.■"))
    assert rejected.continuation == ids("A dog, maybe.■")


def test_a_template_that_ends_no_turn_leaves_the_end_of_sequence(pairs):
    class Plain(Chat):
        def apply_chat_template(self, chat_history, add_generation_prompt=True):
            return super().apply_chat_template(chat_history).replace("■", "")

    ((chosen, _),) = tokens_of(pairs(HH, Plain(), "hh_pairs", chat=True))
    assert chosen.continuation == [*ids("A cat."), END]


def test_a_conversation_that_the_template_refuses_is_missing_alone(pairs):
    rows = [
        {"chosen": f"Be kind.{TALK} Yes.", "rejected": f"Be kind.{TALK} No."},
        *HH,
    ]
    engine = Chat()
    requests = pairs(rows, engine, "hh_pairs", chat=True)
    first, second = answers_of(requests, engine)
    assert first.reason == "the chat template refuses the conversation: no system turns"
    assert second.reason is None
    assert all(a.reason is None for a in answers_of(pairs(rows, engine, "hh_pairs"), engine))


@pytest.mark.parametrize("chat", [False, True])
def test_a_missing_item_is_not_asked_and_keeps_its_reason(pairs, chat):
    rows = [{"prompt": "x", "chosen": "same", "rejected": "same"}, {**HH[0], "prompt": "y"}]
    engine = Chat()
    requests = pairs(rows, engine, chat=chat)
    assert [item.reason for item in requests.items] == ["chosen and rejected are identical", None]
    assert [len(tokens) for tokens in tokens_of(requests)] == [0, 2]
    first, second = answers_of(requests, engine)
    assert (first.item, first.reason, first.logps) == (0, "chosen and rejected are identical", ())
    assert second.reason is None
    assert len(engine.scored) == 2


def test_chat_templates_of_transformers_end_a_reply_with_their_own_token(tmp_path, pairs):
    checkpoint = checkpoint_at(make(tmp_path / "chat", chat=CHATML))
    with open_engine("hf", checkpoint, EngineSettings()) as engine:
        plain = pairs(HH, engine, "hh_pairs").tokens(0)[0].continuation
        chat = pairs(HH, engine, "hh_pairs", chat=True)
        assert engine.tokenizer.decode(plain) == " A cat.<end>"
        assert engine.tokenizer.decode(chat.tokens(0)[0].continuation) == "A cat.</turn>"
        assert chat.items[0].prompt.endswith("is it?</turn>\n<turn>assistant\n")


# --- lm-eval's own kinds


CHOICE = """
task: choice
output_type: multiple_choice
dataset_path: json
dataset_kwargs: {data_files: {test: rows.json}}
test_split: test
doc_to_text: q
doc_to_choice: c
doc_to_target: 0
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


@pytest.fixture
def choice(tmp_path):
    def get(question, engine, text=CHOICE, **settings):
        rows = [{"q": question, "c": ["yes", "no"]}]
        (tmp_path / "rows.json").write_text(json.dumps(rows))
        (tmp_path / "choice.yaml").write_text(text)
        return requests_of("choice", None, engine, folder=tmp_path, **settings)

    return get


def test_choices_are_split_as_lm_eval_does(choice):
    engine = Merging()
    for question in ("Is it", "Is it  ", "Is: A", "Is:", "It is: "):
        requests = choice(
            question, engine, CHOICE.replace("doc_to_text", "target_delimiter: ' A'\ndoc_to_text")
        )
        (item,), (tokens,) = requests.items, tokens_of(requests)
        expected = [engine._encode_pair(item.prompt, text) for text in item.continuations]
        assert [tuple(request) for request in tokens] == expected


def test_a_choice_without_a_prompt(choice):
    requests = choice("", ScriptedEngine())
    assert tokens_of(requests)[0][0] == TokenRequest([START], ids(" yes"))


def test_generation_sends_the_prompt_and_its_settings(choice):
    text = CHOICE.replace("multiple_choice", "generate_until").replace("doc_to_choice: c\n", "")
    text = text.replace("metric: acc", "metric: exact_match").replace(
        "doc_to_target: 0", "doc_to_target: q"
    )
    settings = "generation_kwargs: {until: ['.'], max_gen_toks: 5}"
    requests = choice("Is it?", ScriptedEngine(), f"{text}\n{settings}")
    assert tokens_of(requests) == [[TokenRequest(ids("Is it?"), [])]]
    assert requests.sampling is not None
    assert (requests.sampling.until, requests.sampling.max_gen_toks) == ((".",), 5)
    with pytest.raises(EngineError, match="unknown keys num_beams"):
        choice("Is it?", ScriptedEngine(), f"{text}\n{settings[:-1]}, num_beams: 2}}")


def test_the_digest_is_that_of_the_texts(choice, pairs):
    first = choice("Is it?", ScriptedEngine())
    assert first.digest() == choice("Is it?", ScriptedEngine()).digest()
    assert first.digest() == choice("Is it?", Merging()).digest()
    assert first.digest() != choice("Is it ?", ScriptedEngine()).digest()
    plain, chat = (pairs(HH, Chat(), "hh_pairs", chat=chat) for chat in (False, True))
    assert plain.digest() != chat.digest()


# --- built when asked for


COUNTED = [
    {"prompt": f"p{i // 2}", "chosen": f"c{i}", "rejected": "r"} for i in range(CHUNK * 2 + 9)
]


class Counting(ScriptedEngine):
    """Remembers the texts of each call, and in which thread they were encoded."""

    def __init__(self):
        super().__init__()
        self.calls, self.threads = [], set()

    def encode(self, texts, add_special_tokens=None):
        self.calls.append(list(texts))
        self.threads.add(threading.current_thread())
        return super().encode(texts, add_special_tokens)


@pytest.fixture
def unbuilt(tmp_path):
    """Requests of the counted pairs, none of them built."""

    def get(engine, **settings):
        write_pairs(tmp_path, COUNTED)
        task = task_named("own_pairs", tmp_path)
        return build_requests(task, build(task, None), engine, chat=False, **settings)

    return get


def test_token_ids_are_built_one_chunk_ahead_of_what_is_asked_for(unbuilt):
    begun = threading.Event()

    class Telling(Counting):
        def encode(self, texts, add_special_tokens=None):
            if f"c{CHUNK}" in texts:
                begun.set()
            return super().encode(texts, add_special_tokens)

    engine = Telling()
    requests = unbuilt(engine)
    with requests.built_by(engine):
        assert engine.calls == []
        requests.tokens(0)
        assert begun.wait(30)
    assert not any(f"c{2 * CHUNK}" in texts for texts in engine.calls)


def test_the_tokenizer_works_beside_the_main_thread_and_prompts_do_not(unbuilt):
    engine = Counting()
    requests = unbuilt(engine)
    rendered = []
    requests.harness.set_fewshot_seed = lambda seed: rendered.append(threading.current_thread())
    with requests.built_by(engine):
        tokens_of(requests)
    assert rendered == [threading.main_thread()]
    assert len(engine.threads) == 1
    assert engine.threads.isdisjoint({threading.main_thread()})


def test_a_chunk_is_scored_while_the_next_is_tokenised(unbuilt):
    entered, scored = threading.Event(), threading.Event()

    class Waiting(Counting):
        def encode(self, texts, add_special_tokens=None):
            if f"c{CHUNK}" in texts:
                entered.set()
                assert scored.wait(30)
            return super().encode(texts, add_special_tokens)

        def score(self, requests, *, details=False):
            assert entered.wait(30)
            scored.set()
            return super().score(requests, details=details)

    engine = Waiting()
    requests = unbuilt(engine)
    assert len(answers_of(requests, engine)) == len(COUNTED)


def test_a_text_of_a_chunk_is_encoded_once_and_its_ids_are_one_object(unbuilt):
    engine = Counting()
    requests = unbuilt(engine)
    with requests.built_by(engine):
        tokens_of(requests)
    assert all(len(texts) == len(set(texts)) for texts in engine.calls)
    assert len(engine.calls) == 3 * 2  # with special tokens and without
    (chosen, rejected), (again, _) = requests.tokens(0), requests.tokens(1)
    assert chosen.context is rejected.context is again.context
    assert (chosen.context.typecode, chosen.continuation.itemsize) == ("i", 4)


def test_a_second_checkpoint_finds_everything_built(unbuilt):
    first, second = Counting(), Counting()
    requests = unbuilt(first)
    answers = answers_of(requests, first)
    n_calls = len(first.calls)
    assert answers_of(requests, second) == answers
    assert (len(first.calls), second.calls) == (n_calls, [])


def test_the_rest_is_built_by_the_engine_at_hand_and_the_first_is_let_go(unbuilt):
    class Breaking(Counting):
        def score(self, requests, *, details=False):
            raise RuntimeError("device lost")

    engine = Breaking()
    requests = unbuilt(engine)
    with pytest.raises(RuntimeError, match="device lost"):
        answers_of(requests, engine)
    gone = weakref.ref(engine)
    del engine
    gc.collect()
    assert gone() is None
    second = Counting()
    assert len(answers_of(requests, second)) == len(COUNTED)
    encoded = {text for texts in second.calls for text in texts}
    assert "c0" not in encoded
    assert {f"c{i}" for i in range(CHUNK, len(COUNTED))} <= encoded


def test_what_fails_in_the_background_is_raised_with_where_it_failed(unbuilt):
    class Failing(Counting):
        def encode(self, texts, add_special_tokens=None):
            if f"c{CHUNK}" in texts:
                raise ValueError("no such letter")
            return super().encode(texts, add_special_tokens)

    engine = Failing()
    requests = unbuilt(engine)
    with requests.built_by(engine):
        requests.tokens(CHUNK - 1)  # the chunk before is whole
        with pytest.raises(ValueError, match="no such letter") as caught:
            requests.tokens(CHUNK)
    assert "encode" in [entry.name for entry in caught.traceback]
    assert len(answers_of(requests, Counting())) == len(COUNTED)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_no_thread_is_left_behind(unbuilt, error):
    before = threading.active_count()
    engine = Counting()
    requests = unbuilt(engine)
    with pytest.raises(error), requests.built_by(engine):  # noqa: PT012
        requests.tokens(0)
        assert threading.active_count() > before
        raise error
    assert threading.active_count() == before


def test_digests_need_no_token_ids_and_do_not_depend_on_batches(unbuilt):
    engine = Counting()
    requests, again = unbuilt(engine), unbuilt(engine)
    digests = [requests.digest(range(i, i + 5)) for i in (0, 5)]
    assert len(set(digests)) == 2
    assert digests[1] == again.digest(range(5, 10))
    assert requests.digest() == again.digest(range(len(again))) != unbuilt(engine, limit=9).digest()
    assert engine.calls == []


def test_prompts_are_the_same_after_one_of_them_failed(real_data, monkeypatch):
    task = task_named("arc_challenge_25shot")
    engine = Counting()
    expected, requests = (
        build_requests(task, build(task, real_data, "parity"), engine, chat=False, limit=4)
        for _ in range(2)
    )
    word = type(requests.harness).construct_requests
    failures = iter([False, False, True])

    def failing(self, *args, **more):
        if next(failures, False):
            raise MemoryError
        return word(self, *args, **more)

    prompts = [item.prompt for item in expected.items]
    monkeypatch.setattr(type(requests.harness), "construct_requests", failing)
    with pytest.raises(MemoryError):
        requests.item(3)
    assert [item.prompt for item in requests.items] == prompts
