"""Requests: what is sent for each kind of task, as text and as token ids."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from jinja2 import TemplateError

from prefbench.engines import open_engine
from prefbench.engines.base import EngineSettings, TokenRequest
from prefbench.errors import EngineError
from prefbench.measures.requests import build_requests
from prefbench.tasks import tasks_folder
from tests.asking import answers_of, build, checkpoint_at, requests_of, task_named
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


@pytest.fixture
def pairs(tmp_path):
    """Requests of a task of pairs with these rows."""

    def get(rows, engine, form="plain_pairs", **settings):
        (tmp_path / "pairs.json").write_text(json.dumps(rows))
        text = PAIRS.format(pairs=tasks_folder() / "_pairs.yaml", form=form)
        (tmp_path / "own.yaml").write_text(text)
        return requests_of("own_pairs", None, engine, folder=tmp_path, **settings)

    return get


def ids(text):
    return [ord(letter) for letter in text]


HH = [{"chosen": TALK + " A cat.", "rejected": TALK + " A dog, maybe."}]


def test_prompt_and_replies_are_tokenised_apart_and_end_with_the_end_of_turn(pairs):
    engine = ScriptedEngine()
    requests = pairs(HH, engine, "hh_pairs")
    ((chosen, rejected),) = requests.tokens
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
    ((chosen, _),) = pairs(HH, Merging(), "hh_pairs").tokens
    assert chosen.context == [START, *ids(TALK)]
    assert chosen.continuation == [*ids(" A cat."), END]


def test_a_pair_without_a_prompt_is_read_from_the_start_token(pairs):
    requests = pairs([{"prompt": "", "chosen": "a", "rejected": "b"}], ScriptedEngine())
    assert requests.tokens[0] == (
        TokenRequest([START], [ord("a"), END]),
        TokenRequest([START], [ord("b"), END]),
    )


def test_a_pair_under_a_chat_template_is_a_conversation(pairs):
    engine = Chat()
    requests = pairs(HH, engine, "hh_pairs", chat=True)
    (item,) = requests.items
    assert item.prompt == "[user]Hello■\n[assistant]Yes?■\n[user]What is it?■\n[assistant]"
    assert item.continuations == ("A cat.", "A dog, maybe.")
    ((chosen, rejected),) = requests.tokens
    assert chosen == TokenRequest(ids(item.prompt), ids("A cat.■"))
    assert rejected.continuation == ids("A dog, maybe.■")


def test_a_template_that_ends_no_turn_leaves_the_end_of_sequence(pairs):
    class Plain(Chat):
        def apply_chat_template(self, chat_history, add_generation_prompt=True):
            return super().apply_chat_template(chat_history).replace("■", "")

    ((chosen, _),) = pairs(HH, Plain(), "hh_pairs", chat=True).tokens
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
    assert [len(tokens) for tokens in requests.tokens] == [0, 2]
    first, second = answers_of(requests, engine)
    assert (first.item, first.reason, first.logps) == (0, "chosen and rejected are identical", ())
    assert second.reason is None
    assert len(engine.scored) == 2


def test_chat_templates_of_transformers_end_a_reply_with_their_own_token(tmp_path, pairs):
    checkpoint = checkpoint_at(make(tmp_path / "chat", chat=CHATML))
    with open_engine("hf", checkpoint, EngineSettings()) as engine:
        plain = pairs(HH, engine, "hh_pairs").tokens[0][0].continuation
        chat = pairs(HH, engine, "hh_pairs", chat=True)
        assert engine.tokenizer.decode(plain) == " A cat.<end>"
        assert engine.tokenizer.decode(chat.tokens[0][0].continuation) == "A cat.</turn>"
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
        (item,), (tokens,) = requests.items, requests.tokens
        expected = [engine._encode_pair(item.prompt, text) for text in item.continuations]
        assert [tuple(request) for request in tokens] == expected


def test_a_choice_without_a_prompt(choice):
    requests = choice("", ScriptedEngine())
    assert requests.tokens[0][0] == TokenRequest([START], ids(" yes"))


def test_generation_sends_the_prompt_and_its_settings(choice):
    text = CHOICE.replace("multiple_choice", "generate_until").replace("doc_to_choice: c\n", "")
    text = text.replace("metric: acc", "metric: exact_match").replace(
        "doc_to_target: 0", "doc_to_target: q"
    )
    settings = "generation_kwargs: {until: ['.'], max_gen_toks: 5}"
    requests = choice("Is it?", ScriptedEngine(), f"{text}\n{settings}")
    assert requests.tokens == ((TokenRequest(ids("Is it?"), ()),),)
    assert requests.sampling is not None
    assert (requests.sampling.until, requests.sampling.max_gen_toks) == ((".",), 5)
    with pytest.raises(EngineError, match="unknown keys num_beams"):
        choice("Is it?", ScriptedEngine(), f"{text}\n{settings[:-1]}, num_beams: 2}}")


def test_the_digest_is_that_of_the_texts(choice, pairs):
    first = choice("Is it?", ScriptedEngine())
    assert first.digest == choice("Is it?", ScriptedEngine()).digest
    assert first.digest == choice("Is it?", Merging()).digest
    assert first.digest != choice("Is it ?", ScriptedEngine()).digest
    assert pairs(HH, Chat(), "hh_pairs").digest != pairs(HH, Chat(), "hh_pairs", chat=True).digest


def test_progress_is_told_item_by_item(real_data):
    told = []
    task = task_named("arc_easy_0shot")
    build_requests(
        task,
        build(task, real_data),
        ScriptedEngine(),
        chat=False,
        limit=3,
        progress=lambda done, n: told.append((done, n)),
    )
    assert told == [(1, 3), (2, 3), (3, 3)]
