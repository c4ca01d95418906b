"""What is behind one number, as text: the number, where it comes from, and its samples."""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prefbench.report.layout import plain
from prefbench.report.tables import label, written

if TYPE_CHECKING:
    from prefbench.report.explain.again import Again
    from prefbench.report.explain.behind import Behind
    from prefbench.report.explain.samples import Reply, Sample

SHORT = 300
"""Characters of a text that are shown unless all are asked for."""
INDENT = 12


def as_text(
    behind: Behind, samples: Sequence[Sample], command: Again, *, full: bool = False
) -> str:
    """All that is known of a number, for reading; nothing in it can steer a terminal."""
    title = f"{label(behind.row, behind.board)} × {behind.column.group.name}"
    lines = [_plain(f"{title}: {behind.column.metric.title}"), ""]
    sections = [
        ("value", _value(behind)),
        ("interval", _interval(behind)),
        ("measured", _measured(behind)),
        ("judged", _judged(behind)),
        ("bytes", _bytes(behind)),
        ("engine", _engine(behind)),
        ("hashes", _hashes(behind)),
        ("notes", _notes(behind)),
    ]
    for head, said in sections:
        for i, line in enumerate(said):
            lines += _wrapped(head if i == 0 else "", line)
    # Not wrapped: it is to be copied.
    lines += [f"{'again':{INDENT}}{command.line or 'no command'}"]
    for remark in command.remarks:
        lines += _wrapped("", f"({remark})")
    for sample in samples:
        lines += ["", *_sample(sample, behind, full)]
    return "\n".join(lines)


def _wrapped(head: str, text: str) -> list[str]:
    wrapped = textwrap.wrap(_plain(text), 100 - INDENT, break_on_hyphens=False)
    return [f"{head if i == 0 else '':{INDENT}}{line}" for i, line in enumerate(wrapped)]


def _plain(text: Any) -> str:
    return plain(str(text))


# --- the number


def _value(behind: Behind) -> Iterator[str]:
    estimate, gap = behind.entry.score.estimate, behind.entry.difference
    metric = behind.column.metric
    unit = {"number": "", "percent": " %", "perplexity": ""}.get(metric.unit, f" {metric.unit}")
    yield f"{written(estimate, metric)}{unit}"
    if gap is not None:
        p = "" if math.isnan(gap.p) else f", p = {gap.p:.2g} alone, not corrected for others"
        how = "unpaired" if gap.method == "unpaired" else f"paired on {gap.n} items"
        yield f"{written(gap, metric)} to the baseline {behind.board.baseline}, {how}{p}"
    elif behind.row.name == behind.board.baseline:
        yield "it is the baseline"


def _interval(behind: Behind) -> Iterator[str]:
    estimate = behind.entry.score.estimate
    level = f"{100 * behind.board.confidence:.6g}%"
    if estimate.method in ("percentile", "bca") or estimate.method.startswith("percentile"):
        yield (
            f"{level}, {estimate.method} bootstrap: {behind.n_resamples:,} resamples of "
            f"{behind.n_clusters} clusters, seed {behind.seed}"
        )
    elif estimate.method == "wilson":
        yield f"{level}, Wilson's over {behind.n_clusters} clusters: all items count alike"
    else:
        yield f"{level}, {estimate.method}"
    missing = behind.manifest.get("missing") or {}
    why = "; ".join(f"{n} × {reason}" for reason, n in missing.items())
    lacking = f", {estimate.n_missing} missing" if estimate.n_missing else ", none missing"
    yield f"{estimate.n} items{lacking}{f' ({why})' if why else ''}"


# --- where it comes from


def _measured(behind: Behind) -> Iterator[str]:
    manifest = behind.manifest
    task, identity = manifest.get("task", {}), manifest.get("identity", {})
    if not task:
        return
    parts = [f"{task.get('file', task.get('name'))}, {task.get('n_shots') or 0}-shot"]
    if identity.get("shots"):
        drawn = "lm-eval's own draws" if identity.get("fewshot") == "parity" else "the first"
        parts.append(f"examples from {identity['shots']}, {drawn}")
    limit = identity.get("limit")
    parts.append("all items" if limit is None else f"first {limit} items")
    parts.append("chat template on" if identity.get("chat") else "chat template off")
    yield ", ".join(parts)
    if data := manifest.get("data"):
        at = f" at {data['revision']}" if data.get("revision") else ""
        kind = {"files": "from local files", "lm-eval": "as lm-eval was told to load it"}
        yield f"data {data.get('title')}{at}, {kind.get(data.get('from', ''), 'from the hub')}"
    if sampling := manifest.get("sampling"):
        yield "drawn with " + ", ".join(f"{k} {v!r}" for k, v in sampling.items())
    for key, what in _COUNTS.items():
        if manifest.get(key):
            yield f"{manifest[key]} of {manifest['n_items']} {what}"


_COUNTS = {
    "n_cut": "prompts were longer than the context and lost their start",
    "n_unfinished": "items have texts that were cut at the token limit",
}


def _judged(behind: Behind) -> Iterator[str]:
    judging = behind.judging
    if not judging:
        return
    if behind.pairs:
        yield f"from {len(behind.pairs)} comparisons of a round robin, each a cell of its own:"
        for other, cell in behind.pairs.items():
            yield f"{cell}  with {other}"
    judge = judging["judge"]
    recipe = judge["recipe"]
    kind = {"openai": "a server's model", "vllm": "a local model", "reward": "a reward model"}
    yield (
        f"by {judge['name']}, {kind.get(recipe['kind'], 'a panel')}"
        + (f" {recipe['model']}" if recipe["model"] else f" of {', '.join(recipe['members'])}")
        + (f" at {recipe['endpoint']['base_url']}" if recipe["endpoint"] else "")
        + f", key {judge['key'][:16]}"
    )
    if not behind.pairs:
        yield f"against {judging['opponent']}, {_place(behind.manifest_of('opponent_answers'))}"
    if judging["symmetric"]:
        yield "each answer rated alone, once a pair"
    else:
        yield "both orders of each pair"
    counts = [f"{judging['n_verdicts']} verdicts"]
    counts += [
        f"{judging[key]} {what}"
        for key, what in (("n_unreadable", "unreadable"), ("n_unheard", "did not arrive"))
        if judging[key]
    ]
    if judging.get("compared"):
        counts.append(f"{judging['consistent'] / judging['compared']:.0%} alike in both orders")
    yield ", ".join(counts) + (f", ${judging['cost']:.4f}" if judging["cost"] else "")
    if judging["sure"]:
        low, high = judging["sure"]
        yield f"ended when it was sure: {low:.3f} to {high:.3f}"
    for name in ("system", "prompt"):
        if recipe[name]:
            yield f"{name}: {_short(recipe[name], full=False)}"


def _place(manifest: Mapping[str, Any] | None) -> str:
    if manifest is None:
        return "the data's own answer"
    found = manifest["checkpoint"]
    return f"{found['fingerprint'][:16]} at {found['path']}"


def _bytes(behind: Behind) -> Iterator[str]:
    found = behind.manifest.get("checkpoint", {})
    yield f"{found.get('fingerprint') or behind.row.fingerprint or 'unknown'}"
    facts = [
        found.get("architecture"),
        f"{found['n_parameters']:,} parameters" if found.get("n_parameters") else None,
        f"stored in {found['dtype']}" if found.get("dtype") else None,
        "adapter" if found.get("adapter") else None,
    ]
    yield ", ".join(fact for fact in facts if fact)
    path, now = found.get("path"), str(behind.row.path)
    if "imported" in behind.manifest:  # the path is a place in the table, not on a disk
        yield "no weights were looked at: it was imported"
    else:
        yield f"then at {path}" + (f", now at {now}" if path != now else "")
    origins = found.get("origins", {})
    known = [
        f"{key} {found[key]} ({origins.get(key, '?')})"
        for key in ("method", "step", "seed", "reference", "base")
        if found.get(key) is not None
    ]
    if known:
        yield ", ".join(known)


def _engine(behind: Behind) -> Iterator[str]:
    manifest = behind.manifest
    if engine := manifest.get("engine"):
        context = f", context {engine['max_length']}" if engine.get("max_length") else ""
        known = {"in": engine.get("dtype"), "on": engine.get("device")}
        where = "".join(f" {word} {value}" for word, value in known.items() if value)
        yield f"{engine.get('kind')}{where}{context}"
        asked = manifest.get("identity", {}).get("engine")
        if asked and asked != engine.get("kind"):
            yield f"asked for was {asked}"
        yield from engine.get("notes", ())
    if versions := manifest.get("versions"):
        yield ", ".join(f"{name} {version}" for name, version in versions.items())
    if host := manifest.get("host"):
        yield (
            f"{host.get('machine')} {host.get('system')}, {host.get('n_cpus')} CPUs, "
            f"Python {host.get('python')}"
        )
    if changed := _changed(manifest):
        yield f"settings: {changed}"
    if finished := manifest.get("finished"):
        seconds = f", in {manifest['seconds']:g} s" if "seconds" in manifest else ""
        yield f"{finished}{seconds}, by: {' '.join(manifest.get('command', ()))}"


def _changed(manifest: Mapping[str, Any]) -> str:
    """The settings that somebody chose."""
    from prefbench.cells import Settings

    usual = {field.name: field.default for field in dataclasses.fields(Settings)}
    settings = manifest.get("settings", {})
    chosen = {k: v for k, v in settings.items() if k in usual and v not in (usual[k], [])}
    return ", ".join(f"{k} {v}" for k, v in chosen.items())


def _hashes(behind: Behind) -> Iterator[str]:
    identity = behind.manifest.get("identity", {})
    found = {
        "cell": behind.cell,
        "answers": behind.judging["answers"] if behind.judging else None,
        "opponent": behind.judging["opponent_answers"] if behind.judging else None,
        "prompts": behind.manifest.get("items"),
        "data": identity.get("data"),
        "task": identity.get("task"),
        "tokenizer": behind.manifest.get("engine", {}).get("tokenizer"),
        "template": behind.manifest.get("engine", {}).get("chat_template"),
    }
    for name, value in found.items():
        if value:
            yield f"{name} {value}"


def _notes(behind: Behind) -> Iterator[str]:
    yield from behind.manifest.get("warnings", ())
    yield from behind.column.group.notes


# --- the samples


def _sample(sample: Sample, behind: Behind, full: bool) -> Iterator[str]:
    metric = behind.column.metric
    value = sample.reason or "no value" if sample.value is None else f"{sample.value:.6g}"
    yield from _wrapped(
        f"item {sample.item}",
        f"{metric.name.partition('.v')[0]} {value}, cluster {sample.cluster}",
    )
    yield from _said("prompt", sample.prompt, full, end=True)
    answer = sample.answer
    if answer and answer.logps:
        for i, text in enumerate(sample.continuations):
            greedy = ", greedy" if answer.greedy[i : i + 1] == (True,) else ""
            tokens = f", {answer.n_tokens[i]} tokens" if answer.n_tokens[i : i + 1] else ""
            yield from _said(f"{answer.logps[i]:.3f}", text, full, more=f" nats{tokens}{greedy}")
    for i, text in enumerate(answer.written if answer else ()):
        cut = (
            " (cut at the token limit)"
            if answer and answer.unfinished[i : i + 1] == (True,)
            else ""
        )
        yield from _said(f"answer{cut}", text, full)
    for text in sample.opponent:
        yield from _said("opponent", text, full)
    for reply in sample.replies:
        yield from _said("judge", _reply(reply), full)
    numbers = ", ".join(f"{name} {value:.6g}" for name, value in sample.numbers.items())
    yield from _wrapped("numbers", numbers)


def _reply(one: Reply) -> str:
    shown = "the checkpoint's first" if one.ours_first else "the opponent's first"
    said = (
        f"unreadable ({one.reason})"
        if one.preference is None
        else f"prefers the first by {one.preference:g}"
    )
    facts = ", ".join(
        f"{name} {value:.4g}" for name, value in one.facts.items() if isinstance(value, float)
    )
    words = f": {one.reply.strip()}" if one.reply.strip() else ""
    return f"{one.judge}, {shown}, {said}{f' ({facts})' if facts else ''}{words}"


def _said(head: str, text: str, full: bool, *, end: bool = False, more: str = "") -> Iterator[str]:
    """A text line by line below its head, as it was, but for signs that would act."""
    shown = _short(text, full=full, end=end)
    yield f"  {head}{more}"
    for line in shown.splitlines() or [""]:
        yield f"    │ {_plain(line)}"


def _short(text: str, *, full: bool, end: bool = False) -> str:
    """The text's beginning; of a prompt its end, which is what was asked."""
    if full or len(text) <= SHORT:
        return text
    left_out = f"[… {len(text) - SHORT:,} characters …]"
    return f"{left_out} {text[-SHORT:]}" if end else f"{text[:SHORT]} {left_out}"
