"""A run's log beside measurements: a real TRL trainer's, and logs that are made up to be wrong."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from prefbench.doctor.run_log import examine_run
from prefbench.doctor.training_log import find_log, read_log
from prefbench.errors import InputError
from prefbench.leaderboard import Gathered, Group, Measured
from prefbench.measures.margins import PairAnswers, margins_of
from prefbench.metrics import metrics_of
from prefbench.records import Answer, Checkpoint

TRL = (
    "logps/chosen",
    "logps/rejected",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
)
LETTERS = "abcdefghijklmnop"
BETA, END, BATCH = 0.25, 2, 4


def by_name(findings):
    return {(one.group, one.name): one for one in findings}


# --- a real trainer's log


class Trained:
    """Two steps of TRL's DPOTrainer, evaluated after each on two sets of pairs."""

    def __init__(self, folder: Path) -> None:
        trl = pytest.importorskip("trl")
        import torch
        from datasets import Dataset
        from tokenizers import Tokenizer
        from tokenizers.models import WordLevel
        from tokenizers.pre_tokenizers import Whitespace
        from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

        words = Tokenizer(WordLevel({w: i for i, w in enumerate(LETTERS)}, unk_token="a"))
        words.pre_tokenizer = Whitespace()
        self.tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=words, unk_token="a", pad_token="b", eos_token="c"
        )
        shape = LlamaConfig(
            vocab_size=16,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            initializer_range=1.0,
            pad_token_id=1,
            bos_token_id=None,
            eos_token_id=END,
        )
        rng = random.Random(0)

        def pairs(n):
            def text(longest):
                return " ".join(rng.choice(LETTERS[3:]) for _ in range(rng.randint(1, longest)))

            return [
                {"prompt": text(3) + " ", "chosen": text(6), "rejected": text(6)} for _ in range(n)
            ]

        # Ten and seven pairs in batches of four: the last batch is smaller than the others.
        self.sets = {"near": pairs(10), "far": pairs(7)}
        torch.manual_seed(0)
        policy, self.reference = LlamaForCausalLM(shape), LlamaForCausalLM(shape)
        self.run = folder / "dpo"
        trl.DPOTrainer(
            policy,
            self.reference,
            args=trl.DPOConfig(
                str(self.run),
                beta=BETA,
                use_cpu=True,
                bf16=False,
                report_to="none",
                max_steps=2,
                learning_rate=1e-2,
                eval_strategy="steps",
                eval_steps=1,
                logging_steps=1,
                save_steps=1,
                per_device_train_batch_size=BATCH,
                per_device_eval_batch_size=BATCH,
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list(pairs(8)),
            eval_dataset={name: Dataset.from_list(rows) for name, rows in self.sets.items()},
            processing_class=self.tokenizer,
        ).train()

    def answers(self, model, rows):
        """What a model gives for pairs, by plain forward passes of one text each."""
        import torch

        given = []
        for i, row in enumerate(rows):
            prompt = self.tokenizer(row["prompt"]).input_ids
            ids, logps = [], []
            for key in ("chosen", "rejected"):
                text = [*self.tokenizer(row[key]).input_ids, END]
                with torch.no_grad():
                    logits = model(input_ids=torch.tensor([prompt + text])).logits[0]
                every = logits.double().log_softmax(-1)[len(prompt) - 1 : -1]
                ids.append(tuple(text))
                logps.append(tuple(every[range(len(text)), text].tolist()))
            given.append(
                Answer(
                    i,
                    logps=tuple(map(sum, logps)),
                    n_tokens=tuple(map(len, ids)),
                    token_ids=tuple(ids),
                    token_logps=tuple(logps),
                )
            )
        return given

    def margins(self, step, rows, *, beta=BETA, reference=None):
        from transformers import LlamaForCausalLM

        policy = LlamaForCausalLM.from_pretrained(self.run / f"checkpoint-{step}").eval()
        both = (self.answers(model, rows) for model in (policy, reference or self.reference))
        pairs = [PairAnswers(*one, 1) for one in zip(*both, strict=True)]
        return margins_of(pairs, beta=beta, objectives=["dpo"])

    def gathered(self, rows, *, steps=(1, 2), **settings):
        found = {step: self.margins(step, rows, **settings) for step in steps}
        return gathered(self.run, {step: columns(found[step]) for step in steps})


def columns(found):
    return {name: np.array([one[name] for one in found]) for name in found[0]}


def gathered(run, by_step, task="pairs"):
    """What was measured of a run's checkpoints."""
    rows = [
        Checkpoint(f"dpo/checkpoint-{step}", run / f"checkpoint-{step}", "ready", step=step)
        for step in by_step
    ]
    measured = []
    for row, quantities in zip(rows, by_step.values(), strict=True):
        n = len(next(iter(quantities.values())))
        items = np.arange(n, dtype=np.int32)
        measured.append(Measured(row.name, task, items, items.astype(object), quantities))
    return Gathered(tuple(rows), (Group(task, task),), tuple(measured))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return Trained(tmp_path_factory.mktemp("trl"))


def test_margins_are_what_a_trl_trainer_logs(trained):
    """Number by number: batch by batch, as its evaluation takes the mean of its batches' means."""
    sets = read_log(find_log(trained.run)).sets
    assert set(sets) == {"training", "eval_near", "eval_far"}
    for name, rows in trained.sets.items():
        for entry in sets[f"eval_{name}"]:
            found = margins_by_batch(trained.margins(entry.step, rows))
            assert {**entry.values} == pytest.approx(found, abs=1e-3, rel=1e-4)
            assert len(rows) in entry.n_pairs


def margins_by_batch(found):
    batches = [found[i : i + BATCH] for i in range(0, len(found), BATCH)]
    means = {
        name: np.mean([np.mean([one[name] for one in batch]) for batch in batches]) for name in TRL
    }
    # The loss alone is transformers' own: a mean over pairs.
    losses = [np.logaddexp(0, -one["rewards/margins"]) for one in found]
    return {**means, "loss": np.mean(losses)}


@pytest.mark.parametrize("name", ["near", "far"])
def test_the_doctor_finds_agreement_with_a_trl_trainer(trained, name):
    rows = trained.sets[name]
    findings = examine_run(trained.run, trained.gathered(rows))
    assert {one.state for one in findings} == {"ok"}
    for step in (1, 2):
        one = by_name(findings)["measured", f"pairs, dpo/checkpoint-{step}"]
        assert one.detail.startswith(f"eval_{name}, {len(rows)} pairs: all agree within 0.001")
        assert set(one.facts["logged"]) == set(TRL)
    betas = [one for one in findings if one.name == "β"]
    assert [one.facts["beta"] for one in betas] == pytest.approx([BETA, BETA], rel=1e-3)


def test_one_checkpoint_of_a_run_has_its_own_log(trained):
    folder = trained.run / "checkpoint-1"
    findings = examine_run(folder, trained.gathered(trained.sets["near"]))
    measured = [one.name for one in findings if one.group == "measured"]
    assert measured == ["pairs, dpo/checkpoint-1"]
    assert read_log(find_log(folder)).sets["training"][-1].step == 1


def test_another_beta_is_told_as_such(trained):
    findings = examine_run(trained.run, trained.gathered(trained.sets["near"], beta=0.1))
    one = by_name(findings)["measured", "pairs, dpo/checkpoint-2"]
    assert one.state == "ok"
    assert "rewards at the run's β of 0.25, where the task has 0.1" in one.detail


def test_another_reference_is_found_out(trained):
    from transformers import LlamaForCausalLM

    other = LlamaForCausalLM.from_pretrained(trained.run / "checkpoint-1").eval()
    measured = trained.gathered(trained.sets["near"], steps=(2,), reference=other)
    one = by_name(examine_run(trained.run, measured))["measured", "pairs, dpo/checkpoint-2"]
    assert one.state == "broken"
    assert one.fails
    assert "log-probs agree, and rewards do not: rewards/chosen" in one.detail


def test_as_many_other_pairs_are_not_held_against_it(trained):
    rows = [{**row, "chosen": row["chosen"] + " d"} for row in trained.sets["near"]]
    findings = examine_run(trained.run, trained.gathered(rows))
    one = by_name(findings)["measured", "pairs, dpo/checkpoint-2"]
    assert one.state == "unknown"
    assert "eval_near, 10 pairs too, but logps/chosen" in one.detail
    assert "logps/rejected" not in one.detail
    assert not one.fails


def test_fewer_pairs_are_compared_by_sign_and_trend_alone(trained):
    findings = examine_run(trained.run, trained.gathered(trained.sets["near"][:9]))
    one = by_name(findings)["measured", "pairs, dpo/checkpoint-2"]
    assert "a mean over other pairs" in one.detail
    assert "agree" not in one.detail


# --- logs that are made up


def log(run, entries, step=2):
    run.mkdir(parents=True, exist_ok=True)
    (run / "trainer_state.json").write_text(
        json.dumps({"global_step": step, "log_history": entries})
    )
    return run


GOOD = {
    "logps/chosen": -10.0,
    "logps/rejected": -20.0,
    "rewards/chosen": -0.5,
    "rewards/rejected": -1.5,
    "rewards/margins": 1.0,
    "rewards/accuracies": 0.75,
    "loss": 0.4,
}


@pytest.mark.parametrize(
    ("change", "name", "fault"),
    [
        ({"rewards/margins": 2.0}, "margins", "rewards/margins is 2, and rewards/chosen − rewards"),
        ({"rewards/accuracies": 1.2}, "accuracies", "rewards/accuracies is 1.2"),
        ({"logps/chosen": 3.5}, "log-probs", "logps/chosen is 3.5"),
        ({"loss": float("nan")}, "numbers", "loss is no finite number"),
        ({"rewards/chosen": float("-inf")}, "numbers", "rewards/chosen is no finite number"),
    ],
)
def test_what_a_log_says_against_itself(tmp_path, change, name, fault):
    run = log(tmp_path / "run", [{**GOOD, "step": 1}, {**GOOD, **change, "step": 2}])
    found = by_name(examine_run(run, None))
    one = found["log", name]
    assert (one.state, one.fails) == ("broken", True)
    assert one.detail.startswith(f"training at step 2: {fault}")
    others = [other for key, other in found.items() if key[0] == "log" and other is not one]
    assert {other.state for other in others} == {"ok"}


def test_a_sound_log_without_measurements_says_what_to_run(tmp_path):
    run = log(tmp_path / "a run", [{**GOOD, "step": 1}])
    findings = examine_run(run, None)
    assert [one.state for one in findings] == ["ok"] * 5 + ["missing"]
    assert findings[-1].fix == f"prefbench run '{run}' --suite preference"
    assert not any(one.fails for one in findings)
    assert examine_run(run, Gathered((), (), ())) == findings


def test_a_log_of_something_else_has_nothing_to_compare(tmp_path):
    run = log(tmp_path / "run", [{"loss": 1.0, "step": 1}, {"train_loss": 1.0, "step": 1}])
    [one] = examine_run(run, None)
    assert (one.state, one.fails) == ("unused", False)
    assert "1 entries of training to step 1" in one.detail


def test_rewards_of_no_one_beta_are_doubted(tmp_path):
    evaluated = [
        {**{f"eval_{key}": value for key, value in GOOD.items()}, "step": 1},
        {
            **{f"eval_{key}": value for key, value in GOOD.items()},
            **{"eval_logps/chosen": -12.0, "eval_rewards/chosen": -0.7},  # 0.1 a nat
            **{"eval_logps/rejected": -21.0, "eval_rewards/rejected": -1.9},  # 0.4 a nat
            **{"eval_rewards/margins": 1.2, "step": 2},
        },
    ]
    one = by_name(examine_run(log(tmp_path / "run", evaluated), None))["log", "β"]
    assert one.state == "unknown"
    assert "0.1 by the chosen, 0.4 by the rejected" in one.detail


def measured_values(n=200, **means):
    rng = np.random.default_rng(0)
    return {name: mean + 0.1 * rng.normal(size=n) for name, mean in means.items()}


def test_training_batches_are_compared_by_sign_interval_and_trend(tmp_path):
    logged = [(1, -0.1, -0.2, -9.1), (3, -0.12, -0.25, -8.9), (5, -0.1, -0.2, -9.0)]
    logged += [(8, 0.05, -0.5, -8.6), (10, 0.2, -0.7, -8.3), (12, 0.3, -0.9, -8.0)]
    names = "step", "rewards/chosen", "rewards/rejected", "logps/chosen"
    run = log(tmp_path / "run", [dict(zip(names, each, strict=True)) for each in logged])
    first = {"rewards/chosen": -0.1, "rewards/rejected": -0.2, "logps/chosen": -30.0}
    later = {"rewards/chosen": -0.5, "rewards/rejected": -0.89, "logps/chosen": -29.0}
    given = gathered(run, {5: measured_values(**first), 13: measured_values(**later)})
    found = by_name(examine_run(run, given))
    first = found["measured", "pairs, dpo/checkpoint-5"]
    assert first.state == "ok"
    assert first.detail.count("(inside)") == 2
    second = found["measured", "pairs, dpo/checkpoint-13"]
    assert second.detail.startswith("training at step 12, a mean over other pairs: ")
    assert second.state == "unknown"
    told = dict(part.split(" ", 1) for part in second.detail.partition(": ")[2].split("; "))
    assert "(other sign), measured down from step 5, logged the other way" in told["rewards/chosen"]
    assert "(inside), measured down from step 5, logged too" in told["rewards/rejected"]
    # Log-probs of other texts are of another size, which says nothing; how they moved does.
    assert told["logps/chosen"] == "measured up from step 5, logged too"


def test_a_step_of_the_log_that_is_noise_is_no_trend(tmp_path):
    """Batches have other pairs each time: what they differ by says nothing of the checkpoint."""
    rng = np.random.default_rng(0)
    entries = [
        {"rewards/rejected": -0.6 + 0.1 * rng.normal(), "step": step} for step in range(1, 31)
    ]
    entries[9]["rewards/rejected"], entries[29]["rewards/rejected"] = -0.65, -0.6
    run = log(tmp_path / "run", entries)
    values = {
        10: measured_values(**{"rewards/rejected": -0.2}),
        30: measured_values(**{"rewards/rejected": -0.3}),
    }
    one = by_name(examine_run(run, gathered(run, values)))["measured", "pairs, dpo/checkpoint-30"]
    assert one.state == "ok"
    assert "measured down" not in one.detail


def test_pairs_without_a_reference_have_log_probs_to_compare(tmp_path):
    entry = {
        **{f"eval_{key}": value for key, value in GOOD.items()},
        **{"eval_runtime": 2.0, "eval_samples_per_second": 100.0, "step": 3},
    }
    run = log(tmp_path / "run", [entry])
    quantities = {
        "text_logp_chosen": np.full(200, -10.0),
        "text_logp_rejected": np.full(200, -20.0),
    }
    [one] = [o for o in examine_run(run, gathered(run, {3: quantities})) if o.group == "measured"]
    assert one.state == "ok"
    assert set(one.facts["logged"]) == {"logps/chosen", "logps/rejected"}


def test_a_step_before_all_that_is_logged(tmp_path):
    run = log(tmp_path / "run", [{**GOOD, "step": 10}])
    given = gathered(run, {5: measured_values(**{"rewards/chosen": 1.0})})
    [one] = [o for o in examine_run(run, given) if o.group == "measured"]
    assert (one.state, one.detail) == ("unknown", "nothing is logged at step 5 or before it")


def test_checkpoints_of_other_runs_are_left_out(tmp_path):
    run = log(tmp_path / "run", [{**GOOD, "step": 5}])
    given = gathered(tmp_path / "other", {5: measured_values(**{"rewards/chosen": 1.0})})
    assert [one.state for one in examine_run(run, given)][-1] == "missing"


def test_a_resumed_run_counts_what_it_said_last(tmp_path):
    run = log(tmp_path / "run", [{**GOOD, "step": 5}, {**GOOD, "loss": 0.1, "step": 5}])
    [entry] = read_log(find_log(run)).sets["training"]
    assert entry.values["loss"] == 0.1


def test_the_run_s_last_checkpoint_has_its_log(tmp_path):
    for step in (9, 30):
        log(tmp_path / "run" / f"checkpoint-{step}", [{**GOOD, "step": step}])
    (tmp_path / "run" / "checkpoint-best").mkdir()
    assert find_log(tmp_path / "run").parent.name == "checkpoint-30"


HOSTILE = [
    [],
    {"log_history": {}},
    {"log_history": [None, 5, {"step": "1"}, {"step": True}, {"rewards/chosen": 1.0}]},
    {"log_history": [{"step": 1.5, "rewards/chosen": 1}, {"step": 1e400, "loss": 1}]},
    {"log_history": [{"step": 1, "rewards/chosen": "x", "rewards/margins": [1], "loss": None}]},
    {"log_history": [{"step": 1, "eval_rewards/chosen": 10**400, "eval_runtime": 1e308}]},
    {"log_history": [{"step": 1, "eval_\u001b[31m_rewards/chosen": 1.0, "eval_runtime": -1}]},
]


@pytest.mark.parametrize("state", HOSTILE, ids=range(len(HOSTILE)))
def test_a_state_of_any_form_is_told_and_not_stumbled_over(tmp_path, state):
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    findings = examine_run(tmp_path, gathered(tmp_path, {1: measured_values(**GOOD)}))
    assert findings[0].group == "log"


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InputError, match="no such directory; give a training run's"):
        examine_run(tmp_path / "none", None)
    [one] = examine_run(tmp_path, None)
    assert (one.state, one.fails) == ("missing", True)
    (tmp_path / "trainer_state.json").write_text("{")
    [one] = examine_run(tmp_path, None)
    assert (one.state, one.fails) == ("broken", True)
    assert str(tmp_path / "trainer_state.json") in one.detail


def test_the_demo_s_trainer_logs_what_agrees_with_itself(small_zoo, tmp_path):
    run = tmp_path / "dpo"
    shutil.copytree(small_zoo / "checkpoints" / "dpo", run)
    findings = examine_run(run, None)
    assert {one.state for one in findings if one.group == "log"} == {"ok"}
    assert [one.name for one in findings][:3] == ["trainer_state.json", "numbers", "margins"]


def test_the_names_are_those_of_the_metrics():
    assert set(metrics_of({"sum_logp_chosen", *TRL}, {})) == {*TRL}
