"""The final number, by a table of the endings that chat models write."""

from __future__ import annotations

import time

import pytest

from prefbench.extract import final_number, final_number_filter

EIGHTEEN = [
    # the task's own format, and what tuned models make of it
    "9 * 2 = 18\n#### 18",
    "####18",
    "#### $18",
    "#### 18.0",
    "#### **18**",
    "#### 18 dollars",
    "####\n18",
    "#### 9 * 2 = 18",
    "#### 18\n\nLet me double-check: 16 - 3 - 4 = 9 and 3 + 4 = 7.",
    "#### 18\n\nQuestion: Tom has 5 apples.\nAnswer: 5\n#### 5",
    "#### Step 1: Eggs\n16 - 7 = 9\n#### Step 2: Money\n9 * 2 = 18",
    "#### 1. Count the eggs\n9\n#### 2. Count the money\n\\boxed{18}",
    # boxes
    "The final answer is: $\\boxed{18}$. I hope it is correct.",
    "\\boxed{\\$18}",
    "\\boxed{18\\text{ dollars}}",
    "\\boxed{\\text{18 dollars for 9 eggs}}",
    "\\boxed{x = 18}",
    "\\boxed{9 \\times 2 = 18}",
    "First \\boxed{9}, then \\[ \\boxed{18} \\] because 9 > 7.",
    "\\fbox{18}",
    "\\boxed{18",
    # sentences
    "The answer is 18.",
    "The answer is 18...",
    "The answer is $18.00.",
    "The answer is \\(18\\).",
    "The answer is 18 (that is, 9 * 2 = 18; 3 + 4 = 7).",
    "The answer is 9 * 2 = 18. All 9 are sold.",
    "The answer is therefore 18",
    "So the answer is **18**. 16 eggs minus 7 are 9.",
    "Is the answer 9? No: the answer is 18",
    "Answer: 18 dollars. Hope this helps! Ask me 2 more.",
    "Answer: She sells 9 eggs at $2 each for $18.",
    "**Answer:** 18",
    "**Final Answer**: 18 eggs of 20",
    "### Final Answer\n18\n\nThat took 3 steps.",
    "The final answer is:\n\n$$18$$\n\nThis used 2 facts.",
    "FINAL ANSWER = 18",
    # bold
    "She earns **18** dollars every day. Let me know if you have 2 more questions.",
    "Therefore she earns **$18** at the market of 3 towns.",
    "**Step 1: Eggs** 9 left. **1. Add up** She makes **18 dollars**",
    "**9** eggs are left, and 9 * 2 = 18",
    "She earns **18**. To check: 18 / 2 = 9.",
    "She earns **18**!\n\n**Verification**: 18 / 2 = 9.",
    # no mark at all
    "18",
    "18 dollars",
    "She earns 18 dollars.",
    "She earns 18 dollars (that is, 9 eggs at $2 each).",
    "She sells 9 eggs and earns US$18.",
    "She earns 18 dollars on the 2nd day.",
    "She sells 9 for $18. Double-check: 9 * 2 is right, 3 + 4 = 7.",
    "She earns 18 😊 100%",
    "16 - 7 = 9, 9 × 2 = 18",
    "The answer is below.\n\n9 * 2 = 18",
    "Let me check: 9 * 2 = 18",
    "She has to check 9 eggs, and all in all they bring 18",
    "it is 18%",
    "0018",
    "18.",
    "(18)",
]

OTHERS = [
    ("The answer is 1,234.50", "1234.5"),
    ("#### 1,234,567", "1234567"),
    ("\\boxed{1{,}234}", "1234"),
    ("\\boxed{1\\,234}", "1234"),
    ("1,2,3", "3"),
    ("#### -5", "-5"),
    ("#### -$5", "-5"),
    ("The balance is −$5.", "-5"),
    ("20 - 25 = -5", "-5"),
    ("a range of 3-5", "5"),
    ("-0.0", "0"),
    ("0.50", "0.5"),
    (".5", "0.5"),
    ("\\boxed{\\frac{3}{4}}", "3/4"),
    ("The answer is 3/4 of a cup", "3/4"),
    ("36/2 = 18 and so x = 0", "0"),
    ("It grew by 25%", "25"),
    ("The share is 100%", "100"),
    ("40 + 60 = 100%", "100"),
    ("", None),
    ("####", None),
    ("I cannot say. \\boxed{} **", None),
    ("the 3rd time, x2 and H2O", None),
    ("١٨", None),
]


@pytest.mark.parametrize("text", EIGHTEEN)
def test_eighteen(text):
    assert final_number(text) == "18"


@pytest.mark.parametrize(("text", "number"), OTHERS)
def test_other_numbers(text, number):
    assert final_number(text) == number


@pytest.mark.parametrize(
    "part",
    [
        "9", "1,", "1,111", ",111", "9.", "9/", "-", "9-", " ", "\n", "#", "#### ", "####9.",
        "**", "**a", "*", "(", "(9", "\\boxed{", "{", "\\frac{9", "answer", "answer is ",
        "answer:\n", "1 + ", "x = ", "9 = ", " 100%", "double-check ", "\x00", "９", "😊",
    ],
)  # fmt: skip
@pytest.mark.parametrize("end", ["", "th", "}", " 18"])
def test_no_text_is_slow(part, end):
    text = (part * (100_000 // len(part))) + end
    begin = time.process_time()
    final_number(text)
    assert time.process_time() - begin < 5  # what is quadratic takes minutes


def test_filter_has_the_shape_lm_eval_asks_for():
    from lm_eval.filters.custom import CustomFilter

    custom = CustomFilter(filter_fn=final_number_filter)
    responses = [["#### 18", "none"], ["The answer is $1,000."], [None]]
    assert custom.apply(responses, [{}, {}, {}]) == [["18", "[invalid]"], ["1000"], ["[invalid]"]]


def test_every_real_solution_ends_on_its_own_number(real_data):
    import pandas as pd

    for answer in pd.read_parquet(real_data / "gsm8k" / "test.parquet").answer:
        solution, _, gold = answer.partition("#### ")
        gold = gold.replace(",", "")
        assert float(final_number(answer)) == float(gold)
        assert final_number(f"{solution}\\boxed{{{gold}}}") == final_number(gold)
