"""Which of a task's items an imported document is: told by what it says, never by its place."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

Documents = Mapping[int, Mapping[str, Any]]


def match(documents: Documents, items: Documents) -> dict[int, int]:
    """The item of each document that is one of the items.

    A document is an item if all its fields are the same; where one side has fields that the other
    lacks (harnesses add some), if all that both sides have are. These must hold some text, not
    ids and numbers only, and tell the items apart. Items that are alike in every field are taken in
    order.
    """
    if not documents or not items:
        return {}
    exact = _match(_keyed(documents, None), _keyed(items, None))
    if len(exact) == len(documents):
        return exact
    shared = set.intersection(*(set(one) for one in (*documents.values(), *items.values())))
    by_item = _keyed(items, shared)
    if not shared or any(len(alike) > 1 for alike in by_item.values()):
        return exact
    by_document = {
        key: ids
        for key, ids in _keyed(documents, shared).items()
        if _has_text([documents[ids[0]][name] for name in shared])
    }
    return max(exact, _match(by_document, by_item), key=len)


def _keyed(documents: Documents, names: set[str] | None) -> dict[str, list[int]]:
    """Documents by what their fields say."""
    found: dict[str, list[int]] = defaultdict(list)
    for number, fields in sorted(documents.items()):
        kept = fields if names is None else {name: fields[name] for name in names}
        found[json.dumps(kept, sort_keys=True, default=str)].append(number)
    return found


def _match(documents: Mapping[str, list[int]], items: Mapping[str, list[int]]) -> dict[int, int]:
    return {
        document: item
        for key, several in documents.items()
        for document, item in zip(several, items.get(key, ()), strict=False)
    }


def _has_text(value: Any) -> bool:
    """Whether a word and another stand anywhere in it."""
    if isinstance(value, str):
        return len(value.split()) > 1
    if isinstance(value, dict):
        return _has_text(list(value.values()))
    return isinstance(value, list) and any(map(_has_text, value))
