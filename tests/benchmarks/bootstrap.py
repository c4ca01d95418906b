"""How long intervals take: ours, scipy's and lm-eval's, side by side in one run.

Eight checkpoints, their 28 differences, 1319 items (GSM8K's test set), 10,000 resamples, a mean.
Run with OMP_NUM_THREADS=1 to compare single cores. lm-eval's loop runs 1000 resamples of one
checkpoint and is scaled; it gives a standard error, no interval, and has no paired form.
"""

import contextlib
import io
import itertools
import os
import time

import numpy as np
from scipy import stats

from prefbench.stats.bootstrap import Resampling
from prefbench.stats.estimates import estimates
from prefbench.stats.paired import differences

N_ITEMS, N_CHECKPOINTS, N_RESAMPLES = 1319, 8, 10_000
PAIRS = list(itertools.combinations(range(N_CHECKPOINTS), 2))


def mean(sums):
    return sums[..., 0] / sums[..., 1]


def ours(values):
    columns = np.stack([values, np.ones_like(values)], axis=-1)
    resampling = Resampling(np.arange(N_ITEMS), n_resamples=N_RESAMPLES, seed=0)
    return (
        estimates(columns, mean, resampling=resampling),
        differences(columns, PAIRS, mean, resampling=resampling),
    )


def with_scipy(values, **settings):
    samples = [*values.T, *(values[:, a] - values[:, b] for a, b in PAIRS)]
    return [
        stats.bootstrap(
            (sample,), np.mean, n_resamples=N_RESAMPLES, method="percentile", rng=0, **settings
        )
        for sample in samples
    ]


def with_lm_eval(values, n_resamples):
    from lm_eval.api.metrics import bootstrap_stderr, mean

    os.environ["DISABLE_MULTIPROC"] = "1"
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return bootstrap_stderr(mean, values[:, 0].tolist(), n_resamples)


def seconds(work, *args, repeats=1, **settings):
    """The fastest of some repeats."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        work(*args, **settings)
        taken.append(time.perf_counter() - start)
    return min(taken)


def main():
    rng = np.random.default_rng(0)
    values = (rng.random((N_ITEMS, N_CHECKPOINTS)) < np.linspace(0.3, 0.6, 8)).astype(float)
    with_lm_eval(values, 1000)  # its first call imports tqdm and more
    n_intervals = N_CHECKPOINTS + len(PAIRS)
    base = seconds(ours, values, repeats=5)
    rows = {
        "prefbench": base,
        "scipy.stats.bootstrap, batch=100": seconds(with_scipy, values, batch=100),
        "scipy.stats.bootstrap": seconds(with_scipy, values),
        "lm-eval bootstrap_stderr (scaled)": seconds(with_lm_eval, values, 1000)
        * (N_RESAMPLES // 1000)
        * n_intervals,
    }
    print(f"{n_intervals} intervals, {N_ITEMS} items, {N_RESAMPLES} resamples")
    for name, taken in rows.items():
        print(f"{name:36}{taken:9.3f} s{taken / base:9.1f}×")


if __name__ == "__main__":
    main()
