from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from prefbench.cells import final_checkpoints
from prefbench.checkpoints import find_checkpoints
from prefbench.demo.recipes import RECIPES, Settings
from prefbench.demo.texts import END, Pair
from prefbench.demo.trainer import N_ROWS, pad, pair_logps, rewards
from prefbench.demo.training import MARKER, train_zoo
from prefbench.errors import InputError, PrefbenchError
from prefbench.objectives import OBJECTIVES
from prefbench.records import METHODS

SCALE = 0.01
REWARD_MODEL = "data/models/prefbench/demo-reward"


@pytest.fixture
def zoo(small_zoo: Path, tmp_path: Path) -> Path:
    """A zoo of one's own to spoil."""
    return Path(shutil.copytree(small_zoo, tmp_path / "demo"))


def is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def front_matter(run: Path) -> dict[str, object]:
    return yaml.safe_load((run / "README.md").read_text().split("---\n")[1])


def test_recipes_are_known_and_in_order() -> None:
    ready = {"base"}
    for recipe in RECIPES:
        assert recipe.method in METHODS
        assert recipe.start in ready
        assert recipe.parameters.keys() <= OBJECTIVES[recipe.objective].parameters.keys()
        assert recipe.name not in ready
        ready.add(recipe.name)
    assert len({recipe.method for recipe in RECIPES}) == 10


def test_spin_goes_on_from_its_last_iterate(small_zoo: Path, tmp_path: Path) -> None:
    runs = small_zoo.resolve() / "checkpoints"
    every = find_checkpoints(runs, cache=tmp_path / "cache")
    found = {one.name: one for one in final_checkpoints(every)}
    first, second = (found[f"spin-{n}"] for n in (1, 2))
    assert (first.method, first.reference) == ("spin", str(runs / "sft"))
    assert (second.method, second.reference) == ("spin", str(runs / "spin-1"))
    for one, title, before in ((first, "SPIN 1", "SFT"), (second, "SPIN 2", "SPIN 1")):
        card = (one.path / "README.md").read_text()
        assert f"# {title} (prefbench demo)" in card
        assert f"Tuned from {before} with the objective `dpo` (beta = 0.1)" in card
        assert f"What is rejected is what {before} itself answers" in card
        # Where it begins it is its own reference, and its own samples are as likely as they are.
        (log, *_) = json.loads((one.path / "trainer_state.json").read_text())["log_history"]
        assert (log["rewards/chosen"], log["rewards/margins"]) == (0, 0)
        assert log["loss"] == pytest.approx(math.log(2))


def test_scaled_settings_keep_two_saves_and_both_kinds_of_rows() -> None:
    smallest = Settings().scaled(1e-9)
    assert (smallest.tuning.n_steps, smallest.base.n_steps, smallest.base.n_short_steps) == (
        2,
        4,
        2,
    )
    assert smallest.reward.n_steps == 2
    assert Settings().scaled(1.0) == Settings()


def test_every_run_is_like_a_trainers(small_zoo: Path) -> None:
    for recipe in RECIPES:
        run = small_zoo / "checkpoints" / recipe.name
        saved = [run / "checkpoint-1", run / "checkpoint-2", run]
        for folder in saved:
            state = json.loads((folder / "trainer_state.json").read_text())
            assert state["global_step"] == (1 if folder.name == "checkpoint-1" else 2)
            rewarded = any("rewards/chosen" in row for row in state["log_history"])
            assert rewarded == OBJECTIVES[recipe.objective].needs_reference
            assert (folder / "tokenizer.json").is_file()
        weights = [(folder / "model.safetensors").read_bytes() for folder in saved]
        assert weights[0] != weights[1]
        assert weights[1] == weights[2]
        front = front_matter(run)
        assert front["tags"] == ["prefbench-demo", recipe.method]
        start = (run / str(front["base_model"])).resolve()
        assert start.name == recipe.start
        assert (start / "model.safetensors").read_bytes() != weights[2]
        assert yaml.safe_load((run / "prefbench.yaml").read_text()) == {"seed": 0}


def test_the_reward_model_is_the_base_with_one_output(small_zoo: Path) -> None:
    run = small_zoo / REWARD_MODEL
    model, loaded = AutoModelForSequenceClassification.from_pretrained(
        run, output_loading_info=True
    )
    assert not any(loaded.values())
    assert model.config.num_labels == 1
    base = AutoModelForCausalLM.from_pretrained(small_zoo / "base")
    # Two steps of AdamW move a weight by about twice the learning rate, and a new layer is new.
    moved = (model.model.embed_tokens.weight - base.model.embed_tokens.weight).abs().max()
    assert 0 < moved.item() < 3 * Settings().reward.learning_rate
    front = front_matter(run)
    assert (run / str(front["base_model"])).resolve() == small_zoo.resolve() / "base"
    assert front["tags"] == ["prefbench-demo", "reward"]
    assert "2 steps of 16 pairs" in (run / "README.md").read_text()


def test_nothing_is_pickled(small_zoo: Path) -> None:
    suffixes = {path.suffix for path in small_zoo.rglob("*") if path.is_file()}
    assert suffixes == {"", ".json", ".jsonl", ".md", ".safetensors", ".yaml"}


def test_checkpoints_load_and_read_any_text(small_zoo: Path) -> None:
    run = small_zoo / "checkpoints" / "dpo"
    model = AutoModelForCausalLM.from_pretrained(run)
    tokenizer = AutoTokenizer.from_pretrained(run)
    assert model.config.max_position_embeddings >= 4096
    assert tokenizer.eos_token == tokenizer.pad_token == END
    assert tokenizer.chat_template is None
    text = "Ünïcode, 1234 and\n\ttabs 🙂"
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert len(tokenizer(" 1234").input_ids) == 4
    assert tokenizer(f"a{END}").input_ids[-1] == tokenizer.eos_token_id
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


def test_a_finished_zoo_is_reused_without_torch(small_zoo: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in small_zoo.rglob("*")}
    command = (
        "import sys; from pathlib import Path; from prefbench.demo.training import train_zoo; "
        f"runs = train_zoo(Path(sys.argv[1]), scale={SCALE}); "
        "print(len(runs), 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", command, str(small_zoo)], check=True, capture_output=True, text=True
    )
    assert done.stdout == "11 False\n"
    assert done.stderr == ""
    del before[small_zoo / ".lock"]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_interrupted_runs_start_again_and_end_in_the_same_bytes(zoo: Path, small_zoo: Path) -> None:
    names = "sft", "dpo", "spin-1", "spin-2"
    again = {"base": zoo / "base"} | {name: zoo / "checkpoints" / name for name in names}
    again["reward"] = zoo / REWARD_MODEL
    for run in again.values():
        (run / MARKER).unlink()
        (run / "model.safetensors").write_bytes(b"half")
        (run / "left.over").touch()
    (zoo / "data" / "mirror.yaml").unlink()
    seen: dict[str, list[float]] = {}
    runs = train_zoo(
        zoo,
        scale=SCALE,
        progress=lambda name, share: seen.setdefault(name, []).append(share),
    )
    assert [run.name for run in runs] == [recipe.name for recipe in RECIPES]
    assert seen.keys() == again.keys()
    assert all(shares == sorted(shares) and shares[-1] == 1.0 for shares in seen.values())
    files = [p.relative_to(small_zoo) for p in small_zoo.rglob("*") if p.is_file()]
    assert not list(zoo.rglob("left.over"))
    for file in files:
        if file.name != "trainer_state.json":  # it says how long training took
            assert (zoo / file).read_bytes() == (small_zoo / file).read_bytes(), file


def test_a_failed_run_says_why(zoo: Path) -> None:
    (zoo / "checkpoints" / "ipo" / MARKER).unlink()
    (zoo / "checkpoints" / "sft" / "model.safetensors").unlink()
    with pytest.raises(PrefbenchError, match=r"training ipo failed:\n(?s:.*)no file named model"):
        train_zoo(zoo, scale=SCALE)


def test_other_settings_and_other_folders_are_refused(zoo: Path) -> None:
    with pytest.raises(InputError, match="another seed, scale or recipe"):
        train_zoo(zoo, seed=1, scale=SCALE)
    (zoo / MARKER).unlink()
    with pytest.raises(InputError, match="is not empty and holds no demo"):
        train_zoo(zoo, scale=SCALE)


def test_ctrl_c_ends_every_process(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from prefbench.demo.training import train_zoo\n"
        "if __name__ == '__main__':\n"
        "    tell = lambda name, share: print(name, flush=True)\n"
        "    train_zoo(Path('demo'), progress=tell)\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "base\n"
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert told.count("Traceback") == 1
    assert "KeyboardInterrupt" in told
    until = time.monotonic() + 120
    while is_alive(process.pid) and time.monotonic() < until:
        time.sleep(0.1)  # multiprocessing's resource tracker ends a little after its parent
    assert not is_alive(process.pid)
    assert not (tmp_path / "demo" / "base" / MARKER).exists()


def test_rewards_are_those_of_single_texts(small_zoo: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(small_zoo / REWARD_MODEL)
    tokenizer = AutoTokenizer.from_pretrained(small_zoo / REWARD_MODEL)
    texts = [
        f"\n\nHuman: Hello!\n\nAssistant: {'Yes, ' * n}sure." for n in range(N_ROWS + 3, 0, -1)
    ]
    with torch.no_grad():
        got = rewards(model, tokenizer, texts)
        alone = [float(model(torch.tensor([tokenizer(t).input_ids])).logits) for t in texts]
    assert got.tolist() == pytest.approx(alone, abs=1e-6)
    assert len(set(alone)) == len(texts)


def test_pair_logps_are_those_of_single_texts(small_zoo: Path) -> None:
    run = small_zoo / "checkpoints" / "sft"
    model = AutoModelForCausalLM.from_pretrained(run)
    tokenizer = AutoTokenizer.from_pretrained(run)
    pairs = [
        Pair("Question: 1 + 1?\nAnswer:", " 2", "Question: 1 + 1?\nAnswer:", " 3, or 4"),
        Pair("Ada: A long story, then.\n", "Bruno: Oh no.", "Ada: Hi.\n", "Bruno: Go on, please."),
    ]
    with torch.no_grad():
        got = pair_logps(model, pad(pairs, tokenizer))
        for i, pair in enumerate(pairs):
            for prompt, response, total, tokens, count in (
                (pair[0], pair[1], got.chosen[i], got.chosen_tokens[i], got.n_chosen[i]),
                (pair[2], pair[3], got.rejected[i], got.rejected_tokens[i], got.n_rejected[i]),
            ):
                start = tokenizer(prompt).input_ids
                end = [*tokenizer(response).input_ids, tokenizer.eos_token_id]
                logits = model(torch.tensor([start + end])).logits[0].double()
                wanted = [
                    float(logits[len(start) - 1 + t].log_softmax(-1)[token])
                    for t, token in enumerate(end)
                ]
                assert int(count) == len(end)
                assert tokens[: len(end)].tolist() == pytest.approx(wanted, abs=1e-4)
                assert not tokens[len(end) :].any()
                assert float(total) == pytest.approx(sum(wanted), abs=1e-3)
