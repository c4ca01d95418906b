"""Text as LaTeX source that prints what the text says and does nothing else."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping

from prefbench.report.layout import plain
from prefbench.report.paper.caption import shortened

LONG = 20
"""Signs without a space after which a line may break all the same."""

_SIGNS: Mapping[str, str] = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "_": r"\_", "%": r"\%", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    # Some languages of babel let the plain sign act.
    '"': r"\symbol{34}", "`": r"\`{}",
    # Behind \\ a plain one would belong to it.
    "[": "{[}", "*": "{*}",
    "‘": r"\textquoteleft{}", "’": r"\textquoteright{}",
    "“": r"\textquotedblleft{}", "”": r"\textquotedblright{}",
    "–": r"\textendash{}", "—": r"\textemdash{}", "‐": "-", "‑": "-", "…": r"\dots{}",
    "¡": r"\textexclamdown{}", "¿": r"\textquestiondown{}", "©": r"\textcircled{c}",
    "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}",
    "ø": r"\o{}", "Ø": r"\O{}", "ł": r"\l{}", "Ł": r"\L{}", "å": r"\aa{}", "Å": r"\AA{}",
    "ı": r"\i{}", "ȷ": r"\j{}",
    # TeX's oldest fonts, which a paper may use, have none of these.
    "đ": "d", "Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "ŋ": "ng", "Ŋ": "Ng",
    "ħ": "h", "Ħ": "H",
}  # fmt: skip

_LIKE_LATIN = zip("ΑΒΕΖΗΙΚΜΝΟΡΤΧο", "ABEZHIKMNOPTXo", strict=True)

_MATH: Mapping[str, str] = {
    "−": "-", "±": r"\pm", "×": r"\times", "÷": r"\div", "·": r"\cdot", "¬": r"\neg",
    "≤": r"\leq", "≥": r"\geq", "≠": r"\neq", "≈": r"\approx", "≡": r"\equiv", "∞": r"\infty",
    "∼": r"\sim", "∈": r"\in", "∑": r"\sum", "∏": r"\prod", "√": r"\surd", "∂": r"\partial",
    "∇": r"\nabla", "∝": r"\propto", "°": r"^{\circ}", "«": r"\ll", "»": r"\gg",
    "§": r"\mathsection", "¶": r"\mathparagraph", "†": r"\dagger", "‡": r"\ddagger",
    "£": r"\mathsterling", "←": r"\leftarrow", "↑": r"\uparrow", "→": r"\rightarrow",
    "↓": r"\downarrow",
    "↔": r"\leftrightarrow", "⇐": r"\Leftarrow", "⇒": r"\Rightarrow", "∧": r"\wedge",
    "∨": r"\vee", "∩": r"\cap", "∪": r"\cup", "⊂": r"\subset", "⊆": r"\subseteq",
    "∀": r"\forall", "∃": r"\exists", "•": r"\bullet", "▲": r"\triangle", "▼": r"\bigtriangledown",
    "ς": r"\varsigma", "ϑ": r"\vartheta", "ϕ": r"\phi", "φ": r"\varphi", "ϵ": r"\epsilon",
    "ε": r"\varepsilon",
    "α": r"\alpha", "β": r"\beta", "γ": r"\gamma", "δ": r"\delta", "ζ": r"\zeta", "η": r"\eta",
    "θ": r"\theta", "ι": r"\iota", "κ": r"\kappa", "λ": r"\lambda", "μ": r"\mu", "ν": r"\nu",
    "ξ": r"\xi", "π": r"\pi", "ρ": r"\rho", "σ": r"\sigma", "τ": r"\tau", "υ": r"\upsilon",
    "χ": r"\chi", "ψ": r"\psi", "ω": r"\omega", "Γ": r"\Gamma", "Δ": r"\Delta", "Θ": r"\Theta",
    "Λ": r"\Lambda", "Ξ": r"\Xi", "Π": r"\Pi", "Σ": r"\Sigma", "Υ": r"\Upsilon", "Φ": r"\Phi",
    "Ψ": r"\Psi", "Ω": r"\Omega",
    # Those that look like Latin letters have no command.
    **{greek: rf"\mathrm{{{latin}}}" for greek, latin in _LIKE_LATIN},
}  # fmt: skip

_LIGATURES = ("-", "'", ",")
"""Two of them beside each other would be another sign."""

_ACCENTS: Mapping[str, str] = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u",
    "\u0307": ".", "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0323": "d",
    "\u0327": "c", "\u0331": "b",
}  # fmt: skip


def tex(text: str, *, breaks: bool = False) -> str:
    """LaTeX source, in ASCII, for any text: what fits no font of TeX's is told by its number.

    It needs no package, compiles in every encoding and language, and holds no command that reads,
    writes or defines anything.

    Args:
        text: what is to be printed; line breaks and signs that steer a terminal become spaces.
        breaks: a long word may break across lines, as in a paragraph.
    """
    source, unknown, length = [], [], 0
    for sign in [*plain(unicodedata.normalize("NFC", text)), " "]:
        typed = {"\u00a0": "~"}.get(sign) or (" " if sign.isspace() else _typed(sign))
        if typed is None:
            unknown.append(f"U+{ord(sign):04X}")
            continue
        if unknown:
            source.append("{[}" + " ".join(unknown) + "]")
            unknown, length = [], 0
        if typed in _LIGATURES and source[-1:] == [typed]:
            source.append("{}")
        source.append(typed)
        length = 0 if typed == " " else length + 1
        if breaks and length >= LONG:
            source.append(r"\allowbreak{}")
            length = 0
    return "".join(source)[:-1]


def _typed(sign: str) -> str | None:
    """One sign's source; None where TeX's first fonts have none."""
    if sign in _SIGNS:
        return _SIGNS[sign]
    if sign in _MATH:
        return f"${_MATH[sign]}$"
    if sign.isascii():
        return sign
    parts = unicodedata.normalize("NFD", sign)
    base, marks = parts[0], parts[1:]
    if marks and base.isascii() and base.isalpha():
        known = [mark for mark in marks if mark in _ACCENTS]
        below = {"i": r"\i{}", "j": r"\j{}"}.get(base, base)
        return rf"\{_ACCENTS[known[0]]}{{{below}}}" if known else base
    alike = unicodedata.normalize("NFKC", sign)
    if alike == sign:
        return None
    typed = [" " if part.isspace() else _typed(part) for part in alike]
    return None if None in typed else "".join(part for part in typed if part)


def in_math(sign: str) -> str:
    """A sign's source where there is mathematics around it; empty for one that is none."""
    return _MATH.get(sign, "")


_WIDTHS: Mapping[str, float] = {
    **dict.fromkeys("ijl.,:;'![]|", 0.56),
    **dict.fromkeys(" -I_", 0.7),
    **dict.fromkeys("fts()/", 0.78),
    **dict.fromkeys("bdhknpquvxy", 1.11),
    **dict.fromkeys("ABCDEFGHKLNOPQRSTUVXYZ", 1.45),
    **dict.fromkeys("w+=<>", 1.56),
    **dict.fromkeys("mMW@%", 1.8),
}
"""Of signs in TeX's own roman type, in digits."""


def fitted(text: str, width: float) -> str:
    """A text with as much of its middle left out as it takes to print it in some digits' width."""
    n = min(len(text), math.floor(width / min(_WIDTHS.values())))
    while n > 3 and width_of(tex(shortened(text, n))) > width:
        n -= 1
    return shortened(text, n)


def width_of(source: str) -> float:
    """About how wide a line of source prints, in digits; rather more than less."""
    text = re.sub(r"_\{([^}]*)\}\^\{([^}]*)\}", lambda m: max(m.groups(), key=len), source)
    text = re.sub(r"\\allowbreak\{\}|\\mathrm|\\,", "", text)
    text = re.sub(r"\\textbf\{([^}]*)\}", lambda m: m[1] + "." * (len(m[1]) // 4), text)
    text = re.sub(r"\\[A-Za-z]+(\{\})?|\$-\$", "+", text)
    text = re.sub(r"[{}$^\\]", "", text)
    return sum(_WIDTHS.get(sign, 1.0) for sign in text)
