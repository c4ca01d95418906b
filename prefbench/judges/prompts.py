"""What a judge is sent: its templates filled with an ask, every foreign text inside a fence."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, meta, pass_context
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from prefbench.errors import JudgeError
from prefbench.judges.judge import Ask
from prefbench.judges.recipe import JudgeRecipe

ROLES = ("system", "user", "assistant")
LEAST_DELIMITER = 8
FAILURES = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What a template can do wrong while it is filled."""

BREAKS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f"  # control characters
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks that turn the direction of reading
    "\u180e\u200b\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb"  # of no width; not the two joiners
    "\ud800-\udfff"  # halves of characters, which UTF-8 cannot send
    "\U000e0000-\U000e0fff]"  # letters that only a model sees
)
CHAT_MARKS = re.compile(
    r"(<)(?=[|｜][^<>\n]{1,40}[|｜]>|/?s>|(?:bos|eos|pad|unk|start_of_turn|end_of_turn)>|</?sys>>"
    r"|/?(?:think|tool_call|tool_response)>)|(\[)(?=/?(?:inst|system_prompt|available_tools)\])",
    re.IGNORECASE,
)
"""Where words begin that chat templates use to end a turn; some tokenizers would take them so."""


def draw_delimiter() -> str:
    """Twelve hex digits that no answer can foresee."""
    return secrets.token_hex(6)


def render(
    recipe: JudgeRecipe, ask: Ask, *, delimiter: str, special: Iterable[str] = ()
) -> list[dict[str, str]]:
    """The messages that put an ask to a judge.

    Templates see `first`, `second`, `reference` (or none), `prompt` (the last user turn; without
    one the last turn), `conversation` (turns with `role` and `content`), `delimiter`, and `quoted`,
    which fences a text of the template's own. Of a foreign text they hold only a token, which is
    replaced by the fenced text once they are filled: no filter, slice or slip in a template can
    show it without its fence.

    Args:
        recipe: a judge with a prompt.
        ask: what it is to judge.
        delimiter: from draw_delimiter, a new one for each ask.
        special: words that the judge's tokenizer takes as one token each, to be broken up.

    Raises:
        JudgeError: a template is wrong, or shows not both answers; or a text holds the delimiter.
    """
    if recipe.prompt is None:
        raise JudgeError(f"{recipe.judge}: a judge of kind {recipe.kind} has no prompt")
    fences = _Fences(delimiter, special)
    conversation = [
        {
            "role": turn.role if turn.role in ROLES else "other",
            "content": fences.quoted(turn.content),
        }
        for turn in ask.conversation
    ]
    users = [turn for turn in conversation if turn["role"] == "user"] or conversation
    values = {
        "conversation": conversation,
        "first": fences.quoted(ask.first),
        "second": fences.quoted(ask.second),
        "reference": None if ask.reference is None else fences.quoted(ask.reference),
        "delimiter": delimiter,
        "quoted": fences.quoted,
    }
    if users:
        values["prompt"] = users[-1]["content"]
    messages = []
    for role, key, source in (
        ("system", "system", recipe.system),
        ("user", "prompt", recipe.prompt),
    ):
        content = _fill(recipe.judge, key, source or "", values, fences)
        if content.strip() or role == "user":
            messages.append({"role": role, "content": content})
    for name in ("first", "second"):
        if str(values[name]) not in fences.used:
            raise JudgeError(f"{recipe.judge}: prompt: does not show {name}")
    return messages


def uses_reference(recipe: JudgeRecipe) -> bool:
    """Whether a template of the judge speaks of the reference answer.

    Raises:
        JudgeError: a template is wrong.
    """
    for key, source in (("system", recipe.system), ("prompt", recipe.prompt)):
        try:
            tree = ENVIRONMENT.parse(source or "")
        except TemplateError as error:
            raise JudgeError(f"{recipe.judge}: {key}: {_said(error)}") from error
        if "reference" in meta.find_undeclared_variables(tree):
            return True
    return False


def shown(text: str, special: Iterable[str] = ()) -> str:
    """A foreign text as a judge is shown it.

    Characters that nobody sees are written out, as <U+202E>, rather than removed: an answer is not
    better for having them, and nothing joins up to something new. Words that would end a turn get a
    space behind their first letter. Space around the text may tell where it comes from and is cut.
    """
    text = BREAKS.sub("\n", text)
    text = UNSEEN.sub(lambda found: f"<U+{ord(found[0]):04X}>", text)
    text = CHAT_MARKS.sub(lambda found: found[0] + " ", text)
    if words := [re.escape(word) for word in special if len(word) > 1 and not word.isspace()]:
        # Looking ahead at every letter: words that overlap are each broken.
        text = re.sub(f"(?s:(?={'|'.join(words)})(.))", r"\1 ", text)
    return text.strip()


class _Fence:
    """What a template holds of a foreign text: nothing but a token for its place."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __str__(self) -> str:
        return self._token


class _Fences:
    """The foreign texts of one rendering."""

    def __init__(self, delimiter: str, special: Iterable[str]) -> None:
        if not (delimiter.isascii() and delimiter.isalnum() and len(delimiter) >= LEAST_DELIMITER):
            raise JudgeError(f"a delimiter has {LEAST_DELIMITER} or more letters and digits")
        self._delimiter = delimiter
        self._special = tuple(special)
        self._nonce = secrets.token_hex(16)
        self._texts: dict[str, str] = {}
        self.used: set[str] = set()

    def quoted(self, text: Any) -> _Fence:
        """The place of a text in its fence; of one that has it already, the same."""
        if isinstance(text, _Fence):
            return text
        inside = shown(str(text), self._special)
        if self._delimiter.lower() in inside.lower():
            raise JudgeError("a text to be judged holds the delimiter; draw another")
        token = f"\0{self._nonce}.{len(self._texts)}\0"
        self._texts[token] = f"BEGIN {self._delimiter}\n{inside}\nEND {self._delimiter}"
        return _Fence(token)

    def put_in(self, filled: str) -> str:
        """The filled template with each token replaced by its fence, on lines of its own.

        Raises:
            ValueError: a token is no longer whole.
        """
        parts = re.split(f"(\0{self._nonce}\\.[0-9]+\0)", filled)
        result = ""
        for n, part in enumerate(parts):
            if n % 2:
                self.used.add(part)
                result += ("\n" if result and result[-1] != "\n" else "") + self._texts[part]
            elif "\0" in part or self._nonce in part.lower():
                raise ValueError("a filter changes a fenced text, which is not possible")
            else:
                result += ("\n" if n and part and part[0] != "\n" else "") + part
        return result


@pass_context
def _quoted(context: Context, text: Any) -> _Fence:
    """`quoted` as a filter."""
    fence: _Fence = context["quoted"](text)
    return fence


ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=StrictUndefined,
    autoescape=False,  # the messages are no HTML
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.filters["quoted"] = _quoted


@lru_cache(maxsize=64)
def _template(source: str) -> Template:
    return ENVIRONMENT.from_string(source)


def _fill(judge: str, key: str, source: str, values: Mapping[str, Any], fences: _Fences) -> str:
    try:
        return fences.put_in(_template(source).render(values))
    except FAILURES as error:
        raise JudgeError(f"{judge}: {key}: {_said(error)}") from error


def _said(error: BaseException) -> str:
    """An error in one line, with the template's line where it is known."""
    line = getattr(error, "lineno", None)
    what = " ".join(str(error).split()) or type(error).__name__
    return f"line {line}: {what}" if line else what
