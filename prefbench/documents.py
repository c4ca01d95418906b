"""From data set rows to the documents that tasks ask about: `process_docs` of the tasks' YAML.

Each function takes a `datasets.Dataset` and returns one. Documents of pairs have the columns
`prompt`; `chosen` and `rejected`, lists of responses to be scored right after the prompt;
`messages`, the prompt as chat turns; `cluster`, equal for documents whose results hang together;
and `missing`, "" or the reason why the pair cannot be compared. Rows are never dropped for that.
Documents of prompts have `prompt`, `messages`, `cluster` and `missing` too, and `reference`, an
answer that the data know, or None.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from prefbench.errors import DataError

Dataset: TypeAlias = Any
Row: TypeAlias = Mapping[str, Any]

IDENTICAL = "chosen and rejected are identical"
EMPTY = "a reply is empty"
DIVERGED = "the dialogues diverge before the last reply"
NO_ASSISTANT = "no assistant turn"


# --- HellaSwag


def hellaswag(dataset: Dataset) -> Dataset:
    """Adds query, choices and gold, word for word as lm-eval's hellaswag does.

    Columns read: activity_label, ctx_a, ctx_b, endings, label.
    """

    def ask(row: Row) -> dict[str, Any]:
        context = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
        return {
            "query": _without_brackets(context),
            "choices": [_without_brackets(ending) for ending in row["endings"]],
            "gold": int(row["label"]),
        }

    _require(dataset, "activity_label", "ctx_a", "ctx_b", "endings", "label")
    return dataset.map(ask)


def _without_brackets(text: str) -> str:
    """WikiHow's marks taken out; what that leaves doubled is halved once, as in lm-eval."""
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


# --- pairs


def hh_pairs(dataset: Dataset) -> Dataset:
    r"""HH-RLHF: whole dialogues `chosen` and `rejected` become a shared prompt and two replies.

    The prompt ends with the last "\n\nAssistant:" that both share; a reply keeps its leading space.
    """
    _require(dataset, "chosen", "rejected")
    return _from_rows(dataset, (_hh_pair(row) for row in dataset))


def plain_pairs(dataset: Dataset) -> Dataset:
    """Rows of prompt, chosen and rejected text, taken as they are: spaces between are the data's.

    Other columns are kept.
    """
    _require(dataset, "prompt", "chosen", "rejected")
    return _from_rows(dataset, (_plain_pair(row) for row in dataset))


def _plain_pair(row: Row) -> dict[str, Any]:
    prompt, chosen, rejected = _texts(row, "prompt", "chosen", "rejected")
    return {**row, **_pair(prompt, chosen, rejected), "messages": _turns(("user", prompt))}


TURN = re.compile(r"\n\n(Human|Assistant):")
ROLES = {"Human": "user", "Assistant": "assistant"}


def _hh_pair(row: Row) -> dict[str, Any]:
    chosen, rejected = _texts(row, "chosen", "rejected")
    first, second = _last_reply(chosen), _last_reply(rejected)
    missing = ""
    if chosen[:first] == rejected[:second]:
        start = first
    else:
        missing = DIVERGED
        start = _last_reply(_shared_start(chosen, rejected))
    if not first or not second:
        missing = NO_ASSISTANT
    prompt = chosen[:start]
    # Text, speaker, text, speaker, ...; the last text is the reply still to come.
    opening, *rest = TURN.split(prompt)[:-1] or [""]
    said = [(ROLES[who], text) for who, text in zip(rest[::2], rest[1::2], strict=False)]
    return {
        **_pair(prompt, chosen[start:], rejected[start:], missing),
        "messages": _turns(*([("system", opening)] if opening.strip() else []), *said),
    }


def _last_reply(dialogue: str) -> int:
    """Where the last assistant turn's text begins; 0 where there is none."""
    mark = "\n\nAssistant:"
    start = dialogue.rfind(mark)
    return 0 if start < 0 else start + len(mark)


def _shared_start(first: str, second: str) -> str:
    """What two texts have in common from their beginning."""
    pairs = zip(first, second, strict=False)
    length = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))
    return first[:length]


def _pair(prompt: str, chosen: str, rejected: str, missing: str = "") -> dict[str, Any]:
    """The columns of one pair but `messages`; `missing` comes before what is found here."""
    if not missing and chosen == rejected:
        missing = IDENTICAL
    if not missing and not (chosen.strip() and rejected.strip()):
        missing = EMPTY
    return {
        "prompt": prompt,
        "chosen": [chosen],
        "rejected": [rejected],
        "cluster": hashlib.sha256(prompt.encode()).hexdigest()[:16],
        "missing": missing,
    }


def _turns(*said: tuple[str, str]) -> list[dict[str, str]]:
    """Chat turns; what one speaker says twice in a row is one turn, as chat templates demand."""
    turns: list[dict[str, str]] = []
    for role, text in said:
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += "\n\n" + text.strip()
        else:
            turns.append({"role": role, "content": text.strip()})
    return turns


# --- prompts to be answered, and judged


def hh_prompts(dataset: Dataset) -> Dataset:
    """HH-RLHF: the prompt that both dialogues share; the reference is the chosen reply."""
    return _from_rows(dataset, (_prompt_of_pair(row) for row in hh_pairs(dataset)))


def _prompt_of_pair(pair: Row) -> dict[str, Any]:
    # That the two replies are alike matters to none who answers.
    reference = pair["chosen"][0] if pair["chosen"] else ""
    missing = "" if pair["missing"] in (IDENTICAL, EMPTY) else pair["missing"]
    return {
        **_prompt(pair["prompt"], pair["messages"], reference or None),
        "missing": missing,
    }


def causal_prompts(dataset: Dataset) -> Dataset:
    """CausalDialogue: each history with its cause; the reference is the first effect seen."""
    return _from_rows(
        dataset,
        (
            # Causes of one history hang together, as in pairs.
            _prompt(row["prompt"], row["messages"], next(iter(row["chosen"]), None))
            | {"cluster": row["cluster"]}
            for row in causal_pairs(dataset)
        ),
    )


def plain_prompts(dataset: Dataset) -> Dataset:
    """Rows of `prompt` and, where there is one, `reference`; other columns are kept."""
    _require(dataset, "prompt")
    return _from_rows(dataset, (_plain_prompt(row, row["prompt"]) for row in dataset))


def alpaca_prompts(dataset: Dataset) -> Dataset:
    """AlpacaEval's form: `instruction`; the reference is `output`, where there is one."""
    _require(dataset, "instruction")
    rows = ({**row, "reference": row.get("output")} for row in dataset)
    return _from_rows(dataset, (_plain_prompt(row, row["instruction"]) for row in rows))


def _plain_prompt(row: Row, prompt: Any) -> dict[str, Any]:
    reference = row.get("reference")
    if not isinstance(prompt, str) or not isinstance(reference, str | None):
        raise DataError(f"a prompt and its reference are texts, not {prompt!r:.80}")
    return {**row, **_prompt(prompt, _turns(("user", prompt)), reference)}


def _prompt(prompt: str, messages: Any, reference: str | None) -> dict[str, Any]:
    """The columns of a prompt."""
    return {
        "prompt": prompt,
        "messages": messages,
        "reference": reference if reference and reference.strip() else None,
        "cluster": hashlib.sha256(prompt.encode()).hexdigest()[:16],
        "missing": "" if prompt.strip() else "the prompt is empty",
    }


# --- CausalDialogue

MOST_NODES = 100
"""Longer dialogues are left out, as the data set's authors do."""

MOST_PATHS = 20_000
"""A graph of a hundred nodes can have more paths than memory; this many is refused."""


class CausalGroup(NamedTuple):
    """What was said after one history: causes x, effects y, and which were seen together.

    `negatives` are the pairs of one of the x and one of the y that were never seen together.
    """

    cluster: str
    history: tuple[str, ...]
    edges: tuple[tuple[str, str], ...]
    negatives: tuple[tuple[str, str], ...]


def causal_pairs(dataset: Dataset) -> Dataset:
    r"""CausalDialogue: a document per history and cause, its effects against its rivals' effects.

    `chosen` are the effects seen after this cause, `rejected` those seen only after other causes
    of the same history; none are left to reject where every effect was seen here, and the document
    counts for the positives alone. The prompt is one "speaker: text" a line, each line ended by
    "\n", so that a response starts a line and needs no space.

    Raises:
        DataError: no dialogue has a negative, or one is not a graph as `causal_groups` needs it.
    """
    _require(dataset, "dialog_name", "category", "original_data")
    groups = [group for row in dataset for group in causal_groups(row)]
    if not groups:
        raise DataError(
            "causal_pairs: no dialogue has two causes with different effects after one history; "
            "is this CausalDialogue's *_dag.json?"
        )
    return _from_rows(dataset, (document for group in groups for document in _causal(group)))


def causal_groups(dialogue: Row) -> list[CausalGroup]:
    """The groups of one dialogue that have a negative, in the order of their paths.

    Along each path from node 0, node y is an effect, the node x before it the cause, and all nodes
    before x the history; a path's beginning counts once however many paths share it. Scenes and
    silences ("...") are no effects. A group is a history as a path, not as text.

    Raises:
        DataError: an id that is missing, double or its own ancestor, or too many paths.

    Source: Tuan et al. 2022, arxiv.org/abs/2212.10515, in its released code, which counts a pair
    of the product as often as its x and y occur in edges; here each text pair counts once.
    """
    if _left_out(dialogue):
        return []
    name = dialogue["dialog_name"]
    nodes = {int(node["id"]): node for node in dialogue["original_data"]}
    edges: dict[tuple[int, ...], dict[tuple[str, str], None]] = {}
    for *history, x, y in _paths(dialogue):
        if nodes[y]["type"] == "utterance" and nodes[y]["text"] != "...":
            edge = _line(nodes[x]), _line(nodes[y])
            edges.setdefault(tuple(history), {})[edge] = None
    groups = []
    for path, seen in edges.items():
        xs, ys = (dict.fromkeys(texts) for texts in zip(*seen, strict=True))
        negatives = tuple((x, y) for x in xs for y in ys if (x, y) not in seen)
        if negatives:
            cluster = f"{name}/{'-'.join(map(str, path))}"
            history_lines = tuple(_line(nodes[node]) for node in path)
            groups.append(CausalGroup(cluster, history_lines, tuple(seen), negatives))
    return groups


def _left_out(dialogue: Row) -> bool:
    """Whether the authors' loader leaves the dialogue out."""
    name = dialogue["dialog_name"]
    return len(dialogue["original_data"]) > MOST_NODES or (
        dialogue["category"] == "original scripts"
        and ("Explor" in name or "The_Cause_of_Sorrow_Script.json__The_White_Heron_Cup" in name)
    )


def _paths(dialogue: Row) -> Iterator[tuple[int, ...]]:
    """Every path of two nodes or more that begins at node 0, a beginning before what follows it."""
    name = dialogue["dialog_name"]
    following: dict[int, list[int]] = {}
    for node in dialogue["original_data"]:
        if int(node["id"]) in following:
            raise DataError(f"dialogue {name}: two nodes have the id {node['id']}; make ids unique")
        following[int(node["id"])] = []
    if 0 not in following:
        raise DataError(f"dialogue {name}: there is no node 0, where every path begins")
    for node in dialogue["original_data"]:
        for before in sorted({int(i) for i in node["prev_ids"]}):
            if before not in following:
                raise DataError(f"dialogue {name}: node {node['id']} follows {before}, no such id")
            if (before, int(node["id"])) != (0, 0):  # the root may name itself
                following[before].append(int(node["id"]))
    n_paths = 0
    open_paths: list[tuple[int, ...]] = [(0,)]
    while open_paths:
        path = open_paths.pop()
        if len(path) > 1:
            yield path
        n_paths += 1
        if n_paths > MOST_PATHS:
            raise DataError(
                f"dialogue {name}: more than {MOST_PATHS} paths begin at node 0; split the dialogue"
            )
        for node in reversed(following[path[-1]]):
            if node in path:
                raise DataError(f"dialogue {name}: node {node} follows itself; cut the cycle")
            open_paths.append((*path, node))


def _line(node: Row) -> str:
    speaker = node["speaker"] if node["type"] == "utterance" else "scene"
    return f"{speaker}: {node['text']}"


def _causal(group: CausalGroup) -> Iterator[dict[str, Any]]:
    for x in dict.fromkeys(x for x, _ in group.edges):
        prompt = "".join(f"{line}\n" for line in (*group.history, x))
        yield {
            "prompt": prompt,
            "chosen": [y for cause, y in group.edges if cause == x],
            "rejected": [y for cause, y in group.negatives if cause == x],
            "cluster": group.cluster,
            "missing": "",
            "messages": _turns(("user", prompt)),
        }


# --- WikiText

HEADING = re.compile(r"= (?!=).*(?<!=) =")


def wikitext_pages(dataset: Dataset) -> Dataset:
    r"""WikiText's lines (hub layout) as one document per article, in the column `page`.

    Pages are those of EleutherAI/wikitext_document_level, so that perplexities compare. The hub's
    empty rows stand for lines " \n", which the pages have back: joined by "\n" they are the
    published text. An article begins at a line " = Title = "; two lines inside a formula of the
    WikiText-2 test text pass for titles, there as here, and its 60 articles are 62 pages.
    """
    _require(dataset, "text")
    pages: list[list[str]] = [[]]
    for row in dataset:
        line = row["text"].replace("\r\n", "\n") or " \n"
        if HEADING.fullmatch(line.strip()):
            pages.append([])
        pages[-1].append(line)
    texts = ["".join(lines) for lines in pages]
    # The newline before a title parts two pages and belongs to neither.
    texts = [text.removesuffix("\n") for text in texts[:-1]] + texts[-1:]
    return _from_rows(dataset, ({"page": text} for text in texts if text.strip()))


# --- what they share


def _require(dataset: Dataset, *columns: str) -> None:
    if absent := [column for column in columns if column not in dataset.column_names]:
        raise DataError(
            f"the data set has no column {', '.join(absent)}, only "
            f"{', '.join(dataset.column_names)}; does the task name the right data set?"
        )


def _texts(row: Row, *columns: str) -> Iterator[str]:
    for column in columns:
        if not isinstance(row[column], str):
            raise DataError(f"column {column} holds {row[column]!r:.80} where a text is needed")
        yield row[column]


def _from_rows(dataset: Dataset, rows: Iterable[Row]) -> Dataset:
    # Not `map`: it fixes a column's type by the first thousand rows, which may all be empty lists.
    return type(dataset).from_list(list(rows))
