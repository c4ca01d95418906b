"""Kinds of broken checkpoints: how each is made out of a whole one, and what must be said of it."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import load_file, save_file

MARKER = "ran"
"""A file that hostile checkpoints try to make."""
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
MANY = 10**5


class Broken(NamedTuple):
    """A kind of damage.

    Attributes:
        name: of the checkpoint's folder.
        do: damages the copy of a whole checkpoint.
        said: a part of what is said of it.
    """

    name: str
    do: Callable[[Path], object]
    said: str


def tensors(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Other weights."""

    def do(folder: Path) -> None:
        found = load_file(folder / WEIGHTS)
        change(found)
        save_file(found, folder / WEIGHTS, {"format": "pt"})

    return do


def settings(file: str = CONFIG, **facts: Any) -> Callable[[Path], None]:
    """Other entries of a JSON file; None leaves one out."""

    def do(folder: Path) -> None:
        found = {**json.loads((folder / file).read_text()), **facts}
        found = {name: value for name, value in found.items() if value is not None}
        (folder / file).write_text(json.dumps(found))

    return do


def says(file: str, content: str | bytes) -> Callable[[Path], object]:
    """A file with this in it."""
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / file).write_bytes(data)


def lacks(file: str) -> Callable[[Path], object]:
    return lambda folder: (folder / file).unlink()


def cut(file: str, n_left: int) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / file, n_left)


def link(file: str, target: str) -> Callable[[Path], None]:
    """A link in the place of a file."""

    def do(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        (folder / file).symlink_to(target)

    return do


def fifo(file: str) -> Callable[[Path], None]:
    """A pipe that nobody writes to: opening it waits for ever."""

    def do(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        os.mkfifo(folder / file)

    return do


def shards(change: Callable[[Path, dict[str, str]], object]) -> Callable[[Path], None]:
    """Two shards and their index, of which something is changed."""

    def do(folder: Path) -> None:
        found = load_file(folder / WEIGHTS)
        (folder / WEIGHTS).unlink()
        where = {}
        names = sorted(found)
        for i, part in enumerate((names[:20], names[20:]), 1):
            file = f"model-0000{i}-of-00002.safetensors"
            save_file({name: found[name] for name in part}, folder / file, {"format": "pt"})
            where |= dict.fromkeys(part, file)
        change(folder, where)
        index = {"metadata": {"total_size": 1}, "weight_map": where}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return do


def template(text: Any) -> Callable[[Path], None]:
    return settings("tokenizer_config.json", chat_template=text)


def adapter(**facts: Any) -> Callable[[Path], None]:
    """A LoRA adapter of the whole checkpoint `sft` beside it."""

    def do(folder: Path) -> None:
        for name in (CONFIG, WEIGHTS):
            (folder / name).unlink()
        base = str(folder.parent / "sft")
        said = {
            "peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"],
            "task_type": "CAUSAL_LM", "base_model_name_or_path": base, **facts,
        }  # fmt: skip
        (folder / "adapter_config.json").write_text(json.dumps(said))
        place = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
        wrong = {
            place.format("A"): np.zeros((2, 77), np.float32),
            place.format("B"): np.zeros((99, 2), np.float32),
        }
        save_file(wrong, folder / "adapter_model.safetensors", {"format": "pt"})

    return do


class Payload:
    """Makes the marker when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def pickled(*files: str, instead: bool = False) -> Callable[[Path], None]:
    """Files that run code when they are unpickled."""

    def do(folder: Path) -> None:
        if instead:
            (folder / WEIGHTS).unlink()
        for file in files:
            (folder / file).write_bytes(pickle.dumps(Payload(folder.parents[1] / MARKER)))

    return do


def own_code(folder: Path) -> None:
    """A configuration that asks for Python of its own."""
    marker = folder.parents[1] / MARKER
    (folder / "modeling_evil.py").write_text(f"open({str(marker)!r}, 'w')\n")
    settings(auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"})(folder)


def own_tokenizer(folder: Path) -> None:
    marker = folder.parents[1] / MARKER
    (folder / "tokenization_evil.py").write_text(f"open({str(marker)!r}, 'w')\n")
    named = {"AutoTokenizer": ["tokenization_evil.Evil", None]}
    settings("tokenizer_config.json", auto_map=named)(folder)


def more_tokens(folder: Path) -> None:
    """A tokenizer that gives ids for which there is no embedding."""
    found = json.loads((folder / TOKENIZER).read_text())
    found["added_tokens"] += [
        {
            "id": 5000 + i, "content": letter, "single_word": False, "lstrip": False,
            "rstrip": False, "normalized": False, "special": False,
        }
        for i, letter in enumerate((" a", " t", " s", " h", " i", " w"))
    ]  # fmt: skip
    (folder / TOKENIZER).write_text(json.dumps(found))


def one(name: str, value: float) -> Callable[[dict[str, Any]], None]:
    def change(found: dict[str, Any]) -> None:
        found[name] = found[name].copy()
        found[name].flat[5] = value

    return change


def huge(file: str) -> Callable[[Path], None]:
    """A file of a terabyte, of which nothing is on the disk."""
    return lambda folder: os.truncate(folder / file, 1 << 40)


def folder_for(file: str) -> Callable[[Path], None]:
    def do(folder: Path) -> None:
        (folder / file).unlink()
        (folder / file).mkdir()

    return do


EMBED = "model.embed_tokens.weight"
NORM = "model.norm.weight"
GATE = "model.layers.1.mlp.gate_proj.weight"
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
INDEX = "model.safetensors.index.json"

BROKEN = (
    Broken("weights cut off", cut(WEIGHTS, 1_000_000), "has 1000000 bytes where its header"),
    Broken("weights of no bytes", cut(WEIGHTS, 0), "cut off in its header"),
    Broken("header of 2^60 bytes", says(WEIGHTS, (1 << 60).to_bytes(8, "little")), "cut off"),
    Broken("header of letters", says(WEIGHTS, b"x" * 4096), "cut off in its header"),
    Broken(
        "shard cut off", shards(lambda f, w: cut("model-00002-of-00002.safetensors", 999)(f)), "999"
    ),
    Broken(
        "shard missing",
        shards(lambda f, w: lacks("model-00002-of-00002.safetensors")(f)),
        "is missing, which",
    ),
    Broken(
        "shard lacks a tensor",
        shards(lambda f, w: w.update({"x": "model-00001-of-00002.safetensors"})),
        "lacks the tensor x",
    ),
    Broken(
        "shard outside",
        shards(lambda f, w: w.update({"x": "../../x.safetensors"})),
        "outside the checkpoint",
    ),
    Broken(
        "index missing",
        lambda f: (shards(lambda f, w: None)(f), lacks(INDEX)(f)),
        "index.json is missing",
    ),
    Broken(
        "vocabulary too small",
        settings(vocab_size=100),
        "model.embed_tokens.weight has [1024, 128], not [100, 128]",
    ),
    Broken(
        "vocabulary too large",
        settings(vocab_size=4096),
        "model.embed_tokens.weight has [1024, 128], not [4096, 128]",
    ),
    Broken("hidden size", settings(hidden_size=64), "another shape than config.json says"),
    Broken("hidden size below 0", settings(hidden_size=-128), "-128"),
    Broken(
        "heads that do not divide",
        settings(num_attention_heads=3, num_key_value_heads=2, head_dim=None),
        "not a multiple of the number of attention heads",
    ),
    Broken("architecture unknown", settings(model_type="evil", architectures=["Evil"]), "evil"),
    Broken("layer missing", tensors(lambda t: t.pop(GATE)), "gate_proj"),
    Broken("embedding missing", tensors(lambda t: t.pop(EMBED)), "its weights lack 2 tensors"),
    Broken("head missing", settings(tie_word_embeddings=False), "lm_head"),
    Broken("number format unknown", settings(dtype="float99", torch_dtype="float99"), "float99"),
    Broken(
        "rope garbage",
        settings(rope_parameters={"rope_type": "evil"}),
        "cannot be loaded: KeyError: 'evil'",
    ),
    Broken("config of brackets", says(CONFIG, "[" * MANY), "not valid JSON"),
    Broken("config deep", says(CONFIG, '{"a":' * MANY + "1" + "}" * MANY), "not valid JSON"),
    Broken("config a list", says(CONFIG, "[1, 2]"), "no JSON object"),
    Broken("config no UTF-8", says(CONFIG, b'{"model_type": "\xff\xfe"}'), "not valid JSON"),
    Broken("config of a terabyte", huge(CONFIG), "larger than"),
    Broken("config a pipe", fifo(CONFIG), "config.json is missing"),
    Broken("config a device", link(CONFIG, "/dev/zero"), "config.json is missing"),
    Broken("config a folder", folder_for(CONFIG), "config.json is missing"),
    Broken("config unreadable", link(CONFIG, "/proc/self/mem"), "cannot be read"),
    Broken("weights a pipe", fifo(WEIGHTS), "model.safetensors is missing"),
    Broken("weights a device", link(WEIGHTS, "/dev/urandom"), "model.safetensors is missing"),
    Broken("weights link to nowhere", link(WEIGHTS, "nowhere"), "model.safetensors is missing"),
    Broken("weights link to itself", link(WEIGHTS, WEIGHTS), "model.safetensors is missing"),
    Broken("tokenizer missing", lacks(TOKENIZER), "tokenizer.json is missing"),
    Broken("tokenizer cut off", cut(TOKENIZER, 5000), "tokenizer.json is cut off"),
    Broken(
        "tokenizer garbage",
        says(TOKENIZER, '{"model": {"type": "evil"}}'),
        "cannot be loaded: KeyError",
    ),
    Broken("tokenizer a pipe", fifo(TOKENIZER), "tokenizer.json is missing"),
    Broken("tokenizer with code", own_tokenizer, "run Python of its own"),
    Broken(
        "template syntax",
        template("{% for m in messages %}"),
        "its chat template cannot be filled: TemplateSyntaxError",
    ),
    Broken("template without end", template(LOOP), "its chat template takes more than 5 s"),
    Broken(
        "template of gigabytes",
        template("{{ 'x' * 10 ** 10 }}"),
        "its chat template takes more than 1024 MiB",
    ),
    Broken(
        "template breaking out",
        template("{{ ''.__class__.__mro__ }}"),
        "its chat template cannot be filled: SecurityError",
    ),
    Broken(
        "template that refuses",
        template("{{ raise_exception('no') }}"),
        "its chat template cannot be filled: TemplateError: no",
    ),
    Broken("template of numbers", template([1, 2]), "cannot be loaded: TypeError"),
    Broken("weights pickled", pickled("pytorch_model.bin", instead=True), "pickled"),
    Broken("weights of another library", pickled("policy.pt", instead=True), "pickled"),
    Broken("code of its own", own_code, "run Python of its own"),
    Broken("generation config garbage", says("generation_config.json", "{{{"), "not valid JSON"),
    Broken("adapter without base", adapter(base_model_name_or_path=None), "names no base"),
    Broken(
        "adapter of a base that is away",
        adapter(base_model_name_or_path="/nowhere"),
        "not on this machine",
    ),
    Broken(
        "adapter of itself",
        lambda f: adapter(base_model_name_or_path=str(f))(f),
        "is an adapter itself",
    ),
    Broken("adapter of other shapes", adapter(), "size mismatch"),
    Broken("sidecar a bomb", says("prefbench.yaml", BOMB), "prefbench.yaml"),
    Broken(
        "sidecar of tags",
        says("prefbench.yaml", "method: !!python/object/apply:os.system [id]"),
        "prefbench.yaml",
    ),
    Broken("trainer state garbage", says("trainer_state.json", '{"cut'), "not valid JSON"),
)

SPEECHLESS = (
    Broken("tokenizer larger than the embeddings", more_tokens, "the tokenizer gives the id"),
    Broken("NaN weights", tensors(one(NORM, np.nan)), "the log-prob is not a finite number"),
    Broken("infinite weights", tensors(one(NORM, np.inf)), "the log-prob is not a finite number"),
    Broken("context of none", settings(max_position_embeddings=0), "the context length is 0"),
)
"""What is measured, and of which each item is missing with its reason."""

HARMLESS = (
    Broken("tensor too many", tensors(lambda t: t.update({"model.extra.weight": t[NORM]})), ""),
    Broken("weights of integers", tensors(lambda t: t.update({GATE: t[GATE].astype(np.int8)})), ""),
    Broken("quantization unknown", settings(quantization_config={"quant_method": "evil"}), ""),
    Broken(
        "tokenizer class unknown", settings("tokenizer_config.json", tokenizer_class="Evil"), ""
    ),
    Broken(
        "generation config nonsense",
        settings("generation_config.json", eos_token_id="evil", max_length=-5),
        "",
    ),
    Broken("optimizer and arguments pickled", pickled("training_args.bin", "optimizer.pt"), ""),
    Broken("name \x1b[31mred\u202e\nand more", lambda folder: None, ""),
    Broken("link to all", lambda folder: (folder / "loop").symlink_to(".."), ""),
    Broken("card a bomb", says("README.md", f"---\n{BOMB}---\n"), ""),
    Broken("card no UTF-8", says("README.md", b"---\nbase_model: \xff\n---\n"), ""),
)
"""What looks bad, and is measured as its weights and its tokenizer are."""


def make_broken(whole: Path, runs: Path) -> None:
    """A whole checkpoint, `sft`, and one of each kind beside it."""
    left_out = shutil.ignore_patterns("checkpoint-*")
    shutil.copytree(whole, runs / "sft", ignore=left_out)
    for one in (*BROKEN, *SPEECHLESS, *HARMLESS):
        folder = runs / one.name
        shutil.copytree(whole, folder, ignore=left_out)
        # Other bytes, or the whole one's numbers would count for it as well.
        tensors(lambda found: found.update({NORM: found[NORM] * np.float32(1.001)}))(folder)
        one.do(folder)
    (runs / "circle").symlink_to(runs)
    (runs / "dangling").symlink_to(runs / "nowhere")
