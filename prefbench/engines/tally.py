"""What scoring adds up for each of several continuations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from prefbench.engines.tree import Ints, Line


class Tally:
    """Sums, greedy flags and every token's own log-prob of some lines.

    `states` are the sums of the hidden states that the output layer reads at the positions that
    predict a line's continuation, (n_lines, width), in float64; None unless `Watch` saw some.
    """

    def __init__(self, lines: Sequence[Line]) -> None:
        n = [len(line.tokens) - line.start for line in lines]
        self.sums: NDArray[np.float64] = np.zeros(len(lines))
        self.greedy: NDArray[np.bool_] = np.ones(len(lines), bool)
        self.states: NDArray[np.float64] | None = None
        self._ends = np.cumsum(n)
        self._starts = self._ends - n
        self._first = np.array([line.start - 1 for line in lines])
        self._tokens = np.zeros(int(self._ends[-1]) if n else 0)

    def tokens(self, i: int) -> NDArray[np.float64]:
        """Log-probs of a line's continuation, token by token."""
        return self._tokens[self._starts[i] : self._ends[i]]

    def add(
        self, owners: Ints, depths: Ints, logps: NDArray[np.float64], best: NDArray[np.bool_]
    ) -> None:
        """Counts scored tokens.

        Args:
            owners: whose token each is.
            depths: the position, in its line, that predicts it.
            logps: its log-prob.
            best: whether it is the greedy one.
        """
        np.add.at(self.sums, owners, logps)
        np.logical_and.at(self.greedy, owners, best)
        self._tokens[self._starts[owners] + depths - self._first[owners]] = logps

    def add_states(self, owners: Ints, places: NDArray[Any], states: torch.Tensor) -> None:
        """Adds to each owner the states (n_positions, width) at its places, one place a row."""
        if self.states is None:
            self.states = np.zeros((len(self.sums), states.shape[-1]))
        index = torch.from_numpy(places.astype(np.int64)).to(states.device)
        np.add.at(self.states, owners, states[index].double().cpu().numpy())

    def put(self, at: Sequence[int], part: Tally) -> None:
        """Takes over what was found for the lines at some places, in whose stead it stands."""
        self.sums[at], self.greedy[at] = part.sums, part.greedy
        for place, i in enumerate(at):
            self._tokens[self._starts[i] : self._ends[i]] = part.tokens(place)
        if part.states is not None:
            if self.states is None:
                self.states = np.zeros((len(self.sums), part.states.shape[-1]))
            self.states[at] = part.states


class Watch:
    """Sees the hidden states that a model's output layer reads."""

    def __init__(self, model: Any) -> None:
        self._layer = model.get_output_embeddings()
        self._seen: torch.Tensor | None = None

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Within, every forward pass leaves its states behind, if there is such a layer."""
        if self._layer is None:
            yield
            return

        def see(_: Any, arguments: tuple[torch.Tensor, ...]) -> None:
            self._seen = arguments[0].detach()

        hook = self._layer.register_forward_pre_hook(see)
        try:
            yield
        finally:
            hook.remove()
            self._seen = None

    def states(self, positions: Ints) -> torch.Tensor | None:
        """Of the last forward pass: (n_rows, n_positions, width), if the layer was called."""
        seen, self._seen = self._seen, None
        if seen is None or seen.dim() != 3:
            return None
        if seen.shape[1] == len(positions):
            return seen
        return seen[:, torch.from_numpy(positions.astype(np.int64)).to(seen.device)]
