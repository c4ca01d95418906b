from __future__ import annotations

import sys
from pathlib import Path

import pytest

from prefbench.engines.templates import try_template
from prefbench.errors import EngineError

ENDLESS = "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (ENDLESS, "takes more than 5 s"),
        ("{{ 'a' * 2000000 }}", "writes more than 1000000 characters"),
        ("{{ 'a' * 2000000000 }}", "takes more than 1024 MiB"),
    ],
)
def test_a_template_that_runs_on_or_grows_is_refused(template: str, said: str) -> None:
    with pytest.raises(EngineError, match=f"its chat template {said}"):
        try_template(template)


@pytest.mark.parametrize("template", ["{{ messages[0].content }}", "{{ nothing.of.it }}", "{% if"])
def test_what_else_is_wrong_is_left_to_who_uses_it(template: str) -> None:
    try_template(template)


def test_a_template_that_cannot_be_tried_is_not_taken_for_harmless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'no room' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(EngineError, match="its chat template cannot be tried: no room"):
        try_template("{{ messages[0].content }} once")


def test_nothing_is_imported_from_where_it_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jinja2.py").write_text("open('ran', 'w')")
    monkeypatch.chdir(tmp_path)
    try_template("{{ messages[0].content }} here")
    assert not (tmp_path / "ran").exists()
