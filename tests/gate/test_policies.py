from __future__ import annotations

from pathlib import Path

import pytest

from prefbench.errors import InputError
from prefbench.gate.policies import Amount, Policy, Rule, matches, read_policy


def read(text: str, tmp_path: Path) -> Policy:
    file = tmp_path / "policy.yaml"
    file.write_text(text, encoding="utf-8")
    return read_policy(file)


def test_a_policy_as_people_write_it(tmp_path: Path) -> None:
    policy = read(
        """
        baseline: sft
        checkpoints: [dpo, "ipo/*"]
        confidence: 0.9
        max_missing: 2%
        rules:
          - {task: gsm8k_5shot, metric: "exact_match,strict-match", max_drop: 2}
          - {task: pairs, metric: perplexity, max_rise: 5%}
          - {task: "*", max_drop: 0.5, max_rise: " 7.5 % "}
          - {task: wins, metric: win_rate, require: better, by: 2, judge: brief}
        """,
        tmp_path,
    )
    assert policy == Policy(
        baseline="sft",
        checkpoints=("dpo", "ipo/*"),
        confidence=0.9,
        max_missing=0.02,
        rules=(
            Rule(task="gsm8k_5shot", metric="exact_match,strict-match", max_drop=Amount(2.0)),
            Rule(task="pairs", metric="perplexity", max_rise=Amount(0.05, relative=True)),
            Rule(task="*", max_drop=Amount(0.5), max_rise=Amount(0.075, relative=True)),
            Rule(task="wins", metric="win_rate", require="better", by=Amount(2.0), judge="brief"),
        ),
    )
    assert [str(rule.max_rise) for rule in policy.rules[1:3]] == ["5%", "7.5%"]
    assert policy.rules[2].metric == "shown"
    assert [rule.names_its_metric for rule in policy.rules] == [True, True, False, True]


RULE = "rules: [{task: a, max_drop: 1}]\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not a mapping of keys to values"),
        ("[]", "is not a mapping of keys to values"),
        ("rules: [", "cannot be read as YAML"),
        ("!!python/object:os.system x", "cannot be read as YAML"),
        ("rules: []", "rules: Tuple should have at least 1 item"),
        ("baseline: sft", "rules: Field required"),
        (RULE + "base: sft", "base: Extra inputs are not permitted"),
        (RULE + "rules: []", "the key 'rules' stands twice"),
        (RULE + "baseline: &a sft\ncheckpoints: [*a]", "a policy has no aliases"),
        (RULE + "confidence: 0.3", "confidence: Input should be greater than or equal to 0.5"),
        (RULE + "confidence: 1", "confidence: Input should be less than 1"),
        (RULE + "max_missing: -1%", "max_missing: is a finite number from 0 on, not '-1%'"),
        (RULE + "max_missing: some", "max_missing: Input should be a valid number"),
        (RULE + "baseline: 7", "baseline: Input should be a valid string"),
        ("rules: [{max_drop: 1}]", "rules.0.task: Field required"),
        ("rules: [{task: a}]", "rules.0: says neither max_drop nor max_rise"),
        ("rules: [{task: a, max_dorp: 1}]", "rules.0.max_dorp: Extra inputs are not permitted"),
        ("rules: [{task: a, max_drop: 0}]", "rules.0.max_drop: must be above 0"),
        ("rules: [{task: a, max_drop: -2}]", "rules.0.max_drop: is a finite number from 0 on"),
        ("rules: [{task: a, max_drop: .nan}]", "rules.0.max_drop: is a finite number from 0 on"),
        ("rules: [{task: a, max_drop: .inf}]", "rules.0.max_drop: is a finite number from 0 on"),
        ("rules: [{task: a, max_drop: yes}]", "rules.0.max_drop: is a number or a percentage"),
        ("rules: [{task: a, max_drop: [1]}]", "rules.0.max_drop: is a number or a percentage"),
        ("rules: [{task: a, max_drop: 2 pt}]", "rules.0.max_drop: is a number or a percentage"),
        (
            "rules: [{task: a, require: better, max_drop: 2}]",
            "rules.0: `require: better` takes `by`",
        ),
        ("rules: [{task: a, max_drop: 2, by: 1}]", "rules.0: by and higher_is_better belong to"),
        (
            "rules: [{task: a, max_drop: 2, higher_is_better: true}]",
            "rules.0: by and higher_is_better belong to",
        ),
        ("rules: [{task: a, require: best}]", "rules.0.require: Input should be 'no_worse' or"),
        ("a: " + "[" * 3000, "cannot be read as YAML|nested too deeply"),
        ("# " + "x" * 70_000, "is larger than 64 KiB"),
    ],
)
def test_what_a_policy_must_not_say(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said) as error:
        read(text, tmp_path)
    assert "policy.yaml" in str(error.value)


def test_a_policy_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml: cannot be read: No such file"):
        read_policy(tmp_path / "none.yaml")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="bytes: cannot be read as YAML"):
        read_policy(tmp_path / "bytes")


def test_names_and_patterns() -> None:
    assert matches("a[1]", "a[1]")
    assert matches("dpo/checkpoint-10", "dpo/*")
    assert not matches("DPO", "dpo")
    assert not matches("dpo2", "dpo")
