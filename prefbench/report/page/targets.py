"""What the data know of an item: which text is right, which is chosen, what the answer is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment


def roles_of(config: Mapping[str, Any], fields: Mapping[str, Any], n: int) -> list[str]:
    """For each of n texts `chosen` or `rejected`, `right`, or nothing."""
    if isinstance(fields.get("chosen"), list) and "rejected" in fields:
        n_chosen = len(fields["chosen"])
        return ["chosen"] * n_chosen + ["rejected"] * (n - n_chosen)
    target = _target(config, fields) if n > 1 else None
    right = int(target) if target is not None and re.fullmatch(r"\d{1,4}", target) else None
    return ["right" if i == right else "" for i in range(n)]


def target_of(
    config: Mapping[str, Any], fields: Mapping[str, Any], texts: Sequence[str]
) -> str | None:
    """The answer that the data have, where the item is answered with a text of one's own."""
    if texts:
        return None
    return _target(config, fields) or None


def _target(config: Mapping[str, Any], fields: Mapping[str, Any]) -> str | None:
    """lm-eval's `doc_to_target`: a field's name, a number or a template; None if it is none."""
    wanted = config.get("doc_to_target")
    if isinstance(wanted, int):
        return str(wanted)
    if not isinstance(wanted, str):
        return None
    if wanted in fields:
        return None if fields[wanted] is None else str(fields[wanted])
    try:
        return _template(wanted).render(**fields)
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError):
        return None  # a template that wants lm-eval's own filters, or another field


@lru_cache(maxsize=64)
def _template(text: str) -> Template:
    """Sandboxed: a results directory may come from anywhere."""
    return ImmutableSandboxedEnvironment(keep_trailing_newline=True).from_string(text)
