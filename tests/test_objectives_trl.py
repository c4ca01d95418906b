"""Objectives against TRL's own code: its real DPO trainer, and its CPO and ORPO loss methods."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from prefbench.objectives import OBJECTIVES, PairLogps, dpo, orpo, simpo

trl = pytest.importorskip("trl")

# TRL still uses names that transformers 5 has renamed.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`(is_)?gradient_checkpointing` is deprecated:FutureWarning"
)

WORDS = "abcdefghijklmnop"
PROMPT, CHOSEN, REJECTED = [3, 4, 11], [5, 6, 7, 8, 9, 2], [5, 10, 2]


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    """A real trainer on one pair, with a policy and a reference that differ."""
    from datasets import Dataset
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="a"))
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
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
        eos_token_id=2,
    )
    torch.manual_seed(0)
    policy, reference = LlamaForCausalLM(shape), LlamaForCausalLM(shape)
    prompt, chosen, rejected = (
        " ".join(WORDS[i] for i in ids) for ids in (PROMPT, CHOSEN[:-1], REJECTED[:-1])
    )
    return trl.DPOTrainer(
        policy,
        reference,
        args=trl.DPOConfig(
            str(tmp_path_factory.mktemp("trl")), use_cpu=True, bf16=False, report_to="none"
        ),
        train_dataset=Dataset.from_list(
            [{"prompt": prompt + " ", "chosen": chosen, "rejected": rejected}]
        ),
        processing_class=tokenizer,
    )


def response_logps(model) -> PairLogps:
    """Log-probs of the pair under a model, by its plain forward pass."""

    def tokens(response):
        ids = torch.tensor([PROMPT + response])
        with torch.no_grad():
            logps = model(input_ids=ids).logits.log_softmax(-1)
        steps = range(len(PROMPT), ids.shape[1])
        return torch.stack([logps[0, t - 1, ids[0, t]] for t in steps])[None]

    chosen, rejected = tokens(CHOSEN), tokens(REJECTED)
    counts = torch.tensor([len(CHOSEN)]), torch.tensor([len(REJECTED)])
    return PairLogps(chosen.sum(1), rejected.sum(1), *counts, chosen, rejected)


@pytest.mark.parametrize(
    ("loss_types", "settings", "objective", "parameters"),
    [
        ("sigmoid", {"beta": 0.3}, "dpo", {"beta": 0.3}),
        ("hinge", {"beta": 0.03}, "hinge", {"gamma": 0.03}),
        ("ipo", {"beta": 0.2}, "ipo_mean", {"tau": 0.2}),
        ("sppo_hard", {"beta": 0.2}, "sppo", {"beta": 0.2}),
        ("sft", {}, "sft", {"form": "mean"}),
        (
            "sigmoid sft",
            {"beta": 0.3, "loss_weights": [1.0, 0.7]},
            "dpo_nll",
            {"beta": 0.3, "alpha": 0.7},
        ),
    ],
)
def test_dpo_trainer(trainer, monkeypatch, loss_types, settings, objective, parameters):
    settings = {"loss_types": loss_types.split(), "loss_weights": [1.0], **settings}
    for name, value in settings.items():
        monkeypatch.setattr(trainer, name, value)
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["input_ids"][0].tolist()[: len(PROMPT + CHOSEN)] == PROMPT + CHOSEN
    with torch.no_grad():
        theirs = trainer.compute_loss(trainer.model, batch).item()
    ours = OBJECTIVES[objective](
        response_logps(trainer.model), response_logps(trainer.ref_model), **parameters
    )
    assert theirs == pytest.approx(ours.item(), rel=1e-5)


UNIT = PairLogps(*(torch.tensor([v]) for v in (-13.0, -13.5, 8.0, 11.0)))


@pytest.fixture
def experimental(monkeypatch):
    """TRL's experimental trainers, without the notice that they are experimental."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl.experimental import cpo
    from trl.experimental import orpo as orpo_module

    return SimpleNamespace(cpo=cpo.CPOTrainer, orpo=orpo_module.ORPOTrainer)


def settings(**values):
    """What a loss method reads of its trainer."""
    return SimpleNamespace(accelerator=SimpleNamespace(device=torch.device("cpu")), **values)


def test_cpo_trainer_has_the_same_simpo(experimental):
    cpo = settings(alpha=0.0, loss_type="simpo", beta=2.5, simpo_gamma=1.4, label_smoothing=0.0)
    means = UNIT.chosen / UNIT.n_chosen, UNIT.rejected / UNIT.n_rejected
    theirs, *_ = experimental.cpo.cpo_loss(cpo, *means)
    torch.testing.assert_close(simpo(UNIT, beta=2.5, gamma=1.4), theirs)


def test_cpo_trainer_has_the_same_smoothing(experimental):
    cpo = settings(alpha=0.0, loss_type="sigmoid", beta=0.3, label_smoothing=0.2)
    reference = UNIT._replace(chosen=torch.tensor([-12.0]), rejected=torch.tensor([-14.0]))
    ratios = UNIT.chosen - reference.chosen, UNIT.rejected - reference.rejected
    theirs, *_ = experimental.cpo.cpo_loss(cpo, *ratios)
    torch.testing.assert_close(dpo(UNIT, reference, beta=0.3, label_smoothing=0.2), theirs)


def test_orpo_trainer_has_the_same_odds_ratio_term(experimental):
    """TRL's likelihood term also covers the prompt; the odds-ratio term is compared alone."""
    means = UNIT.chosen / UNIT.n_chosen, UNIT.rejected / UNIT.n_rejected
    gain, *_ = experimental.orpo.odds_ratio_loss(settings(beta=0.4), *means)
    torch.testing.assert_close(orpo(UNIT, lambda_=0.4) - orpo(UNIT, lambda_=0.0), -gain)
