"""Any document of ours is read, or is an error that names the file; bombs do not go off."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from prefbench import plain_yaml
from prefbench.data import find_source
from prefbench.doctor.endpoints import find_endpoints
from prefbench.errors import DataError, InputError, JudgeError, TaskError
from prefbench.gate.policies import Policy, read_policy
from prefbench.judges.recipe import read_recipe
from prefbench.tasks import load_index
from tests.fuzz.conftest import examples
from tests.fuzz.test_scanner_fuzz import BOMB, COPIES

MOST_SECONDS = 5
ODD = (
    'a: !!int ""',
    "a: !!timestamp x",
    "a: !!bool x",
    "a: !!float x",
    "a: 0x_",
    "a: 2001-99-99",
    "a: 2001-01-01 00:00:00 +99:99",
    'a: "\\ud800"',
    'a: "\\U00ffffff"',
    "!!map x",
    "a: &a [*a]",
    "&a {<<: *a}",
    "&a [*a]",
    "? [1]\n: 2",
    "? {a: 1}\n: 2",
    "a: " + "9" * 5000,
    "!!python/object/apply:os.mkdir [x]",
    "[" * 5000,
    "- " * 5000,
    "--- 1\n--- 2",
    BOMB,
    COPIES,
)
LARGE = st.sampled_from((10**400, -(10**400), 1e308, -1, 0, 1, 2.5, float("nan"), float("inf")))
LEAVES = st.one_of(
    LARGE,
    st.none(),
    st.booleans(),
    st.text(max_size=5),
    st.sampled_from(("5%", "%", "1e999%", "*", "[", "nan", "2001-01-01", "comparison", "margins")),
    st.dates(),
)
KEYS = st.text(max_size=3) | st.integers(0, 3) | st.none() | st.booleans()
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=2),
    max_leaves=4,
)


def mapping(
    keys: tuple[str, ...], likely: dict[str, st.SearchStrategy]
) -> st.SearchStrategy[dict[Any, Any]]:
    """What may stand in a file: the keys that it should have, often with what they should hold."""
    return st.fixed_dictionaries(
        {key: each | VALUES if key in likely else each for key, each in likely.items()},
        optional={key: VALUES for key in keys if key not in likely},
    )


RULES = mapping(
    ("metric", "max_rise", "require", "by", "higher_is_better", "judge", "opponent", "other"),
    {"task": st.just("a"), "max_drop": st.sampled_from((1, "5%"))},
)
POLICIES = mapping(
    ("baseline", "checkpoints", "confidence", "max_missing", "other"),
    {"rules": st.lists(RULES, max_size=2)},
)
RECIPES = st.dictionaries(
    st.sampled_from(
        [
            "measure",
            "judge",
            "opponent",
            "pairs",
            "metrics",
            "fewshot_fallback",
            "supplied",
            "temperatures",
            "beta",
            "objective",
            "parameters",
            "sample",
            "heat_maps",
            "untrained",
        ]
    ),
    VALUES | st.sampled_from(("divergence", "ranking", "gradients", [0, 0.5, 1], True)),
    max_size=4,
)
TASKS = mapping(
    ("include", "group", "repeats", "num_fewshot", "fewshot_split", "description", "other"),
    {
        "task": st.just("a"),
        "output_type": st.sampled_from(("generate_until", "multiple_choice")),
        "dataset_path": st.just("d"),
        "metadata": st.fixed_dictionaries({}, optional={"prefbench": RECIPES | VALUES}),
        "generation_kwargs": st.dictionaries(
            st.sampled_from(("temperature", "do_sample", "top_p")), VALUES, max_size=2
        ),
    },
)


def documents(of: st.SearchStrategy[Any]) -> st.SearchStrategy[str]:
    written = (of | VALUES).map(lambda value: yaml.dump(value, allow_unicode=True))
    torn = st.builds(lambda text, n: text[: n % (len(text) + 1)], written, st.integers(0, 500))
    odd = st.sampled_from(ODD)
    return st.one_of(
        written,
        written,
        torn,
        st.text(max_size=40),
        odd,
        st.builds(lambda text, more: f"{text}{more}\n", written, odd),
    )


def timed(read: Any) -> Any:
    started = time.process_time()
    try:
        return read()
    finally:
        assert time.process_time() - started < MOST_SECONDS


@examples(250)
@given(documents(POLICIES).map(lambda text: text.encode(errors="replace")) | st.binary(max_size=30))
def test_any_document_is_a_policy_or_an_error_that_names_the_file(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "policy.yaml"
        file.write_bytes(content)
        try:
            policy = timed(lambda: read_policy(file))
        except InputError as error:
            said = str(error)
        else:
            said = f"{file}: "
            assert isinstance(policy, Policy)
            assert all(rule.max_drop is None or rule.max_drop.size > 0 for rule in policy.rules)
        assert said.startswith(f"{file}: ")
        assert len(said) < 2000


@examples(250)
@given(documents(TASKS).map(lambda text: text.encode(errors="replace")) | st.binary(max_size=30))
def test_any_document_is_a_task_or_an_error_that_names_the_file(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder).resolve() / "task.yaml"
        file.write_bytes(content)
        try:
            tasks, _ = timed(lambda: load_index([Path(folder)]))
        except TaskError as error:
            said = str(error)
        else:
            said = f"{file}: "
            for task in tasks.values():  # what a run reads of a task before it asks anything
                assert task.definition
                assert task.n_texts >= 1
                assert task.n_shots >= 0
        assert said.startswith(f"{file}: ")


@pytest.mark.parametrize("document", ODD)
def test_no_odd_document_is_a_judge_or_takes_the_doctor_down(tmp_path: Path, document: str) -> None:
    file = tmp_path / "judge.yaml"
    file.write_text(document)
    with pytest.raises(JudgeError) as caught:
        timed(lambda: read_recipe(file))
    assert str(caught.value).startswith(f"{file}: ")
    assert timed(lambda: find_endpoints(["http://one"], judges=tmp_path))[0].address == "http://one"


@pytest.mark.parametrize("document", [*ODD, "d: {c: {test: 5}}", "d: {c: {test: [a]}}"])
def test_no_odd_document_is_the_index_of_a_mirror(tmp_path: Path, document: str) -> None:
    file = tmp_path / "mirror.yaml"
    file.write_text(document)
    config = {"dataset_path": "d", "dataset_name": "c"}
    with pytest.raises(DataError) as caught:
        timed(lambda: find_source(config, [tmp_path], tmp_path))
    assert str(caught.value).startswith(f"{file}: cannot be read as ")


@pytest.mark.parametrize("bomb", [BOMB, COPIES, "a: &a [*a]"])
def test_a_bomb_is_told_before_it_has_grown(bomb: str) -> None:
    with pytest.raises(yaml.YAMLError, match=r"values|itself"):
        timed(lambda: plain_yaml.load(bomb))


@examples(100)
@given(VALUES)
def test_what_is_no_bomb_is_read_as_it_stands(value: Any) -> None:
    text = yaml.dump([value, value])  # which it writes with an alias where it can
    assert repr(plain_yaml.load(text)) == repr(yaml.safe_load(text))
