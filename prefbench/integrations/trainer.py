"""A callback for `transformers.Trainer` and TRL's trainers: says at once what has been saved.

    from prefbench.integrations import PrefbenchCallback
    trainer.add_callback(PrefbenchCallback())

`prefbench watch` measures checkpoints without it; with it, it need not wait until files are quiet,
and the method that trained them is known and not guessed.
"""

from __future__ import annotations

import datetime
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from prefbench.requests import Files, Request, model_files, weights_of, write_request

logger = logging.getLogger(__name__)


class PrefbenchCallback(TrainerCallback):
    """Leaves a `prefbench_request.json` in each checkpoint that a Trainer saves.

    It writes this one small file at once, by the process that wrote the checkpoint and before that
    could delete it again, and waits for no disk. Whatever goes wrong is one warning in the log.

    Args:
        method: what the checkpoints are called in the table; by default what TRL's `loss_type`
            says, where that is one of the methods that prefbench knows.
        reference: path or hub id of the reference model; by default the model that training began
            with.
    """

    def __init__(self, *, method: str | None = None, reference: str | None = None) -> None:
        self._method = method
        self._reference = reference
        self._facts: dict[str, Any] = {}
        self._step = 0
        self._writes = False
        self._before: Files = {}
        self._warned = False

    def saved(self, folder: str | Path) -> None:
        """Tells of a model that was saved by hand, such as by `trainer.save_model()`.

        Args:
            folder: where; no argument of `save_model` is `args.output_dir`.
        """
        with self._harmless():
            if self._writes:
                self._write(Path(folder), model_files(Path(folder)))

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """The run's folder learns what is trained there; a model from before is no longer it."""
        with self._harmless():
            self._learn(args, state, others.get("model"))
            run = Path(args.output_dir)
            if self._writes and run.is_dir():
                self._before = weights_of(model_files(run))
                self._write(run, {})

    def on_save(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """The checkpoint is there, but for what other processes may still write."""
        with self._harmless():
            self._learn(args, state, others.get("model"))
            run = Path(args.output_dir)
            if state.is_hyper_param_search:
                if not state.trial_name:
                    return  # nobody says where this trial is saved
                run /= state.trial_name
            folder = run / f"checkpoint-{state.global_step}"
            if self._writes:
                self._write(folder, model_files(folder))

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """A model that was saved in the run's own folder meanwhile, by whomever."""
        with self._harmless():
            self._learn(args, state, others.get("model"))
            run = Path(args.output_dir)
            if self._writes and run.is_dir():
                files = model_files(run)
                if weights_of(files) and weights_of(files) != self._before:
                    self._write(run, files)

    def _learn(self, args: Any, state: Any, model: Any) -> None:
        self._writes = bool(state.is_world_process_zero)
        self._step = int(state.global_step)
        if not self._facts:
            self._facts = _facts(args, model)

    def _write(self, folder: Path, files: Files) -> None:
        request = Request(
            step=self._step,
            when=datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            files=files,
            method=self._method,
            reference=_place(self._reference),
            **self._facts,
        )
        write_request(folder, request)

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  # training goes on, whatever happens here
            if not self._warned:
                self._warned = True
                logger.warning(
                    "prefbench: no request could be left beside a checkpoint (%s: %s); training is "
                    "not concerned, and a watch will wait until the files are quiet",
                    type(error).__name__,
                    error,
                )


def _facts(args: Any, model: Any) -> dict[str, Any]:
    """What only the trainer knows, and nothing else of its arguments: they hold tokens."""
    losses = getattr(args, "loss_type", None)
    losses = [losses] if isinstance(losses, str) else losses
    beta, seed = getattr(args, "beta", None), getattr(args, "seed", None)
    start = getattr(getattr(model, "config", None), "_name_or_path", None)
    return {
        "trainer": type(args).__name__,
        "losses": tuple(str(one) for one in losses) if isinstance(losses, list | tuple) else (),
        "start": _place(start if isinstance(start, str) else None),
        "beta": float(beta) if isinstance(beta, int | float) and 0 <= beta < math.inf else None,
        "seed": seed if type(seed) is int and seed >= 0 else None,
    }


def _place(written: str | None) -> str | None:
    """A directory by its whole path, as nobody else knows where this process runs."""
    if not written:
        return None
    return str(Path(written).resolve()) if Path(written).is_dir() else written
