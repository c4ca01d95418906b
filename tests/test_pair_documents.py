"""Pairs made of benchmarks: the right one against each wrong one, slips, and two prompts."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from datasets import Dataset, concatenate_datasets
from rapidfuzz.distance import Levenshtein

from prefbench.documents import causal_pairs
from prefbench.errors import DataError
from prefbench.pair_documents import (
    NOTHING_TO_CORRUPT,
    arc_pairs,
    causal_effects,
    gsm8k_pairs,
    hellaswag_pairs,
    hh_domain_pairs,
)
from prefbench.tasks import tasks_folder
from tests.asking import requests_of
from tests.scripted import ScriptedEngine

# --- the right choice against each wrong one


def question(text: str, labels: str, right: str) -> dict:
    choices = {"text": [f"{text} {label}" for label in labels], "label": list(labels)}
    return {"question": text, "choices": choices, "answerKey": right}


def test_every_wrong_choice_is_a_pair_with_the_right_one():
    rows = [question("Which?", "ABC", "B"), question("Who?", "1234", "4")]
    documents = arc_pairs(Dataset.from_list(rows))
    assert documents[0] == {
        "prompt": "Question: Which?\nAnswer:",
        "chosen": [" Which? B"],
        "rejected": [" Which? A"],
        "cluster": documents[0]["cluster"],
        "missing": "",
        "messages": [{"role": "user", "content": "Question: Which?\nAnswer:"}],
    }
    assert documents["rejected"][1:] == [[" Which? C"], [" Who? 1"], [" Who? 2"], [" Who? 3"]]
    assert documents["chosen"][1:] == [[" Which? B"], *[[" Who? 4"]] * 3]
    assert list(Counter(documents["cluster"]).values()) == [2, 3]


def test_two_choices_that_are_the_same_are_no_pair():
    row = question("Which?", "ABC", "B")
    row["choices"]["text"][2] = "Which? B"
    documents = arc_pairs(Dataset.from_list([row]))
    assert documents["missing"][:] == ["", "chosen and rejected are identical"]


def test_an_answer_key_that_no_choice_has_is_told():
    with pytest.raises(DataError, match=r"question 'Which\?': no choice is labelled 'E'"):
        arc_pairs(Dataset.from_list([question("Which?", "ABCD", "E")]))


def test_every_wrong_ending_is_a_pair_with_the_right_one():
    row = {
        "activity_label": "Folding",
        "ctx_a": "[header] Take paper.",
        "ctx_b": "THEN you",
        "endings": ["fold.", "[step] tear.", "eat.", "burn."],
        "label": "1",
    }
    documents = hellaswag_pairs(Dataset.from_list([row]))
    assert set(documents["prompt"]) == {"Folding: Take paper. Then you"}
    assert documents["chosen"][:] == [["  tear."]] * 3  # its space is lm-eval's
    assert documents["rejected"][:] == [[" fold."], [" eat."], [" burn."]]
    assert len(set(documents["cluster"])) == 1


@pytest.mark.parametrize(
    ("split", "n_questions", "n"), [("train", 1119, 3357), ("validation", 299, 895)]
)
def test_arc_gives_as_many_pairs_as_published(real_data, split, n_questions, n):
    rows = Dataset.from_parquet(str(real_data / "arc" / f"arc_challenge_{split}.parquet"))
    documents = arc_pairs(rows)
    assert (len(rows), len(documents)) == (n_questions, n)
    assert set(documents["missing"]) == {""}
    assert len(set(documents["cluster"])) == len(set(rows["question"]))


def test_hellaswag_gives_as_many_pairs_as_published(real_data):
    rows = Dataset.from_parquet(str(real_data / "hellaswag" / "validation.parquet"))
    documents = hellaswag_pairs(rows)
    assert len(documents) == 3 * len(rows) == 30_126
    assert set(documents["missing"]) == {""}


# --- slips


def slip(solution: str, asked: str = "How many?") -> dict:
    rows = Dataset.from_list([{"question": asked, "answer": solution}])
    (document,) = gsm8k_pairs(rows)
    return document


def slips(solution: str, n: int = 60) -> set[str]:
    """What becomes of a solution under many questions."""
    rows = [{"question": f"How many? {i}", "answer": solution} for i in range(n)]
    documents = gsm8k_pairs(Dataset.from_list(rows))
    assert set(documents["missing"]) == {""}
    assert {chosen[0] for chosen in documents["chosen"]} == {f" {solution}"}
    return {rejected[0][1:] for rejected in documents["rejected"]}


STEPS = "Tom has 2*3=<<2*3=6>>6 pens.\nWith 6 more he has 6+6=<<6+6=12>>12 pens.\n#### 12"


def test_a_mark_and_its_echo_are_corrupted_and_nothing_else():
    document = slip(STEPS)
    assert document["prompt"] == "Question: How many?\nAnswer:"
    assert document["chosen"] == [f" {STEPS}"]
    assert document["missing"] == ""
    assert slips(STEPS) == {
        STEPS.replace("=6>>6", f"={digit}>>{digit}") for digit in (1, 2, 3, 4, 5, 7, 8, 9)
    }


def test_a_slip_hangs_on_the_question_and_its_solution_alone():
    other = "1+1=<<1+1=2>>2 and 4\n2+40=<<2+40=42>>42\n#### 42"
    rows = [{"question": str(i), "answer": answer} for i in range(9) for answer in (STEPS, other)]
    forward = gsm8k_pairs(Dataset.from_list(rows))["rejected"][:]
    assert gsm8k_pairs(Dataset.from_list(rows[::-1]))["rejected"][::-1] == forward
    assert gsm8k_pairs(Dataset.from_list(rows[:5]))["rejected"][:] == forward[:5]
    # Pinned: another slip would be other data under the same name.
    assert slip(STEPS)["rejected"] == [f" {STEPS.replace('=6>>6', '=7>>7')}"]


@pytest.mark.parametrize(
    ("step", "form"),
    [
        ("<<2*600=1200>>1,200 nails", r"<<2\*600=(\d{4})>>(\d),(\d{3}) nails"),
        ("<<2*600=1,200>>1200 nails", r"<<2\*600=(\d),(\d{3})>>(\d{4}) nails"),
        ("<<1/8=0.125>>.125 of it", r"<<1/8=0(\.\d{3})>>(\.\d{3}) of it"),
        ("<<1/8=.125>>0.125 of it", r"<<1/8=(\.\d{3})>>0(\.\d{3}) of it"),
        ("<<20*.5=10>>10.00 in all", r"<<20\*.5=(\d\d)>>(\d\d).00 in all"),
        ("$<<20*.55=11.00>>11 in all", r"\$<<20\*.55=(\d\d).00>>(\d\d) in all"),
        ("<<5-8=-3>>-3 degrees", r"<<5-8=(-\d)>>(-\d) degrees"),
        ("<<5-8=-3>>-$3 in all", r"<<5-8=-(\d)>>-\$(\d) in all"),
        ("<<50+25=75>>$75.", r"<<50\+25=(\d\d)>>\$(\d\d)\."),
        ("<<50+25=75>>75% of it", r"<<50\+25=(\d\d)>>(\d\d)% of it"),
        ("<<50+25=75>> 75 of it", r"<<50\+25=(\d\d)>> (\d\d) of it"),
        ("<<50+25=75%>>75% of it", r"<<50\+25=(\d\d)%>>(\d\d)% of it"),
        ("<<75=75>>75, and 75", r"<<75=(\d\d)>>(\d\d), and 75"),
        ("x=<<9+9=18=18>>18", r"x=<<9\+9=18=(\d\d)>>(\d\d)"),
    ],
)
def test_forms_of_numbers(step, form):
    def number(text: str) -> str:
        found = re.fullmatch(rf"75 1200 {form}\n3\*7=<<3\*7=21>>21\n#### 21", text)
        assert found, text
        digits = "".join(found.groups())
        half = len(digits) // 2
        assert digits[:half] == digits[half:]
        return digits[:half]

    solution = f"75 1200 {step}\n3*7=<<3*7=21>>21\n#### 21"
    found = {number(corrupted) for corrupted in slips(solution)}
    assert len(found) >= 8
    for one in found:
        assert one != number(solution)
        assert not re.match(r"-?0", one)


@pytest.mark.parametrize("behind", ["pens", ". 4 more", " 4 more", " pens, 6 of them red", ""])
def test_a_mark_without_an_echo_is_corrupted_alone(behind):
    for corrupted in slips(f"2*3=<<2*3=6>>{behind}\n6+6=<<6+6=12>>12\n#### 12"):
        assert re.fullmatch(
            rf"2\*3=<<2\*3=[1-57-9]>>{re.escape(behind)}\n6\+6=<<6\+6=12>>12\n#### 12", corrupted
        )


@pytest.mark.parametrize(
    "solution",
    [
        "It is 12.\n#### 12",  # no mark
        "6+6=<<6+6=12>>12\n#### 12",  # the final result alone
        "6+6=<<6+6=12>>12\nOr 3*4=<<3*4=12>>12\nSo 12.\n#### 12",  # whose result is the answer
        "600*2=<<600*2=1200.0>>1200 in all.\nSo 1200.\n#### 1,200",  # the same otherwise written
        "It costs <<50*.5=25.4>>25.4, so 25.\n#### 25",  # rounded in the last line
        "10/3=<<10/3=3.33>>3.3 each.\nThat is 7.\n#### 7",  # the echo is another number
        "6/8=<<6/8=3/4>>3/4 of it.\nThat is 7.\n#### 7",  # no number
        "6/2=<<6/2=3>>3/4 of it.\nThat is 7.\n#### 7",  # the echo is a part of a number
        "<<6/2=3>\nThat is <<=>> 7 <<x>>.\n#### 7",  # no marks
        "2*3=<<2*3=6>>6\n6+6=<<6+6=12>>12",  # no answer
        "2*3=<<2*3=6>>6\n6+6=<<6+6=12>>12\n#### none",
        "",
    ],
)
def test_where_nothing_is_intermediate_the_pair_is_missing(solution):
    assert slip(solution)["missing"] == NOTHING_TO_CORRUPT or not solution


def test_no_slip_becomes_the_final_result():
    corrupted = slips("5*2=<<5*2=10>>10\n10+1+1=<<10+1+1=12>>12\n#### 12", 400)
    assert len(corrupted) == 8 + 8  # nine digits for 1 less 0, nine for 0 less 2
    assert not any("=12>>12\n1" in one for one in corrupted)


def test_the_last_mark_may_be_corrupted_where_steps_follow_it():
    solution = "2*3=<<2*3=6>>6 pens.\nWith 6 more that makes 12 pens.\n#### 12"
    assert len(slips(solution)) == 8
    many = "2*3=<<2*3=6>>6, 6+1=<<6+1=7>>7, so 8\n#### 8"  # a line of two steps
    assert slips(many) == {many.replace("=6>>6", f"={d}>>{d}") for d in (1, 2, 3, 4, 5, 7, 9)}


def test_steps_are_drawn_alike():
    solution = "1+1=<<1+1=2>>2\n5*999=<<5*999=4995>>4995\n2+7=<<2+7=9>>9\nSo 11.\n#### 11"
    rows = [{"question": str(i), "answer": solution} for i in range(900)]
    rejected = [texts[0] for texts in gsm8k_pairs(Dataset.from_list(rows))["rejected"]]
    changed = Counter(
        next(i for i, line in enumerate(solution.split("\n")) if line not in text.split("\n"))
        for text in (one.strip() for one in rejected)
    )
    assert all(250 < changed[i] < 350 for i in range(3))


@pytest.mark.parametrize(("split", "n_missing"), [("test", 53), ("train", 376)])
def test_slips_of_real_solutions(real_data, split, n_missing):
    rows = Dataset.from_parquet(str(real_data / "gsm8k" / f"{split}.parquet"))
    documents = gsm8k_pairs(rows)
    assert len(documents) == len(rows)
    assert Counter(documents["missing"]) == {
        "": len(rows) - n_missing,
        NOTHING_TO_CORRUPT: n_missing,
    }
    number = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?|\.\d+")
    distances = []
    for document in documents:
        (chosen,), (rejected,) = document["chosen"], document["rejected"]
        if document["missing"]:
            continue
        before, after = (list(number.finditer(text)) for text in (chosen, rejected))
        assert number.sub("#", chosen) == number.sub("#", rejected)
        changed = [(a, b) for a, b in zip(before, after, strict=True) if a[0] != b[0]]
        values = {tuple(float(one[0].replace(",", "")) for one in pair) for pair in changed}
        assert len(values) == 1  # the same number becomes the same other one
        # The mark and its echo, with no step between.
        assert len(changed) == 2
        assert chosen[changed[0][0].end() : changed[1][0].start()] in (">>", ">>-")
        ((old, new),) = values
        answer = float(chosen.rpartition("#### ")[2].replace(",", ""))
        assert len({old, new, abs(answer)}) == 3
        assert chosen.split("\n")[-1] == rejected.split("\n")[-1]
        end = changed[1][0].end()
        assert chosen[end:] == rejected[end:]
        distances.append(Levenshtein.normalized_distance(chosen, rejected))
    assert max(distances) < 0.065
    assert sum(distances) / len(distances) < 0.01


# --- two prompts


def said(number: int, text: str, *before: int) -> dict:
    node = {"id": number, "type": "utterance", "speaker": "A", "text": text}
    return {**node, "prev_ids": list(before)}


def dialogues(*nodes: dict) -> Dataset:
    dialogue = {"dialog_name": "d", "category": "custom", "original_data": list(nodes)}
    return Dataset.from_list([dialogue])


FORKED = (said(0, "Shall we?"), said(1, "Yes.", 0), said(2, "No.", 0), said(3, "Come.", 1))


def test_a_cause_stands_against_a_cause_that_never_had_the_effect():
    documents = causal_effects(dialogues(*FORKED, said(4, "Stay.", 2)))
    assert documents[0] == {
        "prompt": "A: Shall we?\nA: Yes.\n",
        "chosen": ["A: Come."],
        "prompt_rejected": "A: Shall we?\nA: No.\n",
        "rejected": ["A: Come."],
        "cluster": "d/0",
        "missing": "",
        "messages": [{"role": "user", "content": "A: Shall we?\nA: Yes."}],
        "messages_rejected": [{"role": "user", "content": "A: Shall we?\nA: No."}],
    }
    assert documents[1]["rejected"] == documents[1]["chosen"] == ["A: Stay."]
    assert len(documents) == 2


def test_an_effect_that_no_other_cause_lacks_is_left_out():
    # After "No." came all that came after "Yes.", and more.
    documents = causal_effects(dialogues(*FORKED, said(4, "Come.", 2), said(5, "Stay.", 2)))
    pairs = [(d["chosen"], d["prompt_rejected"].split("\n")[1], d["rejected"]) for d in documents]
    assert pairs == [
        (["A: Come."], "A: Yes.", ["A: Stay."]),
        (["A: Stay."], "A: Yes.", ["A: Stay."]),
    ]


def test_rivals_take_turns_and_were_never_seen():
    nodes = [said(0, "Go on.")]
    nodes += [said(1 + i, f"Cause {i}.", 0) for i in range(3)]
    nodes += [said(4 + i, f"Effect {i}.", 1 + i) for i in range(3)]
    nodes += [said(7, "Effect 3.", 1)]
    data = dialogues(*nodes)
    seen = {(d["prompt"], y) for d in causal_pairs(data) for y in d["chosen"]}
    documents = causal_effects(data)
    assert {(d["prompt"], d["chosen"][0]) for d in documents} == seen
    rivals = [(d["prompt_rejected"], d["rejected"][0]) for d in documents]
    assert not seen & set(rivals)
    assert rivals[0] != rivals[1]  # of the cause with two effects
    assert len(rivals) == 4
    assert all(d["prompt"] != d["prompt_rejected"] for d in documents)
    assert len({d["cluster"] for d in documents}) == 1


def test_dialogues_without_rivals_are_refused():
    with pytest.raises(DataError, match="causal_effects: no dialogue has an effect of one cause"):
        causal_effects(dialogues(*FORKED))


# --- domains


def test_domains_come_by_turns():
    def row(text: str, domain: str) -> dict:
        prompt = f"\n\nHuman: {text}\n\nAssistant:"
        return {"chosen": f"{prompt} yes", "rejected": f"{prompt} no", "domain": domain}

    rows = [row("a", "helpful"), row("b", "helpful"), row("c", "helpful"), row("d", "harmless")]
    documents = hh_domain_pairs(Dataset.from_list(rows))
    assert documents["domain"][:] == ["helpful", "harmless", "helpful", "helpful"]
    said_first = [messages[0]["content"] for messages in documents["messages"]]
    assert said_first == ["a", "d", "b", "c"]
    assert documents["rejected"][:] == [[" no"]] * 4


HH_DOMAINS = """
include: {pairs}
task: hh_domains
dataset_path: parquet
dataset_kwargs: {{data_files: {{test: hh.parquet}}}}
test_split: test
process_docs: !function prefbench.pair_documents.hh_domain_pairs
metadata:
  version: 1.0
  prefbench: {{measure: gradients, sample: 64, metrics: [domain_cosine]}}
"""


def test_helpful_and_harmless_dialogues_are_domains_of_one_task(real_data, tmp_path):
    domains = {
        name: Dataset.from_parquet(str(real_data / "hh_rlhf" / f"{name}_base_test.parquet"))
        for name in ("helpful", "harmless")
    }
    # As tasks/README.md makes the file.
    concatenate_datasets(
        [rows.add_column("domain", [name] * len(rows)) for name, rows in domains.items()]
    ).to_parquet(str(tmp_path / "hh.parquet"))
    text = HH_DOMAINS.format(pairs=tasks_folder() / "_pairs.yaml")
    (tmp_path / "hh_domains.yaml").write_text(text)
    engine = ScriptedEngine()
    requests = requests_of("hh_domains", None, engine, folder=tmp_path, limit=40)
    assert [item.fields["domain"] for item in requests.items] == ["helpful", "harmless"] * 20
    sent = [item.prompt + item.continuations[0] for item in requests.items]
    assert sent[::2] == domains["helpful"]["chosen"][:20]
    assert sent[1::2] == domains["harmless"]["chosen"][:20]


# --- errors


@pytest.mark.parametrize(
    ("function", "absent"),
    [
        (arc_pairs, "question, choices, answerKey"),
        (gsm8k_pairs, "question, answer"),
        (hellaswag_pairs, "activity_label, ctx_a, ctx_b, endings, label"),
        (causal_effects, "dialog_name, category, original_data"),
        (hh_domain_pairs, "chosen, rejected, domain"),
    ],
)
def test_missing_columns_are_named(function, absent):
    with pytest.raises(DataError, match=f"no column {absent}, only other, more; does the task"):
        function(Dataset.from_list([{"other": 1, "more": 2}]))
