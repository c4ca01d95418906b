"""Units of work divided among workers: by what they cost first, by who is idle in the end."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from prefbench.cells import PlannedCell, Unit

USUAL_ITEMS = 1000
"""Items of a task that has no limit; how many there are is known only once they are read."""


def estimate(unit: Unit) -> float:
    """What a unit costs, in bytes of weights × items: each item takes all weights once or more."""
    return sum(_n_bytes(cell) * float(cell.planned.limit or USUAL_ITEMS) for cell in unit.cells)


def _n_bytes(cell: PlannedCell) -> int:
    """Of the weights; of an adapter with those that it changes, where they are on this disk."""
    checkpoint = cell.checkpoint
    base = Path(checkpoint.base) if checkpoint.adapter and checkpoint.base else None
    files = base.glob("*.safetensors") if base and base.is_dir() else ()
    return max(1, checkpoint.n_bytes + sum(file.stat().st_size for file in files))


def divide(costs: Sequence[float], n_workers: int) -> list[list[int]]:
    """Which of several things each worker does, so that all are done at about the same time.

    The most expensive first, each to the worker that has the least to do so far.

    Args:
        costs: of each thing, in any unit.
        n_workers: at least 1.

    Returns:
        The numbers of each worker's things, rising; empty lists where there are more workers.
    """
    shares: list[list[int]] = [[] for _ in range(n_workers)]
    loads = [0.0] * n_workers
    for i in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        least = loads.index(min(loads))
        shares[least].append(i)
        loads[least] += costs[i]
    return [sorted(share) for share in shares]


class Shares:
    """What each worker has yet to do: groups of units, whose engines are open together."""

    def __init__(self, units: Sequence[Unit], n_workers: int) -> None:
        """Divides units; those of one group begin with one worker, in the order in which they came.

        Args:
            units: as `in_units` gives them.
            n_workers: at least 1.
        """
        groups = [list(group) for _, group in itertools.groupby(units, lambda unit: unit.group)]
        costs = [sum(map(estimate, group)) for group in groups]
        self._queues = [[groups[i] for i in share] for share in divide(costs, n_workers)]

    def __len__(self) -> int:
        """Units that nobody has taken."""
        return sum(len(group) for queue in self._queues for group in queue)

    @property
    def n_workers(self) -> int:
        return len(self._queues)

    def add_worker(self) -> None:
        """Makes room for one more, which has no share of its own and takes over from others."""
        self._queues.append([])

    def take(self, worker: int) -> Unit | None:
        """The next unit for a worker, from its own share while there is any; None at the end.

        An idle worker takes over from the one with the most to do: its last group, or the last
        unit of its only one, which is then open twice.
        """
        own = self._queues[worker]
        if not own:
            other = max(self._queues, key=_cost)
            if len(other) > 1:
                own.append(other.pop())
            elif other:
                own.append([other[0].pop()])
                other[:] = filter(None, other)
        if not own:
            return None
        unit = own[0].pop(0)
        own[:] = filter(None, own)
        return unit

    def put_back(self, worker: int, unit: Unit) -> None:
        """Gives a unit to a worker once more, as the last of its share."""
        self._queues[worker].append([unit])


def _cost(queue: Sequence[Sequence[Unit]]) -> float:
    return sum(estimate(unit) for group in queue for unit in group)
