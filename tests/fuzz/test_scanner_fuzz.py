"""The scanner: of any tree of files a list with reasons; nothing is run, and nothing takes long."""

from __future__ import annotations

import json
import os
import pickle
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from prefbench.checkpoints import find_checkpoints
from prefbench.records import Checkpoint
from prefbench.report.scan import as_json, as_text
from prefbench.store import Store
from tests.fuzz.conftest import examples

MOST_SECONDS = 5
"""Of one scan, on the processor."""

RAN = "it-ran"
PAYLOADS = (
    pickle.dumps(type("Evil", (), {"__reduce__": lambda self: (os.mkdir, (RAN,))})()),
    f"!!python/object/apply:os.mkdir [{RAN}]".encode(),
    f"import os\nos.mkdir('{RAN}')\n".encode(),
    b"---\ntags: !!python/object/apply:os.mkdir [" + RAN.encode() + b"]\n---\n",
)
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)
COPIES = "a0: &a0 {k: v}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 12)
)
YAMLS = (
    BOMB,
    COPIES,
    BOMB + "method: *a11\n",
    BOMB.replace("a11:", "step:"),
    "method: &a [*a]",
    "step: " + "9" * 5000,
    "step: 2001-99-99",
    'step: !!int ""',
    'method: "\\ud800"',
    "method: dpo\nreference: ../../../../etc",
    "base: ~nobody-of-this-name/x",
    "reference: " + "x" * 5000,
    'base: "a\\0b"',
    "tags: 5",
    "tags: {trl: 1}",
    "tags: [[dpo], 5, null, dpo]",
    "base_model: [[]]",
    "base_model: /root/secret/model",
    "[" * 5000,
    "? [1]\n: 2",
)
NUMBERS = st.integers(-2, 300) | st.sampled_from((2**63, 10**400, 10**4000, 1.5, None, "4", True))
TENSOR = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(("F32", "F4", "x", "", 7, None, ["F32"])),
        "shape": st.lists(NUMBERS, max_size=3) | NUMBERS,
        "data_offsets": st.lists(NUMBERS, max_size=3) | NUMBERS,
    }
) | st.sampled_from(({}, [], None, 5, {"dtype": "F32", "shape": [10**400] * 5000}))


def weights(header: bytes, length: int | None, rest: bytes) -> bytes:
    stated = len(header) if length is None else length
    return stated.to_bytes(8, "little") + header + rest


GOOD = weights(b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', None, b"\0" * 8)
WEIGHTS = st.builds(
    weights,
    st.dictionaries(st.sampled_from(("w", "\ud800", "__metadata__")), TENSOR, max_size=3).map(
        lambda header: json.dumps(header).encode()
    )
    | st.sampled_from((b"[" * 5000, b"null", b"", b"\xff", b'{"w":' * 2000)),
    st.none() | st.sampled_from((0, 7, 2**31, 2**63, 2**64 - 1)),
    st.binary(max_size=20),
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.sampled_from(("", "..", "/", "\0", "\ud800", "~x/y")),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=3,
)
SHARDS = ("../../x", "/etc/passwd", "a\0b", "", ".", "..", "x" * 300, "model-1-of-1.safetensors")
JSONS = st.dictionaries(
    st.sampled_from(
        (
            "model_type",
            "architectures",
            "auto_map",
            "base_model_name_or_path",
            "global_step",
            "log_history",
            "weight_map",
        )
    ),
    VALUES | st.just({"w": 5}) | st.dictionaries(st.just("w"), st.sampled_from(SHARDS)),
    max_size=4,
).map(lambda value: json.dumps(value).encode())
CONTENTS = st.one_of(
    st.sampled_from(PAYLOADS),
    st.sampled_from(YAMLS).map(str.encode),
    st.sampled_from(YAMLS).map(lambda text: f"---\n{text}\n---\n".encode()),
    st.just(GOOD),
    WEIGHTS,
    JSONS,
    st.sampled_from((b"{}", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}", b"\xff\xfe", b"")),
    st.binary(max_size=50),
)
NAMES = st.sampled_from(
    (
        "config.json",
        "model.safetensors",
        "model.safetensors.index.json",
        "model-1-of-1.safetensors",
        "adapter_config.json",
        "adapter_model.safetensors",
        "pytorch_model.bin",
        "policy.pt",
        "training_args.bin",
        "tokenizer.json",
        "tokenizer_config.json",
        "trainer_state.json",
        "prefbench.yaml",
        "README.md",
        "modeling_evil.py",
    )
)
ODD = (b"\xff\xfe", b"\x1b[31mred", b"a\nb", b"dpo\r", b"..x", b"=cmd()", b"checkpoint-0009", b"-")
FOLDERS = st.sampled_from((b"a", b"checkpoint-7", b"tmp-checkpoint-1", b"sft-dpo-seed3", *ODD))
PLACES = st.lists(FOLDERS, max_size=2)
KINDS = st.one_of(
    st.tuples(st.just("file"), CONTENTS),
    st.tuples(st.just("file"), CONTENTS),
    st.tuples(st.just("folder"), st.just(b"")),
    st.tuples(st.just("pipe"), st.just(b"")),
    st.tuples(
        st.just("link"), st.sampled_from((b".", b"..", b"../..", b"/", b"/dev/zero", b"a", b"self"))
    ),
)
TREES = st.lists(
    st.tuples(PLACES, NAMES.map(os.fsencode) | st.sampled_from((*ODD, b"self")), KINDS), max_size=12
)


def plant(root: bytes, tree: list) -> None:
    for folders, name, (kind, what) in tree:
        with suppress(FileExistsError, NotADirectoryError, FileNotFoundError, IsADirectoryError):
            folder = os.path.join(root, *folders)  # noqa: PTH118  # paths in bytes
            os.makedirs(folder, exist_ok=True)  # noqa: PTH103
            path = os.path.join(folder, name)  # noqa: PTH118
            if not os.path.realpath(folder).startswith(os.path.realpath(root)):
                continue  # a link leads out
            if os.path.lexists(path):
                continue
            if kind == "file":
                with open(path, "wb") as file:  # noqa: PTH123
                    file.write(what)
            elif kind == "folder":
                os.mkdir(path)  # noqa: PTH102
            elif kind == "pipe":
                os.mkfifo(path)
            else:
                os.symlink(what, path)  # noqa: PTH211


def scanned(root: Path, cache: Path, **allowed: bool) -> list[Checkpoint]:
    """What a scan finds, which it says in time, and which can be shown and written down."""
    started = time.process_time()
    found = find_checkpoints(root, cache=cache, **allowed)
    assert time.process_time() - started < MOST_SECONDS
    for one in found:
        assert (one.state == "ready") == (one.reason is None)
        assert len(one.reason or "") < 5000
    shown = as_text(found)
    assert all(sign == "\n" or sign.isprintable() for sign in shown)
    shown.encode()
    json.loads(as_json(found))
    return found


@examples(150)
@given(TREES, st.booleans())
def test_any_tree_is_a_list_with_reasons(tree: list, allowed: bool) -> None:
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "runs"
        root.mkdir()
        plant(os.fsencode(root), tree)
        os.chdir(folder)  # where a payload would leave its mark
        try:
            found = scanned(
                root, Path(folder) / "cache", allow_pickle=allowed, allow_remote_code=allowed
            )
            assert not list(Path(folder).rglob(RAN))
            assert not Path(RAN).exists()
            plan = {"checkpoints": [{"name": one.name, "reason": one.reason} for one in found]}
            store = Store(Path(folder) / "results")
            store.write_plan("plan", plan)
            assert store.plans() == [plan]
        finally:
            os.chdir(before)


def good(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(GOOD)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer.json").write_text("{}")


@examples(150)
@given(st.lists(st.tuples(NAMES, CONTENTS), min_size=1, max_size=3), st.sampled_from(ODD[:-4]))
def test_one_broken_checkpoint_does_not_touch_the_one_beside_it(files: list, name: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "runs"
        good(root / "whole")
        broken = root / os.fsdecode(name)
        good(broken)
        for file, content in files:
            (broken / file).write_bytes(content)
        found = {one.path.name: one for one in scanned(root, Path(folder) / "cache")}
        assert found["whole"].state == "ready"
        assert len(found) == 2


def test_files_of_any_length_are_not_read_into_memory(tmp_path: Path) -> None:
    """Files with holes, which take no disk."""
    for name in ("config.json", "model.safetensors", "prefbench.yaml", "trainer_state.json"):
        folder = tmp_path / "runs" / f"its-{name}"
        good(folder)
        with (folder / name).open("wb") as file:
            if name == "model.safetensors":
                file.write((2**39).to_bytes(8, "little"))
            file.truncate(2**40)
    found = scanned(tmp_path / "runs", tmp_path / "cache")
    assert [one.state for one in found] == ["incomplete", "incomplete", "refused", "incomplete"]
    assert "more than" in str(found[2].reason)


def test_a_link_to_what_is_around_is_not_followed(tmp_path: Path) -> None:
    good(tmp_path / "private")
    good(tmp_path / "runs" / "a")
    (tmp_path / "runs" / "up").symlink_to("..")
    (tmp_path / "runs" / "root").symlink_to("/")
    assert [one.name for one in scanned(tmp_path / "runs", tmp_path / "cache")] == ["a"]


def test_a_folder_named_like_a_file_does_not_hide_what_is_in_it(tmp_path: Path) -> None:
    good(tmp_path / "runs" / "a" / "config.json" / "b")
    good(tmp_path / "runs" / "a" / "c")
    found = scanned(tmp_path / "runs", tmp_path / "cache")
    assert [one.name for one in found] == ["a/c", "a/config.json/b"]
