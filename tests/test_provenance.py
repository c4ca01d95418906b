"""How methods are written; where they are read from is in test_checkpoints.py."""

import pytest

from prefbench.provenance import canonical_method
from prefbench.records import METHODS


@pytest.mark.parametrize("name", METHODS)
def test_method_names_and_how_tables_write_them(name):
    assert canonical_method(name) == canonical_method(METHODS[name]) == name


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ("slic_hf", "slic"),
        ("SLiC-HF", "slic"),
        ("ul", "unlikelihood"),
        ("pythia-ul-seed1", "unlikelihood"),
        ("dpo-positive", "dpop"),
        ("smaug-72b", "dpop"),
        ("dpop_beta0.3", "dpop"),
        ("ipo_mean", "ipo"),
        ("ipo_sum", "ipo"),
        ("dpo+exmate", "dpo_exmate"),
        ("run_dpo_exmate_2", "dpo_exmate"),
        ("exmate-token", "exmate_token"),
        ("llama-sft-dpo", "dpo"),
        ("sft-base", "sft"),
        ("mle", "sft"),
        ("pretrained", "base"),
        ("dpology", None),
        ("ultra", None),
        ("baseline", None),
        ("dpo-vs-ipo", None),
        ("", None),
    ],
)
def test_method_words(text, method):
    assert canonical_method(text) == method
