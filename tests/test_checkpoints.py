"""Directories as trainers write them, and as they are left when something went wrong."""

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from prefbench import checkpoints
from prefbench.checkpoints import find_checkpoints, read_checkpoint, tokenizer_folder
from prefbench.errors import CheckpointError

LONG_AGO = 1_500_000_000


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """A tiny Llama with its tokenizer, the same in shards, and a LoRA adapter of it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    top = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(["the cat sat on the mat"] * 5, vocab_size=280)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token="</s>")
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=300,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
        )
    ).to(torch.bfloat16)
    for name, size in (("whole", "1GB"), ("sharded", "15KB")):
        model.save_pretrained(top / name, max_shard_size=size)
        tokenizer.save_pretrained(top / name)
    with warnings.catch_warnings():  # peft asks for a name that transformers has deprecated
        warnings.simplefilter("ignore", FutureWarning)
        adapter = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    adapter.save_pretrained(top / "adapter")
    (top / "adapter" / "README.md").unlink()
    for file in top.rglob("*"):
        os.utime(file, (LONG_AGO, LONG_AGO))
    return top


@pytest.fixture
def runs(tmp_path):
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


@pytest.fixture
def put(saved, runs):
    """Copies a saved model to a place under runs."""

    def put(name, kind="whole"):
        return shutil.copytree(saved / kind, runs / name)

    return put


@pytest.fixture
def find(runs, tmp_path):
    """Checkpoints under runs by name."""

    def find(root=runs, **settings):
        settings = {"cache": tmp_path / "cache.sqlite", **settings}
        return {found.name: found for found in find_checkpoints(root, **settings)}

    return find


@pytest.fixture
def read(tmp_path):
    def read(path, **settings):
        return read_checkpoint(path, **{"cache": tmp_path / "cache.sqlite", **settings})

    return read


def write_json(path, **content):
    path.write_text(json.dumps(content))


def edit_json(path, **content):
    write_json(path, **(json.loads(path.read_text()) | content))


def point_to(adapter, base):
    edit_json(adapter / "adapter_config.json", base_model_name_or_path=str(base))


def trainer_state(folder, step, *keys):
    rows = [{"step": step, "loss": 0.5, **dict.fromkeys(keys, 0.1)}]
    write_json(folder / "trainer_state.json", global_step=step, log_history=rows)


def card(folder, text):
    (folder / "README.md").write_text(f"---\n{text}\n---\n\n# Model Card\n")


# What is found


def test_a_plain_model(put, find):
    path = put("sft")
    found = find()["sft"]
    assert (found.state, found.reason) == ("ready", None)
    assert found.path == path
    assert (found.architecture, found.dtype) == ("LlamaForCausalLM", "bfloat16")
    assert found.n_bytes == (path / "model.safetensors").stat().st_size
    n_layer = 4 * 16 * 16 + 3 * 16 * 32 + 2 * 16
    assert found.n_parameters == 2 * 300 * 16 + 2 * n_layer + 16
    assert re.fullmatch("[0-9a-f]{64}", found.fingerprint)
    assert not found.adapter


def test_the_dtype_is_that_of_most_parameters(put, find):
    import torch
    from safetensors.torch import save_file

    mixed = {f"norm{i}": torch.ones(4) for i in range(5)} | {"large": torch.ones(99).half()}
    save_file(mixed, put("sft") / "model.safetensors")
    assert (find()["sft"].dtype, find()["sft"].n_parameters) == ("float16", 119)


def test_shards_are_one_model(put, find):
    put("whole")
    path = put("sharded", "sharded")
    assert len(list(path.glob("model-*.safetensors"))) > 1
    whole, sharded = find()["whole"], find()["sharded"]
    assert sharded.state == "ready"
    assert sharded.n_parameters == whole.n_parameters
    assert sharded.dtype == whole.dtype


def test_a_trainers_run_in_natural_order(put, find):
    put("dpo")
    for step in (10, 9, 100):
        folder = put(f"dpo/checkpoint-{step}")
        trainer_state(folder, step)
        (folder / "tokenizer.json").unlink()  # some trainers save it with the final model only
    found = find()
    assert list(found) == ["dpo", "dpo/checkpoint-9", "dpo/checkpoint-10", "dpo/checkpoint-100"]
    assert [one.step for one in found.values()] == [None, 9, 10, 100]
    assert {one.method for one in found.values()} == {"dpo"}
    assert {one.state for one in found.values()} == {"ready"}
    assert tokenizer_folder(found["dpo/checkpoint-9"]) == found["dpo"].path


def test_a_run_or_a_checkpoint_as_root(put, find, runs):
    put("dpo/checkpoint-20")
    assert list(find(runs / "dpo")) == ["dpo/checkpoint-20"]
    assert list(find(runs / "dpo" / "checkpoint-20")) == ["checkpoint-20"]
    put("sft")
    assert list(find(runs / "sft")) == ["sft"]
    assert find(runs / "sft")["sft"].method == "sft"


def test_what_a_checkpoint_holds_inside_is_its_own(put, find):
    put("dpo/checkpoint-5")
    put("dpo/checkpoint-5/ref", "adapter")
    assert list(find()) == ["dpo/checkpoint-5"]


def test_other_directories_are_not_checkpoints(put, find, runs):
    put(".hidden/sft")
    for name in ("runs/Nov21/events.out", "global_step5/optimizer.pt", "logs/config.json"):
        (runs / name).parent.mkdir(parents=True)
        (runs / name).write_text("{}")
    (runs / "checkpoint-7").mkdir()
    (runs / "checkpoint-7" / "optimizer.pt").touch()
    assert find() == {}


def test_a_missing_root(runs):
    with pytest.raises(CheckpointError, match="nowhere is not a directory: name one"):
        find_checkpoints(runs / "nowhere")


def test_links_are_followed_once(put, find, runs, tmp_path):
    real = put("dpo/checkpoint-5")
    (runs / "best").symlink_to(real)
    (runs / "zero").symlink_to(real)
    (runs / "dpo" / "loop").symlink_to(runs)
    (runs / "itself").symlink_to(runs / "itself")
    (runs / "dangling").symlink_to(tmp_path / "nothing")
    outside = shutil.copytree(real, tmp_path / "elsewhere")
    (runs / "a-link").symlink_to(outside)
    found = find()
    assert list(found) == ["a-link", "dpo/checkpoint-5"]
    assert found["a-link"].path == outside


# Adapters


def test_an_adapter_takes_what_it_lacks_from_its_base(put, find):
    base = put("sft")
    point_to(put("dpo_lora", "adapter"), base)
    found = find()
    adapter = found["dpo_lora"]
    assert adapter.state == "ready"
    assert adapter.adapter
    assert adapter.architecture == "LlamaForCausalLM"
    assert adapter.n_parameters == 2 * 2 * (16 * 2 + 2 * 16)
    assert adapter.base == adapter.reference == str(base)
    assert adapter.origins["reference"] == adapter.origins["base"] == "adapter_config.json"
    assert tokenizer_folder(adapter) == base


@pytest.mark.parametrize("written", ["../../sft", "../sft", "sft", "runs/sft"])
def test_a_relative_base(put, find, written):
    base = put("sft")
    point_to(put("dpo/checkpoint-3", "adapter"), written)
    assert find()["dpo/checkpoint-3"].base == str(base)


def test_a_base_from_the_hubs_cache(put, find, saved, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    point_to(put("lora", "adapter"), "someone/tiny")
    missing = find()["lora"]
    assert missing.state == "incomplete"
    assert missing.base == "someone/tiny"
    assert missing.reason == (
        "its base someone/tiny is not on this machine: "
        "download it, or name its directory as base in prefbench.yaml"
    )
    model = tmp_path / "hub" / "models--someone--tiny"
    snapshot = shutil.copytree(saved / "whole", model / "snapshots" / ("0" * 40))
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("0" * 40)
    assert find()["lora"].state == "ready"
    assert find()["lora"].base == str(snapshot)


def test_a_base_in_a_bad_state(put, find):
    base = put("sft")
    adapter = put("lora", "adapter")
    point_to(adapter, base)
    (base / "tokenizer.json").unlink()
    assert find()["lora"].reason == f"its base {base}: no tokenizer: tokenizer.json is missing"
    edit_json(base / "config.json", auto_map={"AutoModel": "own.Model"})
    assert find()["lora"].state == "refused"
    point_to(adapter, adapter)
    assert find()["lora"].reason.endswith("is an adapter itself: merge that one first")
    point_to(adapter, "")
    assert find()["lora"].reason == "adapter_config.json names no base_model_name_or_path"


# Incomplete checkpoints


def cut(path, size):
    with path.open("r+b") as file:
        file.truncate(size)


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        (0, "is cut off in its header, at 0 bytes"),
        (5, "is cut off in its header, at 5 bytes"),
        (8, "is cut off in its header, at 8 bytes"),
        (100, "is cut off in its header, at 100 bytes"),
        (-1, "bytes where its header states"),
        (-4096, "bytes where its header states"),
    ],
)
def test_truncated_weights(put, find, size, reason):
    weights = put("sft") / "model.safetensors"
    cut(weights, size if size >= 0 else weights.stat().st_size + size)
    found = find()["sft"]
    assert found.state == "incomplete"
    assert reason in found.reason
    assert found.reason.startswith("model.safetensors")
    assert (found.fingerprint, found.architecture) == ("", "LlamaForCausalLM")


@pytest.mark.parametrize(
    "header", [b"{]", b"[]", b'{"a":1}', b'{"a":{"data_offsets":[]}}', b"\xff"]
)
def test_weights_that_are_no_safetensors(put, find, header):
    weights = put("sft") / "model.safetensors"
    weights.write_bytes(len(header).to_bytes(8, "little") + header)
    assert find()["sft"].reason == "model.safetensors does not start with a safetensors header"


def test_longer_weights_than_stated(put, find):
    with (put("sft") / "model.safetensors").open("ab") as file:
        file.write(b"more")
    assert "bytes where its header states" in find()["sft"].reason


def test_incomplete_shards(put, find):
    path = put("sft", "sharded")
    index = path / "model.safetensors.index.json"
    shards = sorted(path.glob("model-*.safetensors"))
    weight_map = json.loads(index.read_text())["weight_map"]
    cut(shards[1], shards[1].stat().st_size - 1)
    assert find()["sft"].reason.startswith(shards[1].name)
    shards[1].unlink()
    missing = f"{shards[1].name} is missing, which model.safetensors.index.json lists"
    assert find()["sft"].reason == missing
    shutil.copy(shards[0], shards[1])
    assert f"{shards[1].name} lacks the tensor " in find()["sft"].reason
    write_json(index, weight_map=weight_map | {"a": "../a.safetensors"})
    assert find()["sft"].state == "refused"
    assert "../a.safetensors, which is outside the checkpoint" in find()["sft"].reason
    write_json(index)
    assert find()["sft"].reason == "model.safetensors.index.json has no weight_map"
    index.unlink()
    assert find()["sft"].reason == (
        f"model.safetensors.index.json is missing beside {shards[0].name}"
    )


@pytest.mark.parametrize(
    "name",
    ["config.json", "generation_config.json", "tokenizer_config.json", "trainer_state.json"],
)
def test_broken_json(put, find, name):
    path = put("sft") / name
    path.write_text('{"a": ')
    assert find()["sft"].state == "incomplete"
    assert find()["sft"].reason.startswith(f"{name} is not valid JSON: ")
    path.write_text("[]")
    assert find()["sft"].reason == f"{name} holds no JSON object"


def test_missing_files(put, find):
    path = put("sft")
    (path / "tokenizer.json").rename(path / "tokenizer.json.part")
    assert find()["sft"].reason == "no tokenizer: tokenizer.json is missing"
    (path / "vocab.json").write_text("{}")
    assert find()["sft"].state == "incomplete"
    (path / "merges.txt").touch()
    assert find()["sft"].state == "ready"
    (path / "config.json").rename(path / "config.json.part")
    assert find()["sft"].reason == "config.json is missing"
    (path / "config.json.part").rename(path / "config.json")
    (path / "model.safetensors").unlink()
    assert find()["sft"].reason == "no weights: model.safetensors is missing"
    assert find()["sft"].state == "incomplete"
    (path / "config.json").write_text("{")
    assert find()["sft"].state == "incomplete"


def test_a_tokenizer_that_is_cut_off(put, find):
    tokenizer = put("sft") / "tokenizer.json"
    cut(tokenizer, tokenizer.stat().st_size // 2)
    assert find()["sft"].reason == "tokenizer.json is cut off"


@pytest.mark.parametrize("name", ["dpo/tmp-checkpoint-60", "dpo.tmp"])
def test_temporary_names_are_not_ready(put, find, name):
    put(name)
    assert find()[name].state == "incomplete"
    assert find()[name].reason.startswith("still being written, or left by a run")


# Refused checkpoints


@pytest.mark.parametrize("kind", ["whole", "adapter"])
def test_pickled_weights_need_a_flag(put, find, kind):
    base = put("base")
    path = put("dpo", kind)
    (weights,) = path.glob("*.safetensors")
    pickled = "adapter_model.bin" if kind == "adapter" else "pytorch_model.bin"
    weights.rename(path / pickled)
    if kind == "adapter":
        point_to(path, base)
    found = find()["dpo"]
    assert found.state == "refused"
    assert found.reason == (
        f"{pickled} is pickled and could run code when loaded: "
        "save the weights as safetensors, or pass --allow-pickle"
    )
    allowed = find(allow_pickle=True)["dpo"]
    assert allowed.state == "ready"
    assert allowed.n_bytes > 0
    assert allowed.dtype is allowed.n_parameters is None


def test_pickles_of_other_libraries(put, find, runs):
    path = put("dpo")
    (path / "model.safetensors").rename(path / "policy.pt")
    (path / "optimizer.pt").touch()
    found = find(allow_pickle=True)["dpo"]
    assert found.state == "refused"
    assert found.reason.startswith("policy.pt is a pickled training checkpoint")
    assert "--allow-pickle" in found.reason


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_own_code_needs_a_flag(put, find, name):
    path = put("dpo")
    edit_json(path / name, auto_map={"AutoModelForCausalLM": "modeling.Own"})
    (path / "modeling.py").write_text("class Own: ...")
    found = find()["dpo"]
    assert found.state == "refused"
    assert found.reason.startswith(f"{name} asks to run Python of its own")
    assert "--trust-remote-code" in found.reason
    allowed = find(allow_remote_code=True)["dpo"]
    assert allowed.state == "ready"
    (path / "modeling.py").write_text("class Own: 'changed'")
    assert find(allow_remote_code=True)["dpo"].fingerprint != allowed.fingerprint


def test_what_cannot_be_read_is_refused(put, find, monkeypatch):
    put("dpo")
    put("locked")
    real = type(put("sft")).iterdir

    def iterdir(path):
        if path.name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(type(put("ipo")), "iterdir", iterdir)  # root may read anything
    found = find()
    assert [one.state for one in found.values()] == ["ready", "ready", "refused", "ready"]
    assert found["locked"].reason.startswith("cannot be read: [Errno 13] Permission denied")


def test_what_vanishes_is_incomplete(put, find, monkeypatch):
    put("dpo")

    def vanish(*args, **settings):
        raise FileNotFoundError(2, "No such file or directory", "model.safetensors")

    monkeypatch.setattr(checkpoints, "fingerprint", vanish)
    assert find()["dpo"].state == "incomplete"
    assert find()["dpo"].reason.startswith("vanished while it was read")


OPENED: list[str] | None = None


@sys.addaudithook
def note_opened(event, args):
    if event == "open" and OPENED is not None:
        OPENED.append(Path(str(args[0])).name)


@pytest.fixture
def opened(monkeypatch):
    """Names of the files opened during a test, in order."""
    monkeypatch.setattr(sys.modules[__name__], "OPENED", [])
    return OPENED


def test_training_state_is_never_opened(put, find, opened):
    path = put("dpo/checkpoint-5")
    poison = {"training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth"}
    for name in poison:
        (path / name).touch()
    opened.clear()
    assert find()["dpo/checkpoint-5"].state == "ready"
    (path / "model.safetensors").unlink()
    assert find()["dpo/checkpoint-5"].reason == "no weights: model.safetensors is missing"
    assert "config.json" in opened
    assert not poison & set(opened)


# Where it came from


def test_the_sidecar_is_believed_first(put, find, runs):
    reference = put("start")
    path = put("kto/checkpoint-7")
    trainer_state(path, 7)
    card(path, "tags: [trl, orpo]\nbase_model: someone/else")
    (path / "prefbench.yaml").write_text("method: IPO\nstep: 70\nseed: 3\nreference: ../../start")
    found = find()["kto/checkpoint-7"]
    assert (found.method, found.step, found.seed) == ("ipo", 70, 3)
    assert found.reference == str(reference)
    assert found.origins == dict.fromkeys(["method", "step", "seed", "reference"], "prefbench.yaml")


def test_the_runs_sidecar_speaks_for_its_checkpoints(put, find, runs):
    put("a/checkpoint-7")
    (runs / "a" / "prefbench.yaml").write_text("method: my own\nstep: 99\nseed: 1")
    (runs / "a" / "checkpoint-7" / "prefbench.yaml").write_text("seed: 2")
    found = find()["a/checkpoint-7"]
    assert (found.method, found.step, found.seed) == ("my own", 7, 2)
    assert found.origins["step"] == "folder name"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("metod: dpo", "unknown key metod: use method, step, seed, reference, base"),
        ("step: soon", "step must be a whole number, not 'soon'"),
        ("seed: true", "seed must be a whole number, not True"),
        ("method: 3", "method must be text, not 3"),
        ("- dpo", "must hold keys: method, step, seed, reference, base"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_a_wrong_sidecar_refuses_the_checkpoint(put, find, text, reason):
    sidecar = put("dpo") / "prefbench.yaml"
    sidecar.write_text(text)
    found = find()["dpo"]
    assert found.state == "refused"
    assert str(sidecar) in found.reason
    assert reason in found.reason


def test_the_model_card(put, find, runs):
    base = put("start")
    path = put("run-3/checkpoint-5")
    card(runs / "run-3", "tags:\n- trl\n- kto\nbase_model: ../start\nlibrary_name: transformers")
    found = find()["run-3/checkpoint-5"]
    assert (found.method, found.origins["method"]) == ("kto", "README.md tags")
    assert (found.reference, found.origins["reference"]) == (str(base), "README.md base_model")
    card(path, "tags: sft\nbase_model: [gpt2]")
    found = find()["run-3/checkpoint-5"]
    assert (found.method, found.reference) == ("sft", None)
    (path / "README.md").write_text("---\na: [\n---")
    assert find()["run-3/checkpoint-5"].method == "kto"


def test_trls_tag_names_the_trainer_not_its_loss(put, find):
    for name in ("ipo", "dpo", "run"):
        card(put(name), "tags: [trl, dpo]")
    found = find()
    assert (found["ipo"].method, found["ipo"].origins["method"]) == ("ipo", "folder name")
    assert (found["dpo"].method, found["dpo"].origins["method"]) == ("dpo", "README.md tags")
    assert found["run"].method == "dpo"


def test_logged_rewards_do_not_name_a_method(put, find):
    for name in ("run", "sft", "ipo"):
        trainer_state(put(f"{name}/checkpoint-5"), 5, "rewards/chosen", "rewards/rejected")
    found = find()
    assert found["run/checkpoint-5"].method is None
    assert found["run/checkpoint-5"].origins["method"] == (
        "trainer_state.json: trained on preferences, method not named"
    )
    assert found["sft/checkpoint-5"].method is None
    assert found["ipo/checkpoint-5"].method == "ipo"
    assert found["ipo/checkpoint-5"].origins["step"] == "trainer_state.json"


def test_folder_names(put, find):
    put("dpo/seed_3/checkpoint-40")
    found = find()["dpo/seed_3/checkpoint-40"]
    assert (found.method, found.step, found.seed) == ("dpo", 40, 3)
    assert set(found.origins.values()) == {"folder name"}


# Fingerprints


def test_moving_and_describing_keep_the_fingerprint(put, read, runs):
    path = put("dpo/checkpoint-5")
    first = read(path).fingerprint
    assert read(shutil.copytree(path, runs / "other")).fingerprint == first
    card(path, "tags: [dpo]")
    (path / "prefbench.yaml").write_text("seed: 1")
    trainer_state(path, 5)
    (path / "training_args.bin").write_text("x")
    assert read(path).fingerprint == first
    assert read(path.rename(runs / "moved")).fingerprint == first


def test_a_tokenizer_counts_the_same_from_the_run(put, read, runs):
    path = put("dpo/checkpoint-5")
    first = read(path).fingerprint
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (path / name).rename(runs / "dpo" / name)
    assert read(path).fingerprint == first


def flip_last_bit(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def append_space(path):
    path.write_text(path.read_text() + " ")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("model.safetensors", flip_last_bit),
        ("tokenizer.json", append_space),
        ("tokenizer_config.json", append_space),
        ("chat_template.jinja", append_space),
        ("generation_config.json", append_space),
        ("config.json", append_space),
    ],
)
def test_what_changes_the_fingerprint(put, read, name, change):
    path = put("dpo")
    first = read(path).fingerprint
    change(path / name)
    changed = read(path)
    assert changed.state == "ready"
    assert changed.fingerprint != first


def test_one_bit_of_a_shard_changes_the_fingerprint(put, read):
    path = put("dpo", "sharded")
    first = read(path).fingerprint
    flip_last_bit(sorted(path.glob("model-*"))[1])
    assert read(path).fingerprint != first


def test_an_adapter_is_its_base_and_itself(put, read, runs):
    base, adapter = put("sft"), put("lora", "adapter")
    point_to(adapter, base)
    first = read(adapter).fingerprint
    point_to(adapter, base.rename(runs / "moved"))
    assert read(adapter).fingerprint == first
    edit_json(adapter / "adapter_config.json", lora_alpha=99)
    rescaled = read(adapter).fingerprint
    flip_last_bit(runs / "moved" / "model.safetensors")
    other_base = read(adapter).fingerprint
    flip_last_bit(adapter / "adapter_model.safetensors")
    assert len({first, rescaled, other_base, read(adapter).fingerprint}) == 4


def test_finding_needs_no_torch(put, runs, tmp_path):
    put("dpo")
    code = (
        "import sys, pathlib; from prefbench.checkpoints import find_checkpoints; "
        "found, = find_checkpoints(pathlib.Path(sys.argv[1]), cache=pathlib.Path(sys.argv[2])); "
        "assert found.state == 'ready'; "
        "assert not {'torch', 'transformers', 'safetensors', 'peft'} & set(sys.modules)"
    )
    arguments = [sys.executable, "-c", code, str(runs), str(tmp_path / "cache")]
    subprocess.run(arguments, check=True, cwd=Path.cwd())
