"""Data in a mirror, in a real cache of datasets, nowhere, and only at the user's."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from prefbench.doctor.attempts import try_data
from prefbench.doctor.children import attempt, outcome
from prefbench.doctor.findings import Finding
from prefbench.doctor.questions import Reply
from prefbench.doctor.sets import Asked, data_findings, find_wanted, to_read
from prefbench.errors import TaskError

GSM8K = {"question": ["1 + 1?", "2 + 2?"], "answer": ["#### 2", "#### 4"]}
AWAY = Reply("https://hub.invalid", problem="cannot be reached: no such name")
THERE = Reply("https://hub.invalid", status=200)


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREFBENCH_MIRROR", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


def gsm8k(folder: Path) -> Path:
    (folder / "gsm8k").mkdir(parents=True)
    for split in ("train", "test"):
        pyarrow.parquet.write_table(pa.table(GSM8K), folder / "gsm8k" / f"{split}.parquet")
    return folder


def found(asked: Asked, hub: Reply | None = AWAY, *, read: bool = True) -> dict[str, Finding]:
    """Findings where mirrors alone are read, for which no process of its own is needed."""
    wanted = find_wanted(asked)
    told = try_data(to_read(wanted)) if read else None
    return {one.name: one for one in data_findings(asked, wanted, told, hub)}


def tried(asked: Asked, *hubs: Reply) -> list[dict[str, Finding]]:
    """Findings with each of several answers of the hub, the data tried once as the doctor does."""
    wanted = find_wanted(asked)
    offline = {"HF_HUB_OFFLINE": "1"}
    with attempt("data", to_read(wanted), time_limit=60, environment=offline) as child:
        told = outcome(child)
    return [{f.name: f for f in data_findings(asked, wanted, told, hub)} for hub in hubs]


def test_a_mirror_is_read(tmp_path: Path) -> None:
    asked = Asked(tasks=("gsm8k_5shot",), mirrors=(gsm8k(tmp_path / "data"),))
    findings = found(asked)
    assert findings["gsm8k_5shot"].state == "ok"
    assert findings["gsm8k_5shot"].detail == (
        f"openai/gsm8k/main, test (2), train (2) in {tmp_path / 'data' / 'gsm8k'}"
    )
    assert findings["hub"].state == "unused"  # nobody needs it now
    unread = found(asked, read=False)["gsm8k_5shot"]
    assert "test, train in" in unread.detail


def test_a_file_that_is_no_data_is_broken(tmp_path: Path) -> None:
    mirror = gsm8k(tmp_path / "data")
    (mirror / "gsm8k" / "test.parquet").write_text("version https://git-lfs.github.com/spec/v1\n")
    broken = found(Asked(tasks=("gsm8k_5shot",), mirrors=(mirror,)))["gsm8k_5shot"]
    assert broken.state == "broken"
    assert "test.parquet: cannot be read" in broken.detail
    assert broken.fails


def test_the_cache_is_looked_at_as_a_run_would(tmp_path: Path) -> None:
    from datasets.packaged_modules.parquet.parquet import Parquet

    mirror = gsm8k(tmp_path / "elsewhere") / "gsm8k"
    Parquet(
        cache_dir=str(tmp_path / "cache"),
        dataset_name="gsm8k",
        config_name="main",
        hash="0123",
        data_files={split: str(mirror / f"{split}.parquet") for split in ("train", "test")},
    ).download_and_prepare()
    # As a set of the hub is cached; from the hub itself no test can load.
    [made] = (tmp_path / "cache").glob("gsm8k/*/*/0123")
    kept = tmp_path / "cache" / "openai___gsm8k" / "main" / "0.0.0" / "0123"
    kept.parent.mkdir(parents=True)
    made.rename(kept)
    [findings] = tried(Asked(tasks=("gsm8k_5shot", "hellaswag_0shot")), AWAY)
    assert findings["gsm8k_5shot"].state == "ok"
    assert "test (2), train (2) in the hub's cache" in findings["gsm8k_5shot"].detail
    assert findings["hellaswag_0shot"].state == "missing"
    assert findings["hub"].state == "missing"


def test_what_is_nowhere_here_is_fetched_or_missing() -> None:
    asked = Asked(suites=("quick",), tasks=("gsm8k_5shot",))
    away, there = (findings["gsm8k_5shot"] for findings in tried(asked, AWAY, THERE))
    assert (away.state, away.fails) == ("missing", True)
    assert (there.state, there.fails) == ("unknown", False)
    assert "a run fetches it from the hub" in there.detail
    for one in (away, there):
        assert str(one.fix).startswith("prefbench mirror data/ --suite quick --task gsm8k_5shot")
        assert ("where there is a network" in str(one.fix)) == (one is away)


def test_without_names_the_papers_data_are_looked_for_and_none_is_needed() -> None:
    findings = found(Asked(), read=False)
    assert {"gsm8k_5shot", "wikitext2", "causal_dialogue_pairs"} <= set(findings)
    assert not any(one.fails for one in findings.values())
    assert next(iter(findings)) == "hub"
    assert list(findings)[-1] == "causal_dialogue_pairs"


def test_data_that_the_user_must_supply(tmp_path: Path) -> None:
    name = "causal_dialogue_pairs"
    of_suite = found(Asked(suites=("paper",)), read=False)[name]
    assert (of_suite.state, of_suite.fails) == ("missing", False)
    assert "put its test_dag.json into a mirror" in of_suite.detail
    assert found(Asked(tasks=(name,)), read=False)[name].fails
    (tmp_path / "data" / "causal_dialogue").mkdir(parents=True)
    (tmp_path / "data" / "causal_dialogue" / "test_dag.json").write_text(json.dumps([{"a": 1}]))
    supplied = found(Asked(tasks=(name,), mirrors=(tmp_path / "data",)))[name]
    assert supplied.state == "ok"


def test_a_mirror_that_is_not_there_is_named(tmp_path: Path) -> None:
    one = found(Asked(tasks=("gsm8k_5shot",), mirrors=(tmp_path / "no",)), read=False)
    assert one["gsm8k_5shot"].fails
    assert one["gsm8k_5shot"].detail == (
        f"{tmp_path / 'no'}: no such mirror directory (--mirror or PREFBENCH_MIRROR)"
    )


def test_a_mirror_without_the_scored_split(tmp_path: Path) -> None:
    mirror = gsm8k(tmp_path / "data")
    (mirror / "gsm8k" / "test.parquet").unlink()
    one = found(Asked(tasks=("gsm8k_5shot",), mirrors=(mirror,)), read=False)["gsm8k_5shot"]
    assert (one.state, one.detail) == (
        "broken",
        "openai/gsm8k/main: the mirror lacks the test split",
    )


@pytest.mark.parametrize("flag", ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_says_which_flag(monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
    monkeypatch.setenv(flag, "1")
    hub = found(Asked(), None, read=False)["hub"]
    assert hub.state == "unused"
    assert hub.detail.startswith(f"{flag}=1: not asked")
    assert hub.fix == f"unset {flag}"


def test_a_hub_that_answers_and_one_behind_a_proxy_that_refuses() -> None:
    assert found(Asked(), THERE, read=False)["hub"].state == "ok"
    refused = found(Asked(), Reply("https://hub.invalid", status=403), read=False)["hub"]
    assert (refused.state, "HTTP 403" in refused.detail) == ("missing", True)


def test_a_trial_that_did_not_end_is_told(tmp_path: Path) -> None:
    asked = Asked(tasks=("gsm8k_5shot",), mirrors=(gsm8k(tmp_path / "data"),))
    wanted = find_wanted(asked)
    [_, one] = data_findings(asked, wanted, {"error": "did not end within 60 s"}, AWAY)
    assert one.fails
    assert "reading the data failed: did not end" in one.detail


def test_an_unknown_task_is_an_error() -> None:
    with pytest.raises(TaskError, match="did you mean gsm8k_5shot"):
        find_wanted(Asked(tasks=("gsm8k_5shots",)))
