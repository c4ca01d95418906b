"""YAML that others wrote: read without running anything, and without growing beyond what it says.

PyYAML's safe loader runs nothing, but an alias costs it nothing either: ten short lines of lists of
aliases are a billion values to whoever prints, compares or hashes them, and a merge (`<<`) of such
lists copies them even while it is read.
"""

from __future__ import annotations

from typing import Any

import yaml

MOST_NODES = 100_000
"""Values that a document may hold, with all that its aliases stand for."""
N_CHARACTERS = 1 << 20
"""Most that a document may take: PyYAML reads about as many in ten seconds."""


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader, that counts values as if each alias were written out."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.n_nodes = 0
        self.sizes: dict[str, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs' gap
        before = self.n_nodes
        alias = isinstance(event, yaml.AliasEvent)
        if alias and event.anchor in self.anchors and event.anchor not in self.sizes:
            raise yaml.MarkedYAMLError(None, None, "a value holds itself", event.start_mark)
        self.n_nodes += self.sizes.get(event.anchor, 1) if alias else 1
        if self.n_nodes > MOST_NODES:
            said = f"more than {MOST_NODES} values, with those that aliases stand for"
            raise yaml.MarkedYAMLError(None, None, said, event.start_mark)
        node = super().compose_node(parent, index)
        if not alias and event.anchor is not None:
            self.sizes[event.anchor] = self.n_nodes - before
        return node

    def construct_scalar(self, node: Any) -> Any:
        text = super().construct_scalar(node)
        if isinstance(text, str) and any("\ud800" <= sign <= "\udfff" for sign in text):
            raise yaml.MarkedYAMLError(None, None, "half a character", node.start_mark)
        return text


def load(text: str, loader: type[Loader] = Loader) -> Any:
    """What a document says.

    Raises:
        yaml.YAMLError: it is no YAML, or too much; PyYAML's own errors for values that are not what
            they look like (`2001-99-99`, `!!int ""`) are of many kinds.
    """
    if len(text) > N_CHARACTERS:
        raise yaml.YAMLError(f"more than {N_CHARACTERS} characters")
    try:
        return yaml.load(text, Loader=loader)
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise yaml.YAMLError(f"a value is not what it looks like: {error}") from error
