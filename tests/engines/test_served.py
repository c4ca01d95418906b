"""Which of the models that an endpoint lists is a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prefbench.engines.base import ServerSettings
from prefbench.engines.served import served_name
from prefbench.errors import EngineError
from prefbench.records import Checkpoint

RUN = Checkpoint("dpo/checkpoint-100", Path("/runs/dpo/checkpoint-100"), "ready")
FINAL = Checkpoint("dpo", Path("/runs/dpo"), "ready")


@pytest.mark.parametrize(
    ("checkpoint", "cards", "name"),
    [
        (FINAL, [{"id": "/runs/dpo"}], "/runs/dpo"),
        (FINAL, [{"id": "x", "root": "/runs/dpo"}, {"id": "dpo", "root": "/runs/sft"}], "x"),
        (FINAL, [{"id": "dpo"}, {"id": "sft"}], "dpo"),
        (FINAL, [{"id": "x", "root": "dpo"}], "x"),
        (FINAL, [{"id": "a", "root": "/runs/dpo"}, {"id": "b", "root": "/runs/dpo/"}], "a"),
        (RUN, [{"id": "dpo/checkpoint-100"}], "dpo/checkpoint-100"),
        (RUN, [{"id": "checkpoint-100"}], None),  # of which run?
        (FINAL, [{"id": "sft"}], None),
        (FINAL, [{"id": "dpo"}, {"id": "y", "root": "dpo"}], None),
        (FINAL, [], None),
    ],
)
def test_what_is_served_as_what(checkpoint: Checkpoint, cards: Any, name: str | None) -> None:
    server = ServerSettings("http://host/v1")
    if name is not None:
        assert served_name(cards, checkpoint, server) == name
        return
    with pytest.raises(EngineError, match=r"not clear .* --served-model") as caught:
        served_name(cards, checkpoint, server)
    assert all(repr(card["id"]) in str(caught.value) for card in cards)
    assert f"--served-model-name {checkpoint.name}" in str(caught.value)


def test_a_name_that_lies_elsewhere_on_this_disk(tmp_path: Path) -> None:
    (tmp_path / "dpo").mkdir()
    with pytest.raises(EngineError, match="not clear"):
        served_name(
            [{"id": "dpo", "root": str(tmp_path / "dpo")}], FINAL, ServerSettings("http://host/v1")
        )
