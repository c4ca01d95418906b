"""The demo's tokenizer, its base, the Trainer that tunes on pairs, and the reward model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn.functional import logsigmoid
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from prefbench.demo.recipes import Base, Recipe, Settings
from prefbench.demo.samples import with_own_samples
from prefbench.demo.texts import (
    END,
    MAX_SHOTS,
    Pair,
    base_documents,
    base_texts,
    dialogue_pairs,
    training_pairs,
)
from prefbench.demo.world import World
from prefbench.objectives import OBJECTIVES, PairLogps

N_ROWS = 12
"""Texts that go through the model together when pairs are trained on."""

Batch = dict[str, Any]
"""Padded token ids `ids`, counts `n_prompt` and `n_response`, perhaps `reference`, a PairLogps."""

Report = Callable[[float], None]
"""Told the share of a run that is done, from 0 to 1."""


def prepare(n_threads: int) -> None:
    """Make this process quiet and its arithmetic repeatable: the sums depend on the threads."""
    torch.set_num_threads(n_threads)
    torch.use_deterministic_algorithms(True)
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def train_tokenizer(world: World, n_tokens: int, context: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE that reads any text; every digit is a token of its own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(" ?[0-9]"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    learn = trainers.BpeTrainer(
        vocab_size=n_tokens,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(chain(*base_texts(world).values()), learn)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=END,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )


def train_base(world: World, settings: Settings, folder: Path, *, report: Report) -> None:
    """Pre-train a small Llama on the world's documents and save it with its tokenizer."""
    base = settings.base
    tokenizer = train_tokenizer(world, base.n_tokens, base.context)
    transformers.set_seed(settings.seed)
    model = LlamaForCausalLM(  # type: ignore[no-untyped-call]
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=base.width,
            intermediate_size=base.inner_width,
            num_hidden_layers=base.n_layers,
            num_attention_heads=base.n_heads,
            max_position_embeddings=base.context,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=base.learning_rate, betas=(0.9, 0.95), weight_decay=0.1
    )
    for step, batch in enumerate(
        _base_batches(world, base, tokenizer, Random(f"{settings.seed} base"))
    ):
        for group in optimizer.param_groups:
            group["lr"] = base.learning_rate * _cosine(step, base.n_steps)
        loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        report((step + 1) / base.n_steps)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def train_method(
    world: World, settings: Settings, recipe: Recipe, start: Path, folder: Path, *, report: Report
) -> None:
    """Tune the checkpoint at `start` on the world's pairs and save it with its `checkpoint-N/`."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(start)
    model = LlamaForCausalLM.from_pretrained(start, dtype=torch.float32)
    tuning = settings.tuning
    transformers.set_seed(settings.seed)
    rng = Random(f"{settings.seed} pairs")
    pairs = training_pairs(world, rng, tuning.n_steps * tuning.n_pairs)
    if recipe.own_samples:
        pairs = with_own_samples(pairs, model, tokenizer, Random(f"{settings.seed} {recipe.name}"))
    batches = [pad(rows, tokenizer) for rows in _chunks(pairs, tuning.n_pairs)]
    if OBJECTIVES[recipe.objective].needs_reference:
        with torch.no_grad():
            # A plain tuple: the Trainer rebuilds what it moves to a device, and no named tuple.
            batches = [batch | {"reference": tuple(pair_logps(model, batch))} for batch in batches]
    trainer = PairTrainer(
        recipe,
        batches,
        model=model,
        args=TrainingArguments(
            output_dir=str(folder),
            max_steps=tuning.n_steps,
            learning_rate=tuning.learning_rate,
            lr_scheduler_type="linear",
            per_device_train_batch_size=tuning.n_pairs,
            logging_steps=max(1, tuning.n_steps // 12),
            save_steps=tuning.n_steps // 2,
            save_only_model=True,
            use_cpu=True,
            disable_tqdm=True,
            report_to="none",
            seed=settings.seed,
        ),
        processing_class=tokenizer,
        callbacks=[_Reporter(report)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    trainer.save_model()
    trainer.save_state()
    for pickled in folder.rglob("training_args.bin"):
        pickled.unlink()


def train_reward(
    world: World, settings: Settings, start: Path, folder: Path, *, report: Report
) -> None:
    """Teach the base to score dialogues, the better ones higher, and save it with its tokenizer.

    The loss of a pair is −ln σ(r_chosen − r_rejected): what Bradley and Terry's model makes of a
    preference. Source: Ouyang et al. 2022, eq. 1, arxiv.org/abs/2203.02155.
    """
    tokenizer = PreTrainedTokenizerFast.from_pretrained(start)
    transformers.set_seed(settings.seed)  # of the one new layer
    model = LlamaForSequenceClassification.from_pretrained(start, num_labels=1, dtype=torch.float32)
    reward = settings.reward
    optimizer = torch.optim.AdamW(model.parameters(), lr=reward.learning_rate)
    rng = Random(f"{settings.seed} reward")
    pairs = dialogue_pairs(world, rng, reward.n_steps * reward.n_pairs)
    for step, rows in enumerate(_chunks(pairs, reward.n_pairs)):
        for group in optimizer.param_groups:
            group["lr"] = reward.learning_rate * (1 - step / reward.n_steps)
        texts = [p.prompt_chosen + p.chosen for p in rows]
        texts += [p.prompt_rejected + p.rejected for p in rows]
        scores = rewards(model, tokenizer, texts)
        loss = -logsigmoid(scores[: len(rows)] - scores[len(rows) :]).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        report((step + 1) / reward.n_steps)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def rewards(model: Any, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> Tensor:
    """A score for each whole text, read at its last token; like lengths together."""
    ids = [torch.tensor(one) for one in tokenizer(list(texts)).input_ids]
    by_length = torch.tensor([len(one) for one in ids]).argsort(stable=True)
    parts = []
    for at in range(0, len(ids), N_ROWS):
        rows = [ids[i] for i in by_length[at : at + N_ROWS]]
        # Scores are read at the last token that is no pad: pads change nothing.
        padded = pad_sequence(rows, batch_first=True, padding_value=int(tokenizer.pad_token_id))
        parts.append(model(input_ids=padded, use_cache=False).logits[:, 0])
    return torch.cat(parts)[by_length.argsort()]


class PairTrainer(Trainer):
    """A Trainer whose data set holds padded batches of pairs and whose loss is an objective."""

    def __init__(self, recipe: Recipe, batches: Sequence[Batch], **arguments: Any) -> None:
        super().__init__(train_dataset=batches, **arguments)
        self.recipe = recipe
        self.batches: Any = batches
        self.seen: list[dict[str, float]] = []

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The batches as they are, in their order."""
        return DataLoader(self.batches, batch_size=None)

    def compute_loss(
        self,
        model: Any,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """The mean loss of the batch; what the logs say beside it is kept until they are written.

        Its last two arguments are the Trainer's, for evaluation and for sums over tokens.
        """
        policy = pair_logps(model, inputs)
        reference = PairLogps(*inputs["reference"]) if "reference" in inputs else None
        losses = OBJECTIVES[self.recipe.objective](policy, reference, **self.recipe.parameters)
        self.seen.append(_observe(policy, reference, self.recipe.parameters.get("beta", 1.0)))
        loss: Tensor = losses.mean()
        return loss

    def log(self, logs: dict[str, float], *arguments: Any) -> None:
        """Write the log with the means of what was seen since the last one."""
        if self.seen:
            logs |= {name: fmean(seen[name] for seen in self.seen) for name in self.seen[0]}
            self.seen.clear()
        super().log(logs, *arguments)


class _Reporter(TrainerCallback):
    def __init__(self, report: Report) -> None:
        self.report = report

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.report(state.global_step / state.max_steps)


def pad(pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerFast) -> Batch:
    """Token ids of all chosen texts and then all rejected ones, padded at the right.

    Prompt and response are tokenized apart; the end-of-text token belongs to the response, unless
    that was cut. Pads need no attention mask: they come last, and no token attends to what comes
    after it.
    """
    prompts = [p.prompt_chosen for p in pairs] + [p.prompt_rejected for p in pairs]
    responses = [p.chosen + END for p in pairs]
    responses += [p.rejected + ("" if p.cut else END) for p in pairs]
    starts = tokenizer(prompts).input_ids
    ends = tokenizer(responses).input_ids
    longest = max(len(start) + len(end) for start, end in zip(starts, ends, strict=True))
    ids = torch.full((len(starts), longest), int(tokenizer.pad_token_id))
    for row, start, end in zip(ids, starts, ends, strict=True):
        row[: len(start) + len(end)] = torch.tensor(start + end)
    return {
        "ids": ids,
        "n_prompt": torch.tensor([len(start) for start in starts]),
        "n_response": torch.tensor([len(end) for end in ends]),
    }


def pair_logps(model: Any, batch: Batch) -> PairLogps:
    """Log-probs of a padded batch's responses: sums, counts and every token's own.

    Rows of like length go through the model together: to compute on pads takes time, too.
    """
    n_prompt, n_response = batch["n_prompt"], batch["n_response"]
    n_tokens = n_prompt + n_response
    steps = torch.arange(int(n_response.max()))
    by_length = n_tokens.argsort(stable=True)
    parts = []
    for rows in by_length.split(N_ROWS):
        ids = batch["ids"][rows, : int(n_tokens[rows].max())]
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
        logps = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
        # Column t predicts token t + 1; each row's response moves to the left edge.
        columns = (n_prompt[rows, None] - 1 + steps).clamp(max=logps.shape[1] - 1)
        parts.append(logps.gather(1, columns))
    tokens = torch.cat(parts)[by_length.argsort()]
    tokens = torch.where(steps < n_response[:, None], tokens, torch.zeros(()))
    sums = tokens.sum(-1)
    n = len(sums) // 2
    return PairLogps(sums[:n], sums[n:], n_response[:n], n_response[n:], tokens[:n], tokens[n:])


def _observe(policy: PairLogps, reference: PairLogps | None, beta: float) -> dict[str, float]:
    """What the logs say beside the loss, under the names that TRL uses."""
    seen = {"logps/chosen": policy.chosen, "logps/rejected": policy.rejected}
    if reference is not None:
        chosen = beta * (policy.chosen - reference.chosen)
        rejected = beta * (policy.rejected - reference.rejected)
        seen |= {
            "rewards/chosen": chosen,
            "rewards/rejected": rejected,
            "rewards/margins": chosen - rejected,
            "rewards/accuracies": (chosen > rejected).float(),
        }
    return {name: float(values.detach().mean()) for name, values in seen.items()}


def _base_batches(
    world: World, base: Base, tokenizer: PreTrainedTokenizerFast, rng: Random
) -> Iterator[Tensor]:
    """Token ids (rows, length) of each step: short rows first, then long ones, without padding."""
    for n_steps, row, n_shots in (
        (base.n_short_steps, base.short_row, 1),
        (base.n_steps - base.n_short_steps, base.long_row, MAX_SHOTS),
    ):
        documents = base_documents(world, rng, max_shots=n_shots)
        tokens = (t for document in documents for t in tokenizer(document + END).input_ids)
        for _ in range(n_steps):
            yield torch.tensor(list(islice(tokens, base.tokens_per_step))).view(-1, row)


def _cosine(step: int, n_steps: int) -> float:
    """Share of the learning rate: a short rise, then half a cosine down to a twentieth."""
    return min(1.0, (step + 1) / 40) * (0.525 + 0.475 * math.cos(math.pi * step / n_steps))


def _chunks(pairs: Sequence[Pair], size: int) -> Iterator[Sequence[Pair]]:
    for at in range(0, len(pairs), size):
        yield pairs[at : at + size]
