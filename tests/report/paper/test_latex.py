from __future__ import annotations

import dataclasses
import json
import re
import string
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefbench.boards.pooled import pooled_board
from prefbench.boards.shown import Shown, show
from prefbench.errors import InputError
from prefbench.leaderboard import Gathered, Group, Measured
from prefbench.records import Checkpoint
from prefbench.report.paper.caption import Conditions, caption, conditions_of, footnotes
from prefbench.report.paper.heads import levels
from prefbench.report.paper.latex import latex
from prefbench.report.paper.tex import tex, width_of
from prefbench.report.tables import figure, label
from prefbench.stats.estimates import Estimate
from prefbench.store import Store
from tests.boards.made import build_board
from tests.tex import compile_tex, flat

STYLES = ("bracket", "pm", "subscript")
HOSTILE = (
    r"\input{/etc/passwd}",
    r"\immediate\write18{touch owned}",
    r"\end{document}",
    r"}}}{{{ \fi \else \csname",
    "$a_b^c$ & 50% # ~ ^^M",
    "[here] *star* |bar| <tag> \"quote\" `grave` 'tick'",
    "-- --- ,, '' ?` !` << >>",
    "evil\x1b[31m\u202egpj.exe\u2066\x00\ud800",
    "日本語 한국어 עברית हिन्दी 🙂👩‍👩‍👧",
    "e\u0301\u0302\u0489 ế ṩ ﬁ ﬃ ① ℀ ﷺ",
    "Żółć Ångström Đorđe Þór ĳ ŉ ǰ ğ İ ı",
    "x" * 400,
    "word " * 200,
    "\n\n\\par\t",
    "",
)
QUANTITIES = ("sum_logp_chosen", "n_tokens_chosen", "sum_logp_rejected", "n_tokens_rejected")


def shown(
    *, names: tuple[str, ...] = (), n_groups: int = 0, n_rows: int = 2, gain: float = 0.6
) -> Shown:
    """A baseline and better checkpoints on pairs, quizzes and duels; named ones are missing."""
    rows = [Checkpoint("sft", Path("sft"), "ready", method="sft", seed=0)]
    rows += [
        Checkpoint(f"dpo-{i}", Path("dpo"), "ready", method="dpo", seed=0, step=i)
        for i in range(1, n_rows)
    ]
    rows += [Checkpoint(name, Path("x"), "refused", reason=f"pickled {name}") for name in names]
    groups = [
        Group("pairs", "pairs", shown=("perplexity", "agility")),
        Group("quiz_100%", "quiz_100%", "first 60 items", ("acc",), {"acc": True}),
        Group("duel by a", "duel", "", ("acc",), {"acc": True}, opponent="sft", judge="judge_a"),
        Group("duel by b", "duel", "", ("acc",), {"acc": True}, opponent="sft", judge="judge_b"),
        *(
            Group(f"quiz_{i}", f"quiz_{i}", shown=("acc",), higher_is_better={"acc": True})
            for i in range(n_groups)
        ),
    ]
    rng = np.random.default_rng(7)
    items = np.arange(60, dtype=np.int32)
    measured = []
    for group in groups:
        for i, row in enumerate(rows[:n_rows]):
            better = min(i, 1)
            pairs = (-20 + 4 * better + rng.normal(size=60), np.full(60, 10.0),
                     -30 - 9 * better + rng.normal(size=60), np.full(60, 10.0))  # fmt: skip
            quantities = (
                dict(zip(QUANTITIES, pairs, strict=True))
                if group.name == "pairs"
                else {"acc": (rng.random(60) < 0.2 + gain * better).astype(float)}
            )
            measured.append(Measured(row.name, group.name, items, items, quantities))
    board = build_board(
        rows, groups, measured, notes=["duel by a: judge_a is a panel"], n_resamples=500
    )
    return show(board)


# What escaped text is made of; anything else would be a command, or a sign that acts.
SOURCE = re.compile(
    r"""(?: [A-Za-z0-9 .,;:!?'()\]/@+=\-~]
    | \\[{}$&\#_%] | \{[\[*]\} | \{\}
    | \\(?:textbackslash|textasciicircum|textasciitilde|textless|textgreater|textbar|allowbreak
        |textquoteleft|textquoteright|textquotedblleft|textquotedblright|textendash|textemdash
        |dots|textexclamdown|textquestiondown|ss|ae|AE|oe|OE|o|O|l|L|aa|AA|i|j)\{\}
    | \\symbol\{34\} | \\textcircled\{c\}
    | \\[`'^~=u."rHvdcb]\{(?:[A-Za-z]|\\[ij]\{\})?\}
    | \$ (?: - | \\[A-Za-z]+ | \^\{\\circ\} | \\mathrm\{[A-Za-z]\} ) \$ )*""",
    re.VERBOSE,
)


@given(st.text(), st.booleans())
@settings(max_examples=500, deadline=None)
def test_any_text_becomes_signs_and_no_command(text: str, breaks: bool) -> None:
    assert SOURCE.fullmatch(tex(text, breaks=breaks))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_becomes_signs_and_no_command(text: str) -> None:
    assert SOURCE.fullmatch(tex(text))
    assert SOURCE.fullmatch(tex(text, breaks=True))


def test_long_words_break_in_paragraphs_alone() -> None:
    assert tex("a" * 45) == "a" * 45
    assert tex("a" * 45, breaks=True).split(r"\allowbreak{}") == ["a" * 20, "a" * 20, "a" * 5]


def test_what_tex_cannot_print_is_told_by_its_number() -> None:
    assert tex("日本 ok") == "{[}U+65E5 U+672C] ok"
    assert tex("ﬁve é ① − α \u202e!") == r"five \'{e} 1 $-$ $\alpha$  !"


@pytest.mark.parametrize("fonts", ["", r"\usepackage[T1]{fontenc}\usepackage{lmodern}"])
def test_arbitrary_text_compiles(tmp_path: Path, fonts: str) -> None:
    texts = list(HOSTILE)

    @given(st.lists(st.text(), min_size=20))
    @settings(max_examples=25, deadline=None, database=None)
    def gather(more: list[str]) -> None:
        texts.extend(more)

    gather()
    letters = [chr(i) for i in range(0x20, 0x2C00) if unicodedata.category(chr(i))[0] != "C"]
    texts += [" ".join(letters[i : i + 500]) for i in range(0, len(letters), 500)]
    lines = [f"{tex(text)}\\textbf{{{tex(text)}}}\\par" for text in texts]
    start = rf"\documentclass{{article}}{fonts}\begin{{document}}\raggedright"
    page = "\n".join([start, *lines, f"{len(texts)} texts.", r"\end{document}"])
    printed = compile_tex(page, tmp_path)
    # No text ended the document, and none wrote or read a file.
    assert f"{len(texts)} texts." in flat(printed.text)
    assert {path.suffix for path in tmp_path.iterdir()} == {".tex", ".log", ".aux", ".pdf", ".txt"}
    assert r"\input{/etc/passwd}" in printed.text
    assert "root:" not in printed.text


def test_ascii_reads_back_as_written(tmp_path: Path) -> None:
    letters = string.printable.strip()
    doc = r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{lmodern}\begin{document}"
    words = [letters[i : i + 10] for i in range(0, len(letters), 10)]
    printed = compile_tex(
        f"{doc}\\hyphenpenalty10000 {tex(' '.join(words))} \\end{{document}}", tmp_path
    )
    assert " ".join(words).replace("'", "’") in " ".join(printed.text.split())


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(("columns", "width"), [(1, None), (1, 40), (2, None), (2, 48)])
def test_a_table_prints_its_numbers_within_its_width(
    tmp_path: Path, style: str, columns: int, width: int | None
) -> None:
    table = shown(names=("broken",))
    source = latex(
        table,
        interval_style=style,  # type: ignore[arg-type]  # one of the styles
        paper_columns=columns,
        width=width,
        letters=True,
        standalone=True,
    )
    printed = compile_tex(source, tmp_path)
    assert all(points < 3 for points in printed.overfull)
    text = flat(printed.text.replace("-\n", ""))
    for column in table.columns:
        assert column.metric.title.split()[0] in text
        for row in table.board.rows[:2]:
            entry = table.entry(row, column)
            assert entry is not None
            assert figure(entry.score.estimate.value, column.metric) in text
    assert "Holm's correction over 5 comparisons" in text
    assert "1 pickled broken" in text
    assert "judge_a is a panel." in text
    assert text.count("first 60 items") == 1


def test_the_environment_is_that_of_the_paper() -> None:
    table = shown()
    assert r"\begin{table*}" in latex(table, paper_columns=2)
    assert r"\begin{table}" in latex(table, paper_columns=2, width=48)
    assert r"\begin{table}" in latex(table)
    assert r"\documentclass" not in latex(table)


def test_a_line_of_the_table_to_the_letter() -> None:
    table = shown()
    assert table.columns[1].metric.title == "agility ↑"
    source = latex(table, width=200)
    (line,) = (line for line in source.splitlines() if line.startswith("DPO"))
    cells = [cell.strip() for cell in line.removesuffix(r"\\").split("&")]
    own = [table.entry(table.board.rows[1], column) for column in table.columns]
    assert own[1] is not None
    value, low, high = (figure(v, table.columns[1].metric) for v in own[1].score.estimate[:3])
    assert cells[4:7] == [rf"\textbf{{{value}}}", r"$^{\dagger}$", f"[{low}, {high}]"]


def test_heads_stand_over_what_they_share() -> None:
    table = shown()
    assert [[tuple(span) for span in level] for level in levels(table.columns)] == [
        [(0, 1, ""), (1, 2, ""), (2, 3, "quiz_100%"), (3, 5, "duel")],
        [(0, 2, "pairs"), (2, 3, "first 60 items"), (3, 4, "vs sft, judge_a"),
         (4, 5, "vs sft, judge_b")],
        [(i, i + 1, column.metric.title) for i, column in enumerate(table.columns)],
    ]  # fmt: skip


def test_plus_minus_takes_the_farther_bound_and_says_so(tmp_path: Path) -> None:
    table = shown()
    source = latex(table, interval_style="pm", width=200)
    (line,) = (line for line in source.splitlines() if line.startswith("DPO"))
    uneven = 0
    for column in table.columns:
        entry = table.entry(table.board.rows[1], column)
        assert entry is not None
        value, low, high = entry.score.estimate[:3]
        farther = figure(max(high - value, value - low), column.metric)
        assert rf"$\pm$\,{farther}" in line
        uneven += figure(high - value, column.metric) != figure(value - low, column.metric)
    assert uneven
    assert "distance to the farther bound of a 95% bootstrap" in " ".join(
        caption(table, style="pm")
    )


def test_missing_cells_have_a_dash_and_a_numbered_note() -> None:
    table = shown(names=("first", "second"))
    source = latex(table)
    assert source.count("---$^{1}$") == source.count("---$^{2}$") == len(table.columns)
    assert "$^{1}$ pickled first" in source
    assert "$^{2}$ pickled second" in source


def test_hostile_names_print_as_what_they_are(tmp_path: Path) -> None:
    table = shown(names=HOSTILE)
    for style in STYLES:
        source = latex(table, interval_style=style, standalone=True)  # type: ignore[arg-type]
        printed = compile_tex(source, tmp_path)
        assert all(points < 3 for points in printed.overfull)
        for name in HOSTILE[:4]:
            assert flat(name) in flat(printed.text)
    assert not (tmp_path / "owned").exists()


def test_hostile_tasks_and_judges_print_within_the_width(tmp_path: Path) -> None:
    rows = [Checkpoint(name, Path(name), "ready", method=name) for name in ("sft", "dpo")]
    items = np.arange(40, dtype=np.int32)
    rng = np.random.default_rng(4)
    groups, measured = [], []
    for i, text in enumerate(text.replace("\ud800", "") for text in HOSTILE):
        name, metric = f"{i}{text}", f"score of {text[:40]}"
        groups.append(Group(name, text, text, (metric,), {}, opponent=text, judge=text))
        measured += [Measured(r.name, name, items, items, {metric: rng.random(40)}) for r in rows]
    table = show(build_board(rows, groups, measured, notes=HOSTILE, n_resamples=200))
    conditions = {group.name: Conditions(3, group.task) for group in groups}
    for width in (48, 86):
        source = latex(table, conditions=conditions, width=width, letters=True, standalone=True)
        # Most papers have these two, which read captions in ways of their own.
        source = source.replace(
            r"\begin{document}", r"\usepackage{caption,hyperref}\begin{document}"
        )
        assert all(points < 3 for points in compile_tex(source, tmp_path).overfull)


def test_long_names_are_cut_and_still_differ() -> None:
    table = shown(names=tuple("m" * 200 + f"/{i}/" + "m" * 200 for i in range(3)))
    lines = [line for line in latex(table).splitlines() if line.startswith("mmm")]
    names = [line.split(" & ")[0] for line in lines]
    assert len(set(names)) == 3
    assert max(map(width_of, names)) < 70


def test_many_rows_and_columns_go_on_pages_that_hold_them(tmp_path: Path) -> None:
    table = shown(n_rows=90, n_groups=12)
    printed = compile_tex(latex(table, standalone=True), tmp_path)
    assert printed.overfull == []
    text = flat(printed.text)
    assert text.count("Table 1: (continued)") > 2
    for row in table.board.rows:
        assert f"{label(row, table.board)} " in text
    for i in range(12):
        assert f"quiz_{i} " in text


def test_notes_beyond_a_page_go_on_the_next(tmp_path: Path) -> None:
    table = shown(names=tuple(f"number {i}: " + "why not " * 60 for i in range(40)))
    printed = compile_tex(latex(table, standalone=True), tmp_path)
    assert printed.overfull == []
    text = flat(printed.text)
    assert all(f"pickled number {i}: why not" in text for i in range(40))


def test_a_table_of_nothing_compiles(tmp_path: Path) -> None:
    row = Checkpoint("sft", Path("sft"), "ready", method="sft")
    for groups in ([], [Group("quiz", "quiz", shown=("acc",))]):
        table = show(build_board([row], groups, []))
        assert "SFT" in compile_tex(latex(table, standalone=True), tmp_path).text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"interval_style": "box"}, "intervals are bracket, pm, subscript, not 'box'"),
        ({"paper_columns": 3}, "a paper has 1 or 2 columns, not 3"),
        ({"width": 5}, "a width of 5 digits holds no table"),
        ({"name": "tab}x"}, "a label is made of letters, digits and :._-, not 'tab}x'"),
    ],
)
def test_settings_that_make_no_table_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        latex(shown(), **settings)  # type: ignore[arg-type]


def test_a_caption_claims_only_what_the_table_shows() -> None:
    said = " ".join(caption(shown()))
    assert "† better than the baseline, on the same items (p\u00a0<\u00a00.05, Holm's" in said
    assert "‡" not in said
    assert "Bold: the best of its column" in said
    alone = shown(n_rows=1)
    said = " ".join(caption(alone))
    assert not any(word in said for word in ("†", "Bold", "correction", "baseline"))
    assert not any("Detectable" in note for note in footnotes(alone))


def test_notes_tell_how_it_was_measured() -> None:
    sampling = {"temperature": 0.7, "top_p": 0.9, "top_k": 0, "seed": 3, "max_gen_toks": 64}
    given = {
        "quiz_100%": Conditions(n_shots=5, shots="train"),
        "duel by a": Conditions(sampling=sampling),
        "duel by b": Conditions(sampling={**sampling, "temperature": 0.0}),
    }
    notes = footnotes(shown(), given)
    assert "quiz_100%: 5 examples from the train split before each item." in notes
    drawn = "texts drawn with temperature 0.7, top-p 0.9, seed 3, at most 64 tokens."
    assert f"duel: {drawn}" in notes
    assert "duel: texts by greedy decoding, at most 64 tokens." in notes
    assert "Each row is one training run (seed 0); intervals do not cover further runs." in notes


def test_conditions_are_read_from_manifests(tmp_path: Path) -> None:
    store = Store(tmp_path)
    manifest = {
        "identity": {"shots": "train"},
        "task": {"n_shots": 4},
        "sampling": None,
    }
    place = tmp_path / "cells" / "one"
    place.mkdir(parents=True)
    (place / "manifest.json").write_text(json.dumps(manifest))
    assert store.manifest("one") == manifest
    gathered = Gathered((), (), (), cells={("dpo", "quiz"): "one", ("sft", "quiz"): "other"})
    found = conditions_of(tmp_path, gathered)
    assert found == {"quiz": Conditions(4, "train", None)}


def test_pooled_seeds_are_no_single_runs() -> None:
    rows = [
        Checkpoint(f"{m}-{seed}", Path(m), "ready", method=m, seed=seed)
        for m in ("sft", "dpo")
        for seed in (0, 1)
    ]
    items = np.arange(40, dtype=np.int32)
    rng = np.random.default_rng(2)
    measured = [
        Measured(row.name, "quiz", items, items, {"acc": (rng.random(40) < 0.5).astype(float)})
        for row in rows
    ]
    group = Group("quiz", "quiz", shown=("acc",), higher_is_better={"acc": True})
    gathered = Gathered(tuple(rows), (group,), tuple(measured))
    apart = show(build_board(rows, [group], measured, n_resamples=200))
    together = show(pooled_board(gathered, n_resamples=200))
    assert "Rows of one method differ in the seed of training." in footnotes(apart)
    notes = " ".join(footnotes(together))
    assert "one training run" not in notes
    assert "intervals are over seeds and items" in notes
    assert caption(together)[0] == "2 methods on 1 task."


def test_values_without_items_are_said_to_be() -> None:
    row, other = (Checkpoint(m, Path(m), "ready", method=m) for m in ("sft", "dpo"))
    items = np.arange(40, dtype=np.int32)
    own = Measured("sft", "quiz", items, items, {"acc": np.tile([0.0, 1.0], 20)})
    told = Estimate(0.9, 0.8, 1.0, 0, method="imported", se=0.05)
    given_ = Measured("dpo", "quiz", items[:0], items[:0], {}, given={"acc": told})
    group = Group("quiz", "quiz", shown=("acc",), higher_is_better={"acc": True})
    table = show(build_board([row, other], [group], [own, given_], n_resamples=200))
    assert "by standard errors where values came without items" in " ".join(caption(table))
    notes = footnotes(table)
    assert "Values that came without items are compared unpaired, by standard errors." in notes
    assert "& \\multicolumn{3}{c}{40}" in latex(table)


def test_differences_within_the_noise_are_marked_as_such() -> None:
    table = shown()
    noise = {column.key: 1e9 for column in table.columns}
    board = dataclasses.replace(table.board, noise=noise)
    noisy = dataclasses.replace(table, board=board)
    said = " ".join(caption(noisy))
    assert "≈ different from the baseline by no more than a checkpoint measured twice" in said
    assert "better than" not in said
    assert r"$^{\approx}$" in latex(noisy)
