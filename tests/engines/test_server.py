"""The server engine: against the embedded one through a real vLLM, and a server from a script."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prefbench.cells import Settings
from prefbench.engines import SERVER_DTYPE, open_engine
from prefbench.engines.base import (
    EngineSettings,
    Sampling,
    ServerSettings,
    TokenRequest,
)
from prefbench.engines.server import open_server
from prefbench.errors import EngineError, InputError
from prefbench.measures.answers import NOT_FINITE
from prefbench.runner import run
from prefbench.store import Store
from tests.asking import answers_of, checkpoint_at, requests_of
from tests.serving import REPLIES, SERVED_CONTEXT, Said, make_served, scripted, vllm_server
from tests.small_models import TURN_END

pytestmark = pytest.mark.xdist_group("server")  # one server where groups are kept together

LETTERS = list(REPLIES)
PROMPTS = [*LETTERS, "the cat", "on the mat the cat", "Question:", "sat sat sat sat", "Où"]
TEXTS = [
    ("A", "the Stop mat on"),
    ("B", "sat on mat Question:"),
    ("B", "sat on mat the"),
    ("C", "on the mat"),
    ("the cat", " sat on the mat"),
    ("the cat ", "sat"),
    ("Où est", " le chat ?"),
    ("the cat" * 9, " sat" * 9),
]


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint's directory. Leave it as it is."""
    return make_served(tmp_path_factory.mktemp("served") / "taught")


@pytest.fixture(scope="session")
def vllm(served: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a vLLM that serves it."""
    with vllm_server(served, tmp_path_factory.mktemp("vllm")) as url:
        yield url


def through(url: str, path: Path, max_length: int | None = None, **settings: Any) -> Any:
    server = ServerSettings(url, **settings)
    return open_server(checkpoint_at(path), EngineSettings(max_length=max_length, server=server))


def embedded(path: Path, **settings: Any) -> Any:
    return open_engine("hf", checkpoint_at(path), EngineSettings(**settings))


def requests(engine: Any) -> list[TokenRequest]:
    return [
        TokenRequest(engine.tok_encode(context), engine.tok_encode(text, add_special_tokens=False))
        for context, text in TEXTS
    ]


def assert_equal(mine: list[Any], theirs: list[Any]) -> None:
    assert [one.logp for one in mine] == pytest.approx([one.logp for one in theirs], abs=1e-4)
    assert [one[1:] for one in mine] == [one[1:] for one in theirs]


# --- a real server


def test_without_vllm_a_test_fails_and_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Skipped, a whole file of tests would go missing without anybody knowing."""
    monkeypatch.setattr("prefbench.engines.serving.installed", lambda: None)
    with (
        pytest.raises(pytest.fail.Exception, match=r"not installed: .*constraints\.txt"),
        vllm_server(tmp_path, tmp_path),
    ):
        pass


def test_log_probs_are_those_of_the_embedded_engine(vllm: str, served: Path) -> None:
    with through(vllm, served) as engine, embedded(served) as reference:
        asked = requests(reference)
        mine = engine.score(asked)
        assert_equal(mine, reference.score(asked))
        assert [one.greedy for one in mine[:4]] == [True, True, False, True]
        assert engine.score([]) == []
        assert engine.score(asked[2:3])[0].logp == pytest.approx(mine[2].logp, abs=1e-5)
        served_as = f"served as {str(served)!r} in the server's number format"
        assert engine.notes == [f"{served_as}, asked by /completions"]


def test_what_is_too_long_is_cut_as_by_the_embedded_engine(vllm: str, served: Path) -> None:
    n = SERVED_CONTEXT - 2
    context, answer = [10 + i % 200 for i in range(n)], [100 + i % 99 for i in range(n)]
    cases = [(n - 3, 4, 0), (n - 2, 4, 1), (n, 10, 9), (1, n, 0), (5, n, 4)]
    asked = [TokenRequest(context[:i], answer[:j]) for i, j, _ in cases]
    with (
        through(vllm, served, max_length=n) as engine,
        embedded(served, max_length=n) as reference,
    ):
        assert not any(engine.check(request) for request in asked)
        mine = engine.score(asked)
        assert [one.n_cut for one in mine] == [n_cut for _, _, n_cut in cases]
        assert_equal(mine, reference.score(asked))


def test_texts_are_those_of_the_embedded_engine(vllm: str, served: Path) -> None:
    with through(vllm, served) as engine, embedded(served) as reference:
        prompts = [reference.tok_encode(prompt) for prompt in PROMPTS]
        for asked in (
            Sampling(max_gen_toks=20),
            Sampling(max_gen_toks=3),
            Sampling(until=("Stop", "Question:", TURN_END), max_gen_toks=20),
            Sampling(until=("a1", "a2", "a3", "a4", "Question:"), max_gen_toks=20),
        ):
            found = engine.generate(prompts, asked)
            assert found == reference.generate(prompts, asked)
            assert all(one.finished for one in found[:4]) == (asked.max_gen_toks > 3)
        assert [one.text for one in found[:3]] == ["the Stop mat on", "sat on mat ", "on the mat"]
        long = [10 + i % 200 for i in range(SERVED_CONTEXT)] + engine.tok_encode("the cat")
        (cut,) = engine.generate([long], Sampling(max_gen_toks=8))
        assert [cut] == reference.generate([long], Sampling(max_gen_toks=8))
        assert cut.n_cut == len(long) - SERVED_CONTEXT + 8


def test_drawn_texts_hang_on_their_seeds_alone(vllm: str, served: Path) -> None:
    with through(vllm, served) as engine:
        prompts = [engine.tok_encode("the cat")] * 6
        drawn = Sampling(temperature=1.5, max_gen_toks=12, seed=5)
        first = engine.generate(prompts, drawn)
        assert engine.generate(prompts, drawn) == first
        assert engine.generate(prompts[:1], drawn, [8]) == first[3:4]
        assert len({one.text for one in first}) > 3
        assert engine.generate(prompts, replace(drawn, seed=50)) != first
        likeliest = engine.generate(prompts, replace(drawn, top_k=1))
        assert likeliest == engine.generate(prompts, replace(drawn, temperature=0.0))


def test_messages_are_answered_like_rendered_prompts(vllm: str, served: Path) -> None:
    asked = Sampling(until=(TURN_END,), max_gen_toks=12)
    histories = [
        [{"role": "user", "content": "the cat"}],
        [
            {"role": "system", "content": "on the mat"},
            {"role": "user", "content": "A"},
            {"role": "assistant", "content": "sat"},
            {"role": "user", "content": "B"},
        ],
    ]
    begun = [*histories[0], {"role": "assistant", "content": "the Stop"}]
    with through(vllm, served, api="chat") as engine, embedded(served) as reference:
        texts = [engine.apply_chat_template(history) for history in histories]
        texts.append(engine.apply_chat_template(begun, add_generation_prompt=False))
        prompts = engine.encode(texts)
        assert engine.generate(prompts, asked) == reference.generate(prompts, asked)
        unknown = engine.tok_encode("the cat")
        assert engine.generate([unknown], asked) == engine.generate(prompts[:1], asked)
        assert engine.notes[0].endswith("asked by /chat/completions")
        with through(vllm, served, api="chat") as other:
            assert len({engine.tokenizer_key, other.tokenizer_key, reference.tokenizer_key}) == 3
        refused = engine.encode(["the cat " * 200])[0]
        found = engine.generate([refused, prompts[0]], asked)
        assert [one.finite for one in found] == [False, True]
        assert any("HTTP 400" in note for note in engine.notes)
        with pytest.raises(EngineError, match=r"use --engine hf \(the chat API has none\)"):
            engine.score(requests(engine))


def test_the_name_must_be_the_servers(vllm: str, served: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(EngineError, match=r"no 'other' is served: .* serves "),
        through(vllm, served, model="other"),
    ):
        pass
    link = tmp_path / "link"
    link.symlink_to(served)
    with through(vllm, link) as engine:
        assert engine.score(requests(engine))
    other = tmp_path / served.name  # the same name elsewhere is another checkpoint
    shutil.copytree(served, other)
    with (
        pytest.raises(EngineError, match="not clear whether it is served"),
        through(vllm, other),
    ):
        pass
    with through(vllm, other, model=str(served)) as engine:
        assert engine.score(requests(engine))


def a_task(folder: Path, *questions: str) -> Path:
    rows = [{"q": q, "c": [" sat", " on the mat"], "a": 0} for q in questions]
    (folder / "rows.json").write_text(json.dumps(rows))
    (folder / "choice.yaml").write_text(
        "task: choice\noutput_type: multiple_choice\ndataset_path: json\n"
        "dataset_kwargs: {data_files: {test: rows.json}}\ntest_split: test\n"
        'doc_to_text: "{{q}}"\ntarget_delimiter: ""\ndoc_to_choice: "{{c}}"\n'
        'doc_to_target: "{{a}}"\n'
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    return folder


def test_an_item_that_cannot_be_asked_is_missing_alone(
    vllm: str, served: Path, tmp_path: Path
) -> None:
    folder = a_task(tmp_path, "the cat", "the cat" * 200, "on")
    with through(vllm, served) as engine, embedded(served) as reference:
        asked = requests_of("choice", None, engine, folder=folder)
        found = answers_of(asked, engine)
        theirs = answers_of(asked, reference)
        assert found[1].reason == (
            "context and answer are 129 tokens, the server scores at most 127 at once; with a "
            "max_length of 126 they are cut to that"
        )
        for i in (0, 2):
            assert found[i].logps == pytest.approx(theirs[i].logps, abs=1e-4)
        assert "the model has 283" in engine.check(TokenRequest([5], [999]))
        with pytest.raises(EngineError, match="the model has 283"):
            engine.generate([[5, 999]], Sampling(max_gen_toks=8))


# --- other servers, and servers in trouble


def scores(body: Any, **changes: Any) -> dict[str, Any]:
    """What a server with log-probs says: each token -1, and odd ones are greedy."""
    ids = body["prompt"]
    logprobs = {
        "tokens": [f"<{i}>" for i in ids],
        "token_logprobs": [None, *[-1.0] * (len(ids) - 1)],
        "top_logprobs": [None, *({"x": -1.0 if i % 2 else -0.5} for i in ids[1:])],
        **changes,
    }
    return {"choices": [{"text": "", "logprobs": logprobs}]}


class Plain:
    """A server of the plain API, without token ids; `said` may answer otherwise."""

    def __init__(self, *cards: dict[str, Any], said: Any = None) -> None:
        self.cards = list(cards) or [{"id": "taught"}]
        self.said = said

    def __call__(self, path: str, body: Any, seen: int) -> Said:
        if path == "/models":
            return Said({"object": "list", "data": self.cards})
        if self.said and (said := self.said(path, body, seen)):
            return said
        if body.get("echo"):
            return Said(scores(body))
        text = "the mat Stop it" if path == "/completions" else None
        message = (
            {"role": "assistant", "content": body["messages"][-1]["content"]} if not text else 0
        )
        reason = "length" if body["max_tokens"] < 4 else "stop"
        choice = {"text": text, "message": message or None, "finish_reason": reason}
        return Said({"choices": [choice], "usage": {"completion_tokens": 4}})


def test_a_server_that_gives_only_text(served: Path) -> None:
    with scripted(Plain()) as (url, server), through(url, served) as engine:
        asked = Sampling(until=("a", "b", "c", "d", "Stop"), max_gen_toks=8, temperature=0.5)
        (cut,) = engine.generate([[5, 6]], asked, [77])
        assert (cut.text, cut.finished) == ("the m", True)  # it did not heed the first "a"
        body = server.requests[-1][1]
        assert body["stop"] == ["a", "b", "c", "d"]
        assert (body["prompt"], body["seed"], body["temperature"]) == ([5, 6], 77, 0.5)
        assert set(body) <= {
            "model", "prompt", "max_tokens", "temperature", "top_p", "stop", "seed",
        }  # fmt: skip
        (stopped,) = engine.generate([[5, 6]], Sampling(until=("Stop",), max_gen_toks=8))
        n_tokens = len(engine.tok_encode("the mat "))
        assert stopped == ("the mat ", n_tokens, True, 0, True, ())
        (whole,) = engine.generate([[5, 6]], Sampling(max_gen_toks=2))
        assert whole == ("the mat Stop it", 4, False, 0, True, ())
        long = list(range(5, 5 + SERVED_CONTEXT))
        assert engine.generate([long], Sampling(max_gen_toks=8))[0].n_cut == 8
        assert server.requests[-1][1]["prompt"] == long[8:]
        assert "texts and token counts are its own" in engine.notes[1]
        assert engine.facts["server"] == {
            "url": url,
            "path": "/completions",
            "model": "taught",
            "max_model_len": None,
            "gives_ids": False,
        }
        with pytest.raises(EngineError, match="leave no room"):
            engine.generate([[5]], Sampling(max_gen_toks=SERVED_CONTEXT))


def test_a_chat_server_that_gives_only_text(served: Path) -> None:
    with scripted(Plain()) as (url, server), through(url, served, api="chat") as engine:
        history = [{"role": "system", "content": "s"}, {"role": "user", "content": "on the mat"}]
        rendered = engine.encode([engine.apply_chat_template(history), "never rendered"])
        found = engine.generate(rendered, Sampling(max_gen_toks=8))
        assert [one.text for one in found] == ["on the mat", "never rendered"]
        sent = [body["messages"] for _, body in server.requests[-2:]]
        assert sorted(map(len, sent)) == [1, 2]
        assert history in sent
        begun = [*history, {"role": "assistant", "content": "the"}]
        prompt = engine.tok_encode(engine.apply_chat_template(begun, add_generation_prompt=False))
        with pytest.raises(EngineError, match="the prompt ends within a reply"):
            engine.generate([prompt], Sampling(max_gen_toks=8))


def test_log_probs_of_a_plain_server(served: Path) -> None:
    with scripted(Plain()) as (url, server), through(url, served) as engine:
        (one, other) = engine.score([TokenRequest([5], [7, 9]), TokenRequest([5, 6], [8, 9])])
        assert (one.logp, one.greedy, other.greedy) == (-2.0, True, False)
        assert "return_tokens_as_token_ids" not in server.requests[-1][1]


@pytest.mark.parametrize(
    "said",
    [
        lambda body: Said({"error": {"message": "echo is not supported"}}, 400),
        lambda body: Said({"choices": [{"text": "", "logprobs": None}]}),
        lambda body: Said(scores(body, token_logprobs=None)),
        lambda body: Said(scores(body, top_logprobs=[])),
        lambda body: Said(scores(body, token_logprobs=[-1.0])),  # of what it generated
        lambda body: Said(scores(body, tokens=["token_id:1", "token_id:2"])),
    ],
)
def test_a_server_without_log_probs_of_prompts(said: Any, served: Path) -> None:
    def without(path: str, body: Any, seen: int) -> Said | None:
        return said(body) if body.get("echo") else None

    with scripted(Plain(said=without)) as (url, _), through(url, served) as engine:
        with pytest.raises(EngineError, match="without log-probs of prompts; use --engine hf"):
            engine.score([TokenRequest([5], [6])])
        assert engine.generate([[5]], Sampling(max_gen_toks=8))


@pytest.mark.parametrize("answer", [{}, {"choices": []}, {"choices": [1]}, {"error": "busy"}])
def test_a_server_that_answers_without_choices(answer: Any, served: Path) -> None:
    with (
        scripted(Plain(said=lambda *_: Said(answer))) as (url, _),
        through(url, served) as engine,
        pytest.raises(EngineError, match="answers without choices"),
    ):
        engine.generate([[5]], Sampling(max_gen_toks=8))


def test_a_request_that_is_refused_is_missing_alone(served: Path, tmp_path: Path) -> None:
    def picky(path: str, body: Any, seen: int) -> Said | None:
        refused = Said({"error": {"message": "flagged"}}, 403)
        return refused if len(body["prompt"]) > 9 else None

    folder = a_task(tmp_path, "the cat", "sat on the mat, sat on the mat", "on")
    with scripted(Plain(said=picky)) as (url, _), through(url, served) as engine:
        found = engine.generate([[5], [5] * 20, [6]], Sampling(max_gen_toks=8))
        assert [one.finite for one in found] == [True, False, True]
        assert found[1].text == ""
        scored = engine.score([TokenRequest([5], [6]), TokenRequest([5] * 10, [6])])
        assert scored[0].logp == -1
        assert math.isnan(scored[1].logp)
        answers = answers_of(requests_of("choice", None, engine, folder=folder), engine)
        assert [answer.reason for answer in answers] == [None, NOT_FINITE, None]
        assert "HTTP 403: flagged" in engine.notes[-1]


def test_log_probs_that_are_not_numbers_are_missing(served: Path, tmp_path: Path) -> None:
    def like_vllm(path: str, body: Any, seen: int) -> Said | None:
        if "logprobs" in body:
            message = "Out of range float values are not JSON compliant"
            return Said({"error": {"message": message}}, 400)
        return Said({"choices": [{"text": "!", "token_ids": [0], "finish_reason": "length"}]})

    folder = a_task(tmp_path, "the cat", "on")
    for api in ("completions", "chat"):
        with (
            scripted(Plain(said=like_vllm)) as (url, _),
            through(url, served, api=api) as engine,
        ):
            found = engine.generate([[5], [6]], Sampling(max_gen_toks=8))
            assert [(one.text, one.finite) for one in found] == [("", False)] * 2
            if api == "completions":
                answers = answers_of(requests_of("choice", None, engine, folder=folder), engine)
                assert [answer.reason for answer in answers] == [NOT_FINITE] * 2


def test_minus_infinity_is_no_number(served: Path) -> None:
    def clamped(path: str, body: Any, seen: int) -> Said | None:
        return Said(scores(body, token_logprobs=[None, *[-9999.0] * (len(body["prompt"]) - 1)]))

    with scripted(Plain(said=clamped)) as (url, _), through(url, served) as engine:
        assert engine.score([TokenRequest([5], [6])])[0].logp == -math.inf


def test_a_server_that_refuses_everything(served: Path) -> None:
    def strict(path: str, body: Any, seen: int) -> Said | None:
        return Said({"error": {"message": "no stops"}}, 400) if body.get("stop") else None

    with (
        scripted(Plain(said=strict)) as (url, _),
        through(url, served) as engine,
        pytest.raises(EngineError, match="HTTP 400: no stops"),
    ):
        engine.generate([[5], [6]], Sampling(max_gen_toks=8))


def test_a_server_that_takes_no_token_ids(served: Path) -> None:
    def strings(path: str, body: Any, seen: int) -> Said:
        return Said({"error": {"message": "prompt must be a string"}}, 422)

    with (
        scripted(Plain(said=strings)) as (url, _),
        through(url, served) as engine,
        pytest.raises(EngineError, match="must be a string; --server-api chat needs no token ids"),
    ):
        engine.generate([[5]], Sampling(max_gen_toks=8))


def test_a_server_that_reads_other_ids(served: Path) -> None:
    def with_start(path: str, body: Any, seen: int) -> Said:
        choice = {"text": "", "token_ids": [5], "prompt_token_ids": [1, *body["prompt"]]}
        return Said({"choices": [choice]})

    with (
        scripted(Plain(said=with_start)) as (url, _),
        through(url, served) as engine,
        pytest.raises(EngineError, match="the server reads the ids"),
    ):
        engine.generate([[5]], Sampling(max_gen_toks=8))


def test_a_strict_server_that_knows_no_extras(served: Path) -> None:
    def strict(path: str, body: Any, seen: int) -> Said | None:
        error = {"error": {"message": "unknown field"}}
        return Said(error, 400) if "return_token_ids" in body else None

    with scripted(Plain(said=strict)) as (url, _), through(url, served) as engine:
        assert engine.generate([[5]], Sampling(max_gen_toks=8))[0].text == "the mat Stop it"


def test_a_text_that_was_filtered_is_missing(served: Path) -> None:
    def filtered(path: str, body: Any, seen: int) -> Said:
        return Said({"choices": [{"text": "", "finish_reason": "content_filter"}]})

    with scripted(Plain(said=filtered)) as (url, _), through(url, served) as engine:
        assert not engine.generate([[5]], Sampling(max_gen_toks=8))[0].finite


def test_a_server_that_crashes_fails_the_batch(served: Path, monkeypatch: Any) -> None:
    def crashes(path: str, body: Any, seen: int) -> Said | None:
        return Said({"error": {"message": "dead"}}, 500) if body["max_tokens"] == 8 else None

    with scripted(Plain(said=crashes)) as (url, _), through(url, served) as engine:
        settings = replace(engine._client.endpoint, first_wait=0.01, n_tries=2)
        monkeypatch.setattr(engine._client, "endpoint", settings)
        with pytest.raises(EngineError, match=f"{served}: {url}/completions: HTTP 500: dead"):
            engine.generate([[5]], Sampling(max_gen_toks=8))


# --- what else a server lists, and what it must be told


def test_the_length_is_the_smallest_of_all(served: Path) -> None:
    adapter = {"id": "taught", "parent": "base"}
    for cards, asked, length in (
        ([{"id": "taught"}], None, SERVED_CONTEXT),
        ([{"id": "taught", "max_model_len": 40}], None, 40),
        ([{"id": "taught", "max_model_len": 40}], 30, 30),
        ([adapter, {"id": "base", "max_model_len": 20}], None, 20),
        ([adapter], None, SERVED_CONTEXT),
    ):
        with (
            scripted(Plain(*cards)) as (url, _),
            through(url, served, max_length=asked) as engine,
        ):
            assert engine.max_length == length


def test_a_server_that_lists_nothing_must_be_told_the_name(served: Path) -> None:
    def unlisted(path: str, body: Any, seen: int) -> Said:
        return Said({}, 404) if path == "/models" else Plain()(path, body, seen)

    with scripted(unlisted) as (url, _):
        with pytest.raises(EngineError, match="HTTP 404"), through(url, served):
            pass
        with through(url, served, model="anything") as engine:
            assert engine.generate([[5]], Sampling(max_gen_toks=8))


def test_what_must_be_said(served: Path) -> None:
    with (
        pytest.raises(InputError, match="needs a --base-url"),
        open_server(checkpoint_at(served), EngineSettings()),
    ):
        pass
    for n in (0, -1):
        with pytest.raises(InputError, match=f"concurrency must be at least 1, not {n}"):
            ServerSettings("http://host/v1", concurrency=n)


def test_a_run_through_a_server_is_the_run_by_hf(
    vllm: str, served: Path, small_zoo: Path, tmp_path: Path
) -> None:
    answers = []
    hf = Settings(engine="hf", limit=6, max_length=SERVED_CONTEXT - 8)
    for settings in (hf, replace(hf, engine="server", base_url=vllm)):
        results = tmp_path / settings.engine
        outcome = run(
            served,
            tasks=["demo_arithmetic", "demo_everyday"],
            results=results,
            settings=settings,
            mirrors=[small_zoo / "data"],
        )
        assert len(outcome.measured) == 2
        assert not outcome.failed
        store = Store(results)
        answers.append([one for name in sorted(outcome.measured) for one in store.answers(name)])
        told = [store.manifest(name)["engine"] for name in outcome.measured]
        assert {one["kind"] for one in told} == {settings.engine}
        dtype = {"hf": "float32", "server": SERVER_DTYPE}[settings.engine]
        assert {one["dtype"] for one in told} == {dtype}
    by_hf, by_server = ({one.item: one for one in some if one.texts} for some in answers)
    assert by_hf == by_server
    by_hf, by_server = ({one.item: one.logps for one in some if one.logps} for some in answers)
    assert by_hf.keys() == by_server.keys()
    for item, logps in by_hf.items():
        assert by_server[item] == pytest.approx(logps, abs=1e-4)
