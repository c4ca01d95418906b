"""A watch that runs on and on takes no more memory, threads or files for it.

`python -m tests.benchmarks.reliability soak` does the same with hundreds of checkpoints.
"""

from __future__ import annotations

from pathlib import Path

from tests.reliability.soaking import soak

N = 28


def test_a_watch_of_many_checkpoints_stays_as_it_is(small_zoo: Path, tmp_path: Path) -> None:
    soaked = soak(small_zoo, tmp_path, n=N, tasks=["demo_everyday"])
    assert len(soaked.samples) == N
    # The first quarter has what is imported and kept once; models here are of 3.6 MB each.
    assert soaked.quarter(4, "resident") < 1.02 * soaked.quarter(2, "resident")
    assert soaked.quarter(4, "n_threads") <= soaked.quarter(2, "n_threads")
    assert soaked.quarter(4, "n_files") <= soaked.quarter(2, "n_files") + 1
    first, last = soaked.samples[N // 2], soaked.samples[-1]
    assert (last.events - first.events) / (last.n - first.n) < 4000
    assert (last.status - first.status) / (last.n - first.n) < 1000
