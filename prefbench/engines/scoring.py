"""Log-probs of many continuations that share prefixes, each shared prefix computed once."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any, TypeVar

import numpy as np
import torch

from prefbench.engines.attention import (
    cannot_pack,
    depends_on_length,
    heed_caps,
    longest_packed,
    packed_attention,
)
from prefbench.engines.base import Logp, TokenRequest
from prefbench.engines.checks import difference, is_out_of_memory, made_up, takes_positions
from prefbench.engines.packing import KeptKeys, run_row
from prefbench.engines.plain import bare, batches, plain_logps
from prefbench.engines.tally import Tally, Watch
from prefbench.engines.tree import Budget, Line, Row, rows, tree
from prefbench.errors import EngineError

TOKENS_AT_ONCE = {"cpu": 512, "cuda": 4096}
"""Tokens of a forward pass: enough for fast matrix products."""
LOGITS_AT_ONCE = {"cpu": 1 << 24, "cuda": 1 << 28}
"""Logits of a forward pass: 64 MiB in float32 where caches are small, 1 GiB on a GPU."""
LEAST_TOKENS = 16
"""A forward pass is not made smaller than this, whatever the memory."""
REQUESTS_AT_ONCE = 1024
"""Requests whose prefixes are compared with one another."""
T = TypeVar("T")

log = logging.getLogger(__name__)


class Scorer:
    """Scores for one loaded model; keeps the keys of the last prefix from call to call.

    The model's weights stay as they are meanwhile, adapters included.
    """

    def __init__(self, model: Any, max_length: int, device: torch.device) -> None:
        heed_caps(model)
        self.model = model
        self.max_length = max_length
        self.kept = KeptKeys()
        self.notes: list[str] = []
        """What somebody who wonders about speed should know."""
        self._tokens_at_once = TOKENS_AT_ONCE.get(device.type, 512)
        self._logits_at_once = LOGITS_AT_ONCE.get(device.type, 1 << 24)
        self.n_vocabulary = bare(model).config.get_text_config().vocab_size
        self.longest_packed = max_length
        self._pads = not depends_on_length(bare(model).config)
        self._watch: Watch | None = None
        """Set while hidden states are wanted."""

    @torch.inference_mode()
    def score(self, requests: Sequence[TokenRequest], *, details: bool = False) -> list[Logp]:
        """Log-probs in the order of the requests, each with a continuation that fits.

        Raises:
            EngineError: not even a very small forward pass fits into memory.
        """
        results: list[Logp] = []
        for start in range(0, len(requests), REQUESTS_AT_ONCE):
            some = requests[start : start + REQUESTS_AT_ONCE]
            lines, cuts = zip(*(self._line(*request) for request in some), strict=True)
            with self._watching(details):
                tally = self.within_memory(partial(self._score, lines))
            found = list(map(Logp, tally.sums.tolist(), tally.greedy.tolist(), cuts))
            if details:
                found = [
                    one._replace(
                        tokens=tuple(tally.tokens(i).tolist()),
                        states=None if tally.states is None else tally.states[i],
                    )
                    for i, one in enumerate(found)
                ]
            results += found
        return results

    @contextmanager
    def _watching(self, wanted: bool) -> Iterator[None]:
        """Within, hidden states are added up, if they are wanted."""
        if not wanted:
            yield
            return
        self._watch = Watch(self.model)
        try:
            with self._watch.looking():
                yield
        finally:
            self._watch = None

    def within_memory(self, work: Callable[[], T]) -> T:
        """A result of work that does less at once after each time that memory runs out.

        Raises:
            EngineError: not even very small forward passes fit.
        """
        while True:
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self.shrink(error)
            self.release()  # once the error, and the tensors that it holds, are gone

    def shrink(self, error: BaseException) -> None:
        """Halves what is done at once.

        Raises:
            EngineError: it is very little already.
        """
        if self._tokens_at_once <= LEAST_TOKENS:
            message = f"out of memory with {self._tokens_at_once} tokens at once"
            raise EngineError(message) from error
        self._tokens_at_once //= 2
        self._logits_at_once //= 2
        self.note(f"out of memory; goes on with {self._tokens_at_once} tokens at once")

    def release(self) -> None:
        """Gives memory back; what is kept can be computed again."""
        self.kept.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @cached_property
    def plain_reason(self) -> str | None:
        """Why prefixes are not shared, if they are not; found out by a check on the model itself.

        Sequences longer than a sliding window that the model does not name to its attention go the
        plain way too.
        """
        reason = cannot_pack(self.model) or self._check()
        if reason:
            self._pads = self._pads and self._may_pad()
            self.note(f"scores without sharing prefixes, which is slower: {reason}")
        return reason

    def note(self, text: str) -> None:
        """Keeps a note and says it aloud; it may quote what a checkpoint's own code said."""
        self.notes.append(text)
        said = f"{bare(self.model).name_or_path}: {text}"
        log.warning("%s", "".join(c if c.isprintable() else "?" for c in said))

    def _line(self, context: Sequence[int], continuation: Sequence[int]) -> tuple[Line, int]:
        """Both together, cut from the left as in lm-eval, and how many tokens that took away."""
        tokens = np.concatenate([np.asarray(context, np.int32), np.asarray(continuation, np.int32)])
        kept = tokens[-(self.max_length + 1) :]
        return Line(kept, len(kept) - len(continuation)), len(tokens) - len(kept)

    def _score(self, lines: Sequence[Line]) -> Tally:
        tally = Tally(lines)
        packed: list[int] = []
        plain: list[int] = []
        for i, line in enumerate(lines):
            short = len(line.tokens) - 1 <= self.longest_packed
            (packed if self.plain_reason is None and short else plain).append(i)
        if packed:
            tally.put(packed, self._packed([lines[i] for i in packed]))
            # One text that overflows makes those beside it no numbers, although it is masked.
            plain += [i for i in packed if math.isnan(tally.sums[i])]
        if plain:
            tally.put(plain, self.plain([lines[i] for i in plain]))
        return tally

    @property
    def budget(self) -> Budget:
        """What a forward pass may hold at present."""
        return Budget(self._tokens_at_once, max(1, self._logits_at_once // self.n_vocabulary))

    def plain(self, lines: Sequence[Line]) -> Tally:
        """Log-probs and greedy flags with a row for each line."""
        tally = Tally(lines)
        for batch in batches(lines, self.budget, pads=self._pads):
            some = [lines[i] for i in batch]
            tally.put(batch, plain_logps(self.model, some, self.budget, self._watch))
        return tally

    def _packed(self, lines: Sequence[Line]) -> Tally:
        tally = Tally(lines)
        with packed_attention(self.model):
            for row in rows(tree(lines), self.budget):
                if not self.kept.has(row):
                    self._run(row, tally)
        return tally

    def _run(self, row: Row, tally: Tally) -> None:
        """Adds what one row scores."""
        positions, at = np.unique(row.scored.offsets, return_inverse=True)
        wanted = positions if len(positions) else np.zeros(1, np.int32)
        logits = run_row(self.model, row, wanted, self.kept).float()
        if not len(positions):
            return
        index = torch.from_numpy(at).to(logits.device)
        targets = torch.from_numpy(row.scored.targets.astype(np.int64)).to(logits.device)
        logps = logits[index, targets].double() - logits.logsumexp(-1).double()[index]
        best = logits.argmax(-1)[index] == targets
        owners = row.scored.owners
        tally.add(owners, row.depths[row.scored.offsets], logps.cpu().numpy(), best.cpu().numpy())
        if self._watch and (states := self._watch.states(positions)) is not None:
            tally.add_states(owners, at, states[0])

    @torch.inference_mode()
    def _check(self) -> str | None:
        """Scores a few made-up items both ways; says how they differ if they do."""
        lines = made_up(self.n_vocabulary, self.max_length)
        before = self._tokens_at_once
        self._tokens_at_once = len(lines[0].tokens)  # a row for the prefix, then one of branches
        try:
            if not takes_positions(self.model, lines[0]):
                return "its code counts positions itself"
            packed = self._packed(lines).sums
        except Exception as error:  # whatever a model's own code makes of the row
            if is_out_of_memory(error):
                raise
            return f"its code cannot run a packed row: {type(error).__name__}: {error}"
        finally:
            self._tokens_at_once = before
            self.kept.clear()
        self.longest_packed = longest_packed(self.model, self.kept.windows, self.max_length)
        return difference(packed, self.plain(lines).sums, next(self.model.parameters()).dtype)

    @torch.inference_mode()
    def _may_pad(self) -> bool:
        """Whether lines may be run beside longer ones: not so if tokens see those after them."""
        lines = made_up(self.n_vocabulary, self.max_length)
        whole = Budget(sum(len(line.tokens) for line in lines), self.budget.scored)
        padded = plain_logps(self.model, lines, whole).sums
        alone = [plain_logps(self.model, [line], whole).sums[0] for line in lines]
        dtype = next(self.model.parameters()).dtype
        return difference(padded, np.array(alone), dtype) is None
