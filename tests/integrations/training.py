"""Real trainings of a small model on a made-up world's pairs, by transformers and by TRL.

A program of its own, too: `python -m tests.integrations.training KIND START RUN [--steps 6] …`.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
import transformers
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainerCallback
from transformers import TrainingArguments as Arguments
from transformers.trainer_callback import PrinterCallback

from prefbench.demo.texts import training_pairs
from prefbench.demo.world import make_world
from prefbench.integrations import PrefbenchCallback

KINDS = ("plain", "sft", "dpo", "lora")


class Pace(TrainerCallback):
    """No step before a file allows it: small models are trained before a watcher has looked."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_step_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        while state.global_step >= int(self.file.read_text()):
            time.sleep(0.05)


class Timed(PrefbenchCallback):
    """The callback with the time that it takes when a checkpoint was saved."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.seconds: list[float] = []

    def on_save(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        begun = time.perf_counter()
        super().on_save(args, state, control, **others)
        self.seconds.append(time.perf_counter() - begun)


class Late(TrainerCallback):
    """Of several processes the first comes first: what another one writes too would stay."""

    def on_save(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        time.sleep(0.3 * int(os.environ["RANK"]))


def pairs(n: int) -> Dataset:
    """Prompts with a chosen and a rejected reply, the same for the same n."""
    found = training_pairs(make_world(0), Random("a training"), n)
    return Dataset.from_list(
        [
            {"prompt": one.prompt_chosen, "chosen": one.chosen, "rejected": one.rejected}
            for one in found
        ]
    )


def trainer(
    kind: str,
    start: Path,
    run: Path,
    *,
    steps: int = 6,
    save_steps: int = 2,
    n_pairs: int = 4,
    callbacks: Sequence[TrainerCallback] = (),
    **settings: Any,
) -> Trainer:
    """A trainer that is ready to train.

    Args:
        kind: transformers' own, or TRL's for SFT, for DPO, or for DPO of an adapter.
        start: the model it begins with, which has a tokenizer.
        run: the output directory.
        steps: of the optimizer.
        save_steps: between two checkpoints.
        n_pairs: pairs, or texts, of a step.
        callbacks: added to the trainer.
        settings: further arguments of the trainer.
    """
    model = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(start)
    settings = {
        "output_dir": str(run),
        "max_steps": steps,
        "save_steps": save_steps,
        "logging_steps": 1,
        "learning_rate": 1e-4,
        "per_device_train_batch_size": n_pairs,
        "use_cpu": True,
        "disable_tqdm": True,
        "report_to": "none",
        **settings,
    }
    data = pairs(steps * n_pairs)
    shared: dict[str, Any] = {
        "model": model,
        "processing_class": tokenizer,
        "callbacks": list(callbacks),
    }
    if kind == "plain":
        texts = [row["prompt"] + row["chosen"] for row in data]
        rows = [{"input_ids": tokenizer(text).input_ids} for text in texts]
        collate = transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False)
        return Trainer(
            args=Arguments(**settings), train_dataset=rows, data_collator=collate, **shared
        )
    import trl

    settings |= {"bf16": False, "max_length": 192, "gradient_checkpointing": False}
    if kind == "sft":
        texts_of = data.select_columns(["prompt", "chosen"]).rename_column("chosen", "completion")
        return trl.SFTTrainer(args=trl.SFTConfig(**settings), train_dataset=texts_of, **shared)
    adapter = LoraConfig(r=4, target_modules=["q_proj", "v_proj"]) if kind == "lora" else None
    return trl.DPOTrainer(
        args=trl.DPOConfig(**settings), train_dataset=data, peft_config=adapter, **shared
    )


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("kind", choices=KINDS)
    asked.add_argument("start", type=Path)
    asked.add_argument("run", type=Path)
    asked.add_argument("--steps", type=int, default=6)
    asked.add_argument("--save-steps", type=int, default=2)
    asked.add_argument("--pairs", type=int, default=4)
    asked.add_argument("--limit", type=int, help="as save_total_limit")
    asked.add_argument("--pace", type=Path, help="file with the number of steps that are allowed")
    asked.add_argument("--callback", action="store_true")
    given = asked.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    warnings.simplefilter("ignore", FutureWarning)
    callbacks: list[TrainerCallback] = [Pace(given.pace)] if given.pace else []
    requests = Timed()
    if "RANK" in os.environ:
        callbacks.append(Late())
        requests = Timed(method=f"by process {os.environ['RANK']}")
    training = trainer(
        given.kind,
        given.start,
        given.run,
        steps=given.steps,
        save_steps=given.save_steps,
        n_pairs=given.pairs,
        callbacks=[*callbacks, *([requests] if given.callback else [])],
        save_total_limit=given.limit,
    )
    training.remove_callback(PrinterCallback)  # nobody may be reading
    training.train()
    training.save_model()
    training.save_state()
    if given.callback:
        requests.saved(given.run)
        print("seconds of the callback at each save:", *requests.seconds)


if __name__ == "__main__":
    main()
