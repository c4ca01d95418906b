"""How hard the fuzzing tries: the same examples in every run, and more of them when asked.

`PREFBENCH_FUZZ=50 pytest tests/fuzz` tries fifty times as many.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

FACTOR = float(os.environ.get("PREFBENCH_FUZZ", "1"))

settings.register_profile(
    "fuzz",
    derandomize=True,
    deadline=None,  # the machine may be busy; what must be bounded is measured by the test itself
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def examples(n: int) -> settings:
    """The profile with a number of examples, times PREFBENCH_FUZZ."""
    return settings(settings.get_profile("fuzz"), max_examples=max(1, round(n * FACTOR)))
