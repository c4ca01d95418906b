"""Text that others wrote, made so that a reader sees what it would otherwise do in secret."""

from __future__ import annotations

import unicodedata

HARMLESS = "\u200c\u200d"
"""Invisible, but letters and emoji are joined by them, and they move nothing."""
CONTROLS = (
    "NUL SOH STX ETX EOT ENQ ACK BEL BS TAB LF VT FF CR SO SI "
    "DLE DC1 DC2 DC3 DC4 NAK SYN ETB CAN EM SUB ESC FS GS RS US"
)
NAMES = {**dict(enumerate(CONTROLS.split())), 0x7F: "DEL"}
"""Of control characters, as words: many fonts lack the symbols of U+2400 and following."""
HIDDEN = frozenset(("Cc", "Cf", "Cs", "Co", "Zl", "Zp"))
"""Unicode's categories of signs that steer, that reorder or that show nothing."""


def visible(text: str) -> str:
    """The text with control, direction and invisible signs written out: ⟨ESC⟩, ⟨U+202E⟩.

    The page's scripts do the same to what they show; only there line ends and tabs stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_sign(c) if _is_hidden(c) else c for c in text)


def _is_hidden(sign: str) -> bool:
    return unicodedata.category(sign) in HIDDEN and sign not in HARMLESS


def _sign(sign: str) -> str:
    code = ord(sign)
    return f"⟨{NAMES.get(code) or f'U+{code:04X}'}⟩"
