"""Documents: each data set's form, its odd rows, and agreement with lm-eval on real data."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from datasets import Dataset

from prefbench.documents import (
    MOST_NODES,
    alpaca_prompts,
    causal_groups,
    causal_pairs,
    causal_prompts,
    hellaswag,
    hh_pairs,
    hh_prompts,
    plain_pairs,
    plain_prompts,
    wikitext_pages,
)
from prefbench.errors import DataError

# --- HellaSwag


def test_hellaswag_equals_lm_evals_on_every_real_item(real_data):
    from lm_eval.tasks.hellaswag.utils import process_docs

    items = Dataset.from_parquet(str(real_data / "hellaswag" / "validation.parquet"))
    ours, theirs = hellaswag(items), process_docs(items)
    assert len(ours) == len(items) > 10_000
    for column in ("query", "choices", "gold"):
        assert ours[column][:] == theirs[column][:]


def test_hellaswag_takes_out_the_marks_of_wikihow():
    from lm_eval.tasks.hellaswag.utils import process_docs

    item = {
        "activity_label": "Folding",
        "ctx_a": "[header] How to fold [title] Take paper.  [step] Any will do.",
        "ctx_b": "THEN you",
        "endings": ["fold.", " [substeps] tear  [x] it.", "[]", "[open"],
        "label": "2",
    }
    (document,) = hellaswag(Dataset.from_list([item]))
    assert document["query"] == "Folding: How to fold. Take paper.  Any will do. Then you"
    assert document["gold"] == 2
    assert document == process_docs(Dataset.from_list([item]))[0]


# --- pairs


def hh(chosen: str, rejected: str) -> dict:
    (document,) = hh_pairs(Dataset.from_list([{"chosen": chosen, "rejected": rejected}]))
    return document


TALK = "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: And now? \n\nAssistant:"


def test_hh_pair():
    document = hh(f"{TALK} This.", f"{TALK} That.")
    assert document == {
        "prompt": TALK,
        "chosen": [" This."],
        "rejected": [" That."],
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello!"},
            {"role": "user", "content": "And now?"},
        ],
        "cluster": document["cluster"],
        "missing": "",
    }


def test_pairs_of_one_prompt_are_one_cluster():
    same = {hh(f"{TALK} This.", f"{TALK}{reply}")["cluster"] for reply in (" a", " b", "")}
    other = hh("\n\nHuman: Hi\n\nAssistant: a", "\n\nHuman: Hi\n\nAssistant: b")["cluster"]
    assert len(same) == 1
    assert other not in same


@pytest.mark.parametrize(
    ("chosen", "rejected", "missing", "prompt"),
    [
        (f"{TALK} same", f"{TALK} same", "chosen and rejected are identical", TALK),
        (f"{TALK} x", f"{TALK} ", "a reply is empty", TALK),
        (f"{TALK}", f"{TALK} x", "a reply is empty", TALK),
        (
            "\n\nHuman: Hi\n\nAssistant: a\n\nHuman: b\n\nAssistant: c",
            "\n\nHuman: Hi\n\nAssistant: a\n\nHuman: B\n\nAssistant: c",
            "the dialogues diverge before the last reply",
            "\n\nHuman: Hi\n\nAssistant:",
        ),
        (
            f"{TALK} x\n\nHuman: more\n\nAssistant: y",
            f"{TALK} x",
            "the dialogues diverge before the last reply",
            TALK,
        ),
        ("\n\nHuman: Hi", "\n\nHuman: Ho", "no assistant turn", ""),
        (f"{TALK} x", "\n\nHuman: Hi", "no assistant turn", ""),
        ("", "", "no assistant turn", ""),
    ],
)
def test_odd_dialogues_stay_and_say_why(chosen, rejected, missing, prompt):
    document = hh(chosen, rejected)
    assert (document["missing"], document["prompt"]) == (missing, prompt)
    assert prompt + document["chosen"][0] == chosen
    if missing != "no assistant turn":
        assert prompt + document["rejected"][0] == rejected


def test_turns_alternate_and_text_before_them_is_the_systems():
    prompt = "Be brief.\n\nHuman: One\n\nHuman: Two\n\nAssistant:"
    document = hh(f"{prompt} a", f"{prompt} b")
    assert document["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "One\n\nTwo"},
    ]


@pytest.mark.parametrize("name", ["helpful_base_test", "harmless_base_test"])
def test_real_dialogues(real_data, name):
    pairs = Dataset.from_parquet(str(real_data / "hh_rlhf" / f"{name}.parquet"))
    documents = hh_pairs(pairs)
    assert len(documents) == len(pairs) > 2000
    usable = 0
    for pair, document in zip(pairs, documents, strict=True):
        assert document["prompt"] + document["chosen"][0] == pair["chosen"]
        assert document["prompt"] + document["rejected"][0] == pair["rejected"]
        roles = [turn["role"] for turn in document["messages"]]
        assert all(first != second for first, second in pairwise(roles))
        if not document["missing"]:
            usable += 1
            assert document["prompt"].endswith("\n\nAssistant:")
            assert roles[0] == "user"
            assert document["chosen"][0].startswith(" ")
    assert 0.99 < usable / len(pairs) < 1


def test_plain_pairs():
    rows = [
        {"prompt": "1 + 1 =", "chosen": " 2", "rejected": " 3", "level": 1},
        {"prompt": "1 + 2 =", "chosen": " 3", "rejected": " 3", "level": 2},
        {"prompt": "1 + 3 =", "chosen": " 4", "rejected": "", "level": 3},
    ]
    documents = plain_pairs(Dataset.from_list(rows))
    assert documents[0] == {
        "prompt": "1 + 1 =",
        "chosen": [" 2"],
        "rejected": [" 3"],
        "level": 1,
        "cluster": documents[0]["cluster"],
        "missing": "",
        "messages": [{"role": "user", "content": "1 + 1 ="}],
    }
    assert documents["missing"][1:] == ["chosen and rejected are identical", "a reply is empty"]
    assert len(set(documents["cluster"])) == 3


# --- CausalDialogue


def node(number, text, *before, speaker="A"):
    kind = {"type": "utterance", "speaker": speaker} if speaker else {"type": "scene"}
    return {"id": number, "text": text, "prev_ids": list(before), **kind}


def dialogue(*nodes, name="d", category="custom"):
    return {"dialog_name": name, "category": category, "original_data": list(nodes)}


BRANCHES = (
    node(0, "Here.", speaker=None),
    node(1, "Well?", 0),
    node(2, "Tea!", 1, speaker="B"),
    node(3, "Cake!", 1, speaker="B"),
    node(4, "One tea.", 2),
    node(5, "One cake.", 3),
    node(6, "Bye.", 4, 5, speaker="B"),
)


def test_effects_of_rival_causes_are_negatives():
    (group,) = causal_groups(dialogue(*BRANCHES))
    assert group.cluster == "d/0-1"
    assert group.history == ("scene: Here.", "A: Well?")
    assert set(group.edges) == {("B: Tea!", "A: One tea."), ("B: Cake!", "A: One cake.")}
    assert set(group.negatives) == {("B: Tea!", "A: One cake."), ("B: Cake!", "A: One tea.")}


def test_causal_documents():
    documents = causal_pairs(Dataset.from_list([dialogue(*BRANCHES)]))
    assert documents[0] == {
        "prompt": "scene: Here.\nA: Well?\nB: Tea!\n",
        "chosen": ["A: One tea."],
        "rejected": ["A: One cake."],
        "cluster": "d/0-1",
        "missing": "",
        "messages": [{"role": "user", "content": "scene: Here.\nA: Well?\nB: Tea!"}],
    }
    assert documents["chosen"][1] == ["A: One cake."]


def test_an_effect_of_both_causes_is_no_negative():
    shared = (*BRANCHES, node(7, "Both?", 2, 3))
    documents = causal_pairs(Dataset.from_list([dialogue(*shared)]))
    assert documents["chosen"][:] == [["A: One tea.", "A: Both?"], ["A: One cake.", "A: Both?"]]
    assert documents["rejected"][:] == [["A: One cake."], ["A: One tea."]]


def test_a_cause_that_has_seen_every_effect_counts_for_the_positives():
    everything = (*BRANCHES[:5], node(5, "One cake.", 2, 3))
    documents = causal_pairs(Dataset.from_list([dialogue(*everything)]))
    assert documents["chosen"][:] == [["A: One tea.", "A: One cake."], ["A: One cake."]]
    assert documents["rejected"][:] == [[], ["A: One tea."]]
    assert documents["missing"][:] == ["", ""]


@pytest.mark.parametrize("odd", [{"text": "..."}, {"type": "scene"}])
def test_silences_and_scenes_are_no_effects_but_pass_as_causes(odd):
    nodes = [*BRANCHES[:5], {**BRANCHES[5], **odd}, node(6, "Bye.", 5, speaker="B")]
    assert causal_groups(dialogue(*nodes)) == []
    nodes = [*BRANCHES[:3], {**BRANCHES[3], **odd}, *BRANCHES[4:]]
    assert len(causal_groups(dialogue(*nodes))[0].edges) == 2


def test_paths_that_share_a_beginning_or_a_text_count_once():
    later = (node(6, "Bye.", 4), node(7, "Stay.", 4), node(8, "Tea!", 1, speaker="B"))
    again = (*BRANCHES[:6], *later, node(9, "One tea.", 8))
    (group,) = causal_groups(dialogue(*again))
    assert sorted(group.edges) == [("B: Cake!", "A: One cake."), ("B: Tea!", "A: One tea.")]


def test_one_cause_gives_no_group():
    assert causal_groups(dialogue(*BRANCHES[:3], node(4, "x", 2), node(5, "y", 2))) == []
    with pytest.raises(DataError, match="no dialogue has two causes with different effects"):
        causal_pairs(Dataset.from_list([dialogue(*BRANCHES[:3])]))


def test_what_the_authors_leave_out():
    long = [node(i, "x", i - 1) for i in range(7, MOST_NODES + 1)]
    assert causal_groups(dialogue(*BRANCHES, *long[:-1]))
    assert causal_groups(dialogue(*BRANCHES, *long)) == []
    assert causal_groups(dialogue(*BRANCHES, name="Exploration_1"))
    assert (
        causal_groups(dialogue(*BRANCHES, name="Exploration_1", category="original scripts")) == []
    )


def test_the_root_may_name_itself_and_ids_may_be_text():
    nodes = [{**n, "id": str(n["id"])} for n in BRANCHES]
    nodes[0]["prev_ids"] = [0]
    assert causal_groups(dialogue(*nodes)) == causal_groups(dialogue(*BRANCHES))


# Each pair of nodes follows both nodes of the pair before: 2 to the 30th paths.
DIAMONDS = (node(0, "x"), node(1, "x", 0), node(2, "x", 0))
DIAMONDS += tuple(node(i + j, "x", i - 2, i - 1) for i in range(3, 61, 2) for j in (0, 1))


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ((node(0, "x"), node(0, "y")), "dialogue d: two nodes have the id 0"),
        ((node(1, "x"),), "dialogue d: there is no node 0"),
        ((node(0, "x"), node(1, "y", 7)), "dialogue d: node 1 follows 7, no such id"),
        ((node(0, "x"), node(1, "y", 0, 2), node(2, "z", 1)), "dialogue d: node 1 follows itself"),
        ((node(0, "x"), node(1, "y", 0, 1)), "dialogue d: node 1 follows itself"),
        (DIAMONDS, "dialogue d: more than 20000 paths begin at node 0"),
    ],
)
def test_graphs_that_cannot_be_walked(nodes, message):
    with pytest.raises(DataError, match=message):
        causal_groups(dialogue(*nodes))


# --- WikiText


def test_pages_begin_at_titles_and_have_their_blank_lines():
    rows = [
        "",
        " = One = \n",
        "",
        " Text = text . \n",
        " = = Part = = \n",
        "",
        " = Two = \n",
        " End \n",
    ]
    pages = wikitext_pages(Dataset.from_list([{"text": row} for row in rows]))["page"][:]
    assert pages == [
        " = One = \n \n Text = text . \n = = Part = = \n ",
        " = Two = \n End \n",
    ]


def test_pages_of_the_real_text(real_data):
    lines = Dataset.from_parquet(str(real_data / "perplexity" / "wikitext2_raw_test.parquet"))
    pages = wikitext_pages(lines)["page"][:]
    assert len(pages) == 62
    text = "".join(line.replace("\r", "") or " \n" for line in lines["text"])
    assert " \n" + "\n".join(pages) == text
    # The published wiki.test.raw has this size; word counts are what lm-eval divides by.
    assert len(text.encode()) == 1_290_590
    assert sum(len(page.split()) for page in pages) == len(text.split())
    titles = [re.match(r" = (.*) = \n", page)[1] for page in pages]
    assert not any(title.startswith("=") or title.endswith("=") for title in titles)


# --- errors


@pytest.mark.parametrize(
    ("function", "absent"),
    [
        (hellaswag, "activity_label, ctx_a, ctx_b, endings, label"),
        (hh_pairs, "chosen, rejected"),
        (plain_pairs, "prompt, chosen, rejected"),
        (causal_pairs, "dialog_name, category, original_data"),
        (wikitext_pages, "text"),
    ],
)
def test_missing_columns_are_named(function, absent):
    with pytest.raises(DataError, match=f"no column {absent}, only other, more; does the task"):
        function(Dataset.from_list([{"other": 1, "more": 2}]))


@pytest.mark.parametrize("function", [hh_pairs, plain_pairs])
def test_a_column_that_holds_no_text_is_named(function):
    chat = [{"role": "user", "content": "Hi"}]
    rows = Dataset.from_list([{"prompt": "x", "chosen": chat, "rejected": "y"}])
    with pytest.raises(DataError, match=r"column chosen holds \[.*where a text is needed"):
        function(rows)


# --- prompts


def test_hh_prompts_end_where_the_reply_begins_and_know_the_chosen_one():
    asked = "\n\nHuman: Hi\n\nAssistant:"
    rows = [
        {"chosen": f"{asked} Hello!", "rejected": f"{asked} No."},
        {"chosen": f"{asked} Same", "rejected": f"{asked} Same"},
        {"chosen": asked, "rejected": f"{asked} Go"},
        {"chosen": "no turns", "rejected": "no turns here"},
    ]
    first, same, empty, broken = hh_prompts(Dataset.from_list(rows))
    assert first["prompt"] == asked
    assert first["messages"] == [{"role": "user", "content": "Hi"}]
    assert first["reference"] == " Hello!"
    assert (first["missing"], same["missing"], empty["missing"]) == ("", "", "")
    assert same["reference"] == " Same"  # that the replies are alike matters to pairs alone
    assert empty["reference"] is None
    assert broken["missing"]
    assert first["cluster"] == same["cluster"] != broken["cluster"]


def test_prompts_of_a_user_keep_their_columns():
    rows = [
        {"prompt": "Why?", "reference": "Because.", "topic": "a"},
        {"prompt": "Who?", "reference": None, "topic": "b"},
        {"prompt": " ", "reference": " ", "topic": "c"},
    ]
    why, who, blank = plain_prompts(Dataset.from_list(rows))
    assert (why["prompt"], why["reference"], why["topic"]) == ("Why?", "Because.", "a")
    assert why["messages"] == [{"role": "user", "content": "Why?"}]
    assert who["reference"] is None
    assert blank["missing"] == "the prompt is empty"
    assert blank["reference"] is None
    (only,) = plain_prompts(Dataset.from_list([{"prompt": "Why?"}]))
    assert only["reference"] is None


def test_alpaca_prompts_are_instructions_with_the_baselines_output():
    rows = [{"instruction": "Count.", "output": "1 2 3", "generator": "someone"}]
    (row,) = alpaca_prompts(Dataset.from_list(rows))
    assert (row["prompt"], row["reference"], row["generator"]) == ("Count.", "1 2 3", "someone")


@pytest.mark.parametrize(
    ("make", "column"), [(plain_prompts, "prompt"), (alpaca_prompts, "instruction")]
)
def test_a_prompt_that_is_no_text_is_refused(make, column):
    with pytest.raises(DataError, match="texts, not 3"):
        make(Dataset.from_list([{column: 3}]))
    with pytest.raises(DataError, match=f"no column {column}"):
        make(Dataset.from_list([{"question": "Why?"}]))


def test_causal_prompts_know_the_first_effect(tmp_path):
    node = {"type": "utterance", "speaker": "A"}
    dialogue = {
        "dialog_name": "forked",
        "category": "made up",
        "original_data": [
            {**node, "id": 0, "text": "Shall we?", "prev_ids": []},
            {**node, "id": 1, "text": "Yes.", "prev_ids": [0]},
            {**node, "id": 2, "text": "No.", "prev_ids": [0]},
            {**node, "id": 3, "text": "Come, then.", "prev_ids": [1]},
            {**node, "id": 4, "text": "Stay, then.", "prev_ids": [2]},
        ],
    }
    rows = causal_prompts(Dataset.from_list([dialogue])).to_list()
    assert {row["reference"] for row in rows} == {"A: Come, then.", "A: Stay, then."}
    assert len({row["cluster"] for row in rows}) == 1  # one history, as in pairs
    assert len({row["prompt"] for row in rows}) == 2
    assert all(row["prompt"].endswith("\n") and not row["missing"] for row in rows)
