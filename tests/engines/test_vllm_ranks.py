"""One checkpoint spread over two processes, as over two GPUs: tensor parallelism on a processor."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from prefbench.checkpoints import read_checkpoint
from prefbench.engines import Engines
from prefbench.engines.base import EngineSettings, Sampling, TokenRequest
from prefbench.errors import StoppedError
from tests.small_models import make


def test_two_ranks_compute_what_one_does_and_end_together(tmp_path):
    settings = EngineSettings(tensor_parallel_size=2, log_folder=tmp_path)
    sampling = Sampling(max_gen_toks=12)
    with Engines() as engines:
        for seed in (7, 8):
            checkpoint = read_checkpoint(make(tmp_path / str(seed), wide=True, seed=seed))
            with (
                engines.open("vllm", checkpoint, settings) as engine,
                Engines().open("hf", checkpoint, EngineSettings()) as other,
            ):
                prompts = [engine.tok_encode(text) for text in ("the cat sat on", "Question:")]
                assert engine.generate(prompts, sampling) == other.generate(prompts, sampling)
                asked = [TokenRequest(prompts[0], prompts[1])]
                (mine,), (theirs,) = engine.score(asked), other.score(asked)
                assert mine.logp == pytest.approx(theirs.logp, abs=1e-4)
                swapped = ["its weights were loaded into the vLLM that was running"]
                assert engine.notes == (swapped if seed == 8 else [])
        pid = engine._running.child.pid
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        assert len(family) >= 3
        os.kill(pid, signal.SIGKILL)  # it alone
        with pytest.raises(StoppedError):
            engine.generate(prompts, sampling)
        _, alive = psutil.wait_procs(family, timeout=60)
        assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]
