from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from prefbench.cells import Settings, find
from prefbench.errors import ClusterError
from prefbench.parallel.job import Job, plan_again, shared_store, strange
from prefbench.store import Store


@pytest.fixture
def job(small_zoo: Path, tmp_path: Path) -> Job:
    """Of one checkpoint, with a plan that was just written."""
    source = small_zoo / "checkpoints" / "sft"
    shutil.copytree(source, tmp_path / "sft", ignore=shutil.ignore_patterns("checkpoint-*"))
    settings = Settings(limit=4, engine="hf")
    Store(tmp_path / "results").write_plan("p", {"id": "p", "when": "2026-01-02"})
    return Job(
        checkpoints=tuple(find(tmp_path / "sft", settings, final_only=False)),
        tasks=("demo_everyday",),
        results=tmp_path / "results",
        settings=settings,
        mirrors=(small_zoo / "data",),
        plan="p",
        begun="2026-01-01",
    )


def test_a_results_directory_is_shared_if_it_has_the_plan_just_written(
    job: Job, tmp_path: Path
) -> None:
    assert shared_store(job, patience=0).folder == tmp_path / "results"
    for begun, plan in (("2026-01-03", "p"), ("2026-01-01", "q")):  # an older one; another one
        other = dataclasses.replace(job, begun=begun, plan=plan)
        with pytest.raises(ClusterError, match=r"results: is another directory there, without"):
            shared_store(other, patience=0)
    nowhere = dataclasses.replace(job, results=tmp_path / "nowhere")
    with pytest.raises(ClusterError, match=r"nowhere: cannot be opened there: .*all nodes see"):
        shared_store(nowhere, patience=0)
    assert not (tmp_path / "nowhere").exists()


def test_a_checkpoint_is_strange_where_its_bytes_are_others(job: Job, tmp_path: Path) -> None:
    (checkpoint,) = job.checkpoints
    assert strange(checkpoint, job) is None
    (cell,) = plan_again(job).values()
    assert cell.checkpoint == checkpoint
    weights = tmp_path / "sft" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert "other files there" in str(strange(checkpoint, job))
    shutil.rmtree(tmp_path / "sft")
    assert "sft: the checkpoint is not there" in str(strange(checkpoint, job))
    assert plan_again(job) == {}
