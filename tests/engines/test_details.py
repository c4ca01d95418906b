"""What scoring keeps beside sums: every token's log-prob, and the hidden states' inner products."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prefbench.engines.base import TokenRequest
from tests.engines.test_scoring import draw, few_shot_requests, model_at, plain_scorer, scorer_of


@pytest.fixture(params=["llama", "gpt2"])
def model(request, path):
    return model_at(path(request.param))


def by_hand(model, request):
    """Token log-probs and the sum of the states that predict them, one text at a time."""
    ids = torch.tensor([[*request.context, *request.continuation]])
    n = len(request.continuation)
    with torch.no_grad():
        output = model(input_ids=ids[:, :-1], output_hidden_states=True)
    logps = output.logits[0, -n:].double().log_softmax(-1)
    tokens = logps.gather(1, ids[0, -n:, None])[:, 0]
    return tokens.tolist(), output.hidden_states[-1][0, -n:].double().sum(0).numpy()


def low_edit_requests():
    """Two answers that differ in one token in the middle, and two that share nothing."""
    rng = np.random.default_rng(3)
    prompt, answer = draw(rng, 12), draw(rng, 14)
    other = [*answer[:6], (answer[6] + 1) % 250, *answer[7:]]
    texts = [answer, other, draw(rng, 9), draw(rng, 1)]
    return [TokenRequest(prompt, text) for text in texts]


@pytest.mark.parametrize("kind", [scorer_of, plain_scorer])
def test_tokens_and_states_are_those_of_each_text_by_itself(model, kind):
    asked = low_edit_requests()
    scorer = kind(model)
    found = scorer.score(asked, details=True)
    for one, request in zip(found, asked, strict=True):
        tokens, states = by_hand(model, request)
        assert one.tokens == pytest.approx(tokens, abs=1e-4)
        assert sum(one.tokens) == pytest.approx(one.logp, abs=1e-9)
        assert one.states == pytest.approx(states, abs=1e-3)


def test_details_change_no_sum_and_are_cut_into_rows_of_any_size(model):
    asked = few_shot_requests()
    whole = scorer_of(model).score(asked)
    for tokens in (None, 24):
        found = scorer_of(model, tokens=tokens).score(asked, details=True)
        assert [one.logp for one in found] == pytest.approx([one.logp for one in whole], abs=1e-4)
        assert [len(one.tokens) for one in found] == [len(one.continuation) for one in asked]
        sums = [sum(one.tokens) for one in found]
        assert sums == pytest.approx([one.logp for one in found], abs=1e-9)


def test_without_details_nothing_is_kept(model):
    scorer = scorer_of(model)
    found = scorer.score(low_edit_requests())
    assert all(one.tokens == () and one.states is None for one in found)
    assert not model.get_output_embeddings()._forward_pre_hooks


def test_a_model_without_an_output_layer_of_its_own_has_no_states(model, monkeypatch):
    monkeypatch.setattr(type(model), "get_output_embeddings", lambda self: None)
    found = scorer_of(model).score(low_edit_requests(), details=True)
    assert all(one.states is None and one.tokens for one in found)
