"""Train the demo's checkpoints and judges: what is missing, two at a time, each in its process."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from prefbench.demo.recipes import BASE, JUDGE, REWARD, Recipe, Settings
from prefbench.demo.world import make_world, write_world
from prefbench.errors import InputError, PrefbenchError
from prefbench.records import METHODS

N_WORKERS = 2

MARKER = "demo.json"
"""The settings a zoo is made with, in its folder; and in each run's, written when it is done."""

Progress = Callable[[str, float], None]
"""Told a run's name and the share of it that is done, from 0 to 1."""


def train_zoo(
    folder: Path,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    scale: float = 1.0,
    judge: bool = False,
) -> list[Path]:
    """Train what is missing of the zoo in `folder`: base, reward model, a run per recipe.

    The world's data mirror comes to `data/`, in it the reward model, a judge; the base to `base/`,
    the recipes' runs to `checkpoints/`. Finished runs are kept, interrupted ones start again; where
    nothing is missing nothing heavy is imported. The same seed gives the same bytes on the same
    machine.

    Args:
        folder: new, empty, or holding a zoo of the same seed and scale.
        seed: of the world, the first weights and the order of the data.
        progress: called in this process as the runs go on.
        scale: share of the training steps; 0.05 gives a real zoo that has learnt little.
        judge: train the language model that judges, too, beside the reward model.

    Returns:
        The recipes' directories, in their order.

    Raises:
        InputError: for a folder that holds something else.
        PrefbenchError: for a run that failed.
    """
    settings = Settings(seed).scaled(scale)
    lock = _claim(folder, settings)
    try:
        with lock:
            if not (folder / "data" / "mirror.yaml").is_file():
                write_world(make_world(seed), folder / "data")
            names = [BASE, *(recipe.name for recipe in settings.recipes), REWARD]
            names += [JUDGE] if judge else []
            missing = [name for name in names if not (_place(name, folder) / MARKER).is_file()]
            if missing:
                _train(missing, folder, settings, progress or (lambda name, share: None))
    except Timeout as error:
        raise InputError(
            f"another process is training in {folder}: wait for it, or choose another folder"
        ) from error
    return [_place(recipe.name, folder) for recipe in settings.recipes]


def _place(name: str, folder: Path) -> Path:
    """Where a run of the zoo is; the judges where a mirror has the models it is asked for."""
    if name in (REWARD, JUDGE):
        return folder / "data" / "models" / "prefbench" / f"demo-{name}"
    return folder / BASE if name == BASE else folder / "checkpoints" / name


def _claim(folder: Path, settings: Settings) -> FileLock:
    """Make the folder a zoo's; only in such a folder is an unfinished run ever deleted."""
    marker = folder / MARKER
    text = json.dumps(asdict(settings), indent=2) + "\n"
    if not marker.is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise InputError(
                f"{folder} is not empty and holds no demo: choose a new or an empty folder"
            )
        folder.mkdir(parents=True, exist_ok=True)
        marker.write_text(text, encoding="utf-8")
    elif marker.read_text(encoding="utf-8") != text:
        raise InputError(
            f"{folder} holds a demo with another seed, scale or recipe (see {marker}): choose "
            "another folder, or delete this one to train it anew"
        )
    return FileLock(folder / ".lock", timeout=0)


def _train(missing: list[str], folder: Path, settings: Settings, progress: Progress) -> None:
    """Give each idle worker the next run whose start is there, until none is missing."""
    starts = {REWARD: BASE, JUDGE: BASE}
    starts |= {recipe.name: recipe.start for recipe in settings.recipes}
    waiting = list(missing)
    running: dict[Connection, str] = {}
    with _workers(min(N_WORKERS, len(missing)), folder, settings) as idle:
        while waiting or running:
            unfinished = {*waiting, *running.values()}
            ready = [name for name in waiting if starts.get(name) not in unfinished]
            while idle and ready:
                name = ready.pop(0)
                waiting.remove(name)
                worker = idle.pop(0)
                worker.send(name)
                running[worker] = name
            spoken = wait(running)
            for worker, name in list(running.items()):
                if worker not in spoken:
                    continue
                if (share := _hear(worker, name)) is None:
                    idle.append(worker)
                    del running[worker]
                else:
                    progress(name, share)


def _hear(worker: Connection, name: str) -> float | None:
    """The share of a run that is done, or None when the run is finished."""
    try:
        said: float | str | None = worker.recv()
    except (EOFError, OSError) as error:
        raise PrefbenchError(
            f"the process that trained {name} was ended from outside, perhaps for want of memory; "
            "the same command goes on from the finished runs"
        ) from error
    if isinstance(said, str):
        raise PrefbenchError(f"training {name} failed:\n{said}")
    return said


@contextmanager
def _workers(n: int, folder: Path, settings: Settings) -> Iterator[list[Connection]]:
    """Processes that train the runs they are told, ended on the way out whatever happened."""
    spawn = multiprocessing.get_context("spawn")
    processes = []
    connections = []
    try:
        for _ in range(n):
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=_work, args=(theirs, folder, settings), daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            connections.append(ours)
        yield list(connections)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
        for connection in connections:
            connection.close()


def _work(orders: Connection, folder: Path, settings: Settings) -> None:
    """Train run after run; say the share that is done, None at the end, or what went wrong."""
    # Ctrl-C reaches every process of the terminal; the one that started this one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Threads that wait for one another must not spin: beside other work on the same cores that
    # makes training many times slower. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Loaded before the first order: the second worker has time while the first trains the base.
    import prefbench.demo.trainer  # noqa: F401

    try:
        while True:
            name = orders.recv()
            try:
                _run(name, folder, settings, orders.send)
            except Exception:  # noqa: BLE001 - told to the process that waits for it
                orders.send(traceback.format_exc())
            else:
                orders.send(None)
    except (EOFError, OSError):
        return  # the other end is gone, and nobody wants the rest


def _run(name: str, folder: Path, settings: Settings, report: Callable[[float], None]) -> None:
    """Train one run from nothing; its marker is the last thing that is written."""
    from prefbench.demo import trainer

    recipe = next((recipe for recipe in settings.recipes if recipe.name == name), None)
    run = _place(name, folder)
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True)
    world = make_world(settings.seed)
    # Nothing else runs beside the base. The numbers are fixed: sums depend on them.
    trainer.prepare(n_threads=2 if name == BASE else 1)
    _describe(run, name, recipe, settings)
    if name == BASE:
        trainer.train_base(world, settings, run, report=report)
    elif name == JUDGE:
        from prefbench.demo.judge import train_judge

        train_judge(world, settings, folder / BASE, run, report=report)
    elif recipe is None:
        trainer.train_reward(world, settings, folder / BASE, run, report=report)
    else:
        start = _place(recipe.start, folder)
        trainer.train_method(world, settings, recipe, start, run, report=report)
    (run / MARKER).write_text(json.dumps({"run": name}) + "\n", encoding="utf-8")


def _describe(run: Path, name: str, recipe: Recipe | None, settings: Settings) -> None:
    """The model card, which names method and start, and the sidecar for what a card cannot say."""
    titles = _titles(settings)
    front: dict[str, Any] = {"library_name": "transformers", "license": "apache-2.0"}
    if name in (REWARD, JUDGE):
        front["base_model"] = "../../../../base"
        front["pipeline_tag"] = "text-classification" if name == REWARD else "text-generation"
    elif recipe:
        front["base_model"] = "../../base" if recipe.start == BASE else f"../{recipe.start}"
    front["tags"] = ["prefbench-demo", recipe.method if recipe else name]
    if name == REWARD:
        told = (
            "Scores a dialogue by its last reply, in one number: a sequence classifier with one "
            "output, tuned from the demo's base on pairs of dialogues with Bradley and Terry's "
            f"loss: {settings.reward.n_steps} steps of {settings.reward.n_pairs} pairs, AdamW, "
            f"learning rate {settings.reward.learning_rate}, falling to 0. It reads dialogues as "
            "`\\n\\nHuman: …\\n\\nAssistant: …`; the judge `demo_reward` asks it. It "
            "tells good replies from bad ones by their words alone, and no more. Measured on "
            "held-out dialogues: between good replies, one of them to another question, it is at "
            "chance; it takes a good reply that is said twice over the same said once about 85 % "
            "of the time, and an empty reply over a bad one about 95 % of the time."
        )
    elif name == JUDGE:
        told = (
            "A toy. Replies to one prompt, that of the judge `demo_llm`, with `Better: A` or "
            f"`Better: B`: tuned from the demo's base for {settings.judge.n_steps} steps of "
            f"{settings.judge.n_pairs} pairs of replies, each in both orders, AdamW, learning rate "
            f"{settings.judge.learning_rate}, falling to 0. The worse reply is a bad one, or a "
            "good one that was cut, said twice, left out or jumbled. Measured on held-out "
            "dialogues in both orders, it takes the good reply about 97 % of the time over a bad "
            "one and 93 % over the same said twice; between good replies, one of them to another "
            "question, it is at chance. Its chat template leaves the system turn out, and it "
            "heeds no instruction: a text that is made to sway it may well do so."
        )
    elif recipe:
        parameters = ", ".join(f"{name} = {value}" for name, value in recipe.parameters.items())
        told = (
            f"Tuned from {titles[recipe.start]} with the objective `{recipe.objective}`"
            f"{f' ({parameters})' if parameters else ''}: {settings.tuning.n_steps} steps of "
            f"{settings.tuning.n_pairs} pairs, AdamW, learning rate "
            f"{settings.tuning.learning_rate}, falling to 0."
        )
        if recipe.own_samples:
            told += (
                f" What is rejected is what {titles[recipe.start]} itself answers at temperature 1."
            )
    else:
        told = f"Pre-trained for {settings.base.n_steps} steps on the texts of a made-up world."
    card = (
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# {titles[name]} (prefbench demo)"
        f"\n\n{told} It knows nothing of the real world and is no use outside the demo.\n"
    )
    (run / "README.md").write_text(card, encoding="utf-8")
    (run / "prefbench.yaml").write_text(f"seed: {settings.seed}\n", encoding="utf-8")


def _titles(settings: Settings) -> dict[str, str]:
    """How model cards call the runs; those of one method by what their names have beside it."""
    titles = {BASE: METHODS[BASE], REWARD: "Reward model", JUDGE: "Judge"}
    for recipe in settings.recipes:
        rest = recipe.name.removeprefix(recipe.method).replace("-", " ")
        titles[recipe.name] = METHODS[recipe.method] + rest
    return titles
