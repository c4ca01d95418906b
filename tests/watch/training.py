"""A program that writes checkpoints file by file, as a trainer does, and keeps the last few."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

from safetensors.numpy import load_file, save

N_STEPS = 5
KEPT = 2
"""As `save_total_limit`."""


def write(source: Path, folder: Path, step: int) -> None:
    """Weights that differ by the step, in two pieces with a pause between; the tokenizer last."""
    folder.mkdir(parents=True)
    tensors = load_file(source / "model.safetensors")
    weights = save({name: value * (1 + step / 1000) for name, value in tensors.items()})
    for name in ("config.json", "generation_config.json"):
        shutil.copyfile(source / name, folder / name)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(weights[: len(weights) // 2])
        file.flush()
        time.sleep(0.3)
        file.write(weights[len(weights) // 2 :])
    time.sleep(0.2)
    for name in ("tokenizer_config.json", "tokenizer.json"):
        shutil.copyfile(source / name, folder / name)
    (folder / "trainer_state.json").write_text(f'{{"global_step": {step}}}')


def main(source: Path, run: Path, pause: float) -> None:
    for step in range(10, 10 * N_STEPS + 1, 10):
        write(source, run / f"checkpoint-{step}", step)
        old = run / f"checkpoint-{step - 10 * KEPT}"
        if old.is_dir():
            shutil.rmtree(old)
        time.sleep(pause)
    (run.parent / "trained").touch()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
