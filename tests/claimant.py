"""A process that claims cells as it is told, line by line: a node of its own, or one of several.

Which node it is, where its locks lie and how long a lease holds is told by the environment.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import random
import resource
import signal
import struct
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from prefbench.errors import LostError, StoreError
from prefbench.lease_files import LOCKS, NODE, SECONDS
from prefbench.records import Answer, Record
from prefbench.rows import Batch
from prefbench.store import Cell, Store

HEADER = {"batch_size": 1}


class Claimant:
    """Its side of the test: what it is told it does, and says what came of it."""

    def __init__(
        self,
        results: Path,
        node: str,
        *,
        term: float,
        flags: tuple[str, ...] = (),
        inside: tuple[str, ...] = (),
    ) -> None:
        here = Path(__file__).parents[1]
        self.process = subprocess.Popen(
            [*inside, sys.executable, "-m", "tests.claimant", str(results), *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            cwd=here,
            env={
                **os.environ,
                NODE: node,
                LOCKS: str(results.parent / f"locks of {node}"),
                SECONDS: str(term),
            },
        )

    def tell(self, *words: object) -> None:
        assert self.process.stdin
        print(*words, file=self.process.stdin, flush=True)

    def hear(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def ask(self, *words: object) -> str:
        self.tell(*words)
        return self.hear()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            pipe.close()


def refuse_locks() -> None:
    """Has the kernel answer ENOLCK to flock, as NFS does where no lock server runs."""
    number = {"x86_64": 73, "aarch64": 32}[platform.machine()]
    load, jump, give = 0x20, 0x15, 0x06
    refused = 0x00050000 | errno.ENOLCK
    steps = [(load, 0, 0, 0), (jump, 0, 1, number), (give, 0, 0, refused), (give, 0, 0, 0x7FFF0000)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    told = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(program))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_seccomp, by_filter = 38, 22, 2
    for order in ((no_new_privileges, 1, 0, 0, 0), (set_seccomp, by_filter, told, 0, 0)):
        if libc.prctl(*order):
            raise OSError(ctypes.get_errno(), "the kernel takes no filter")


def answer(number: int) -> list[Answer]:
    return [Answer(number, logps=(-1.0,))]


def seal(cell: Cell, numbers: list[int]) -> None:
    answers = [one for number in numbers for one in answer(number)]
    records = [Record(number, "acc", 1.0) for number in numbers]
    cell.seal(answers, records, {number: f"c{number}" for number in numbers}, {"n": len(numbers)})


def obey(store: Store, claims: ExitStack, cells: dict[str, Cell], words: list[str]) -> str:
    match words:
        case ["claim" | "wait" as how, name]:
            cell = claims.enter_context(store.claim(name, wait=how == "wait"))
            if cell is None:
                return "no"
            cells[name] = cell
            return "yes"
        case ["resume", name]:
            return " ".join(map(str, cells[name].resume(HEADER)))
        case ["append", name, number]:
            cells[name].append(int(number), Batch("texts", answer(int(number))))
        case ["seal", name, *numbers]:
            seal(cells[name], list(map(int, numbers)))
        case ["fail", name]:
            cells[name].fail("it broke")
        case ["check", name]:
            cells[name].check()
        case ["release"]:
            claims.close()
            cells.clear()
        case ["fill"]:
            file = (store.folder / "filling").open("wb", buffering=0)
            with file, suppress(OSError):
                while file.write(bytes(512)):
                    pass
        case ["empty"]:
            (store.folder / "filling").unlink()
        case ["full"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        case ["room"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    return "done"


def share(store: Store, seed: int, n: int) -> None:
    """Seals what of n cells is free; says which, and whether anyone else was at it."""
    rng = random.Random(seed)
    names = [f"cell{i}" for i in range(n)]
    rng.shuffle(names)
    for name in names:
        with store.claim(name) as cell:
            if cell is None or store.is_sealed(name):
                continue
            mark = store.folder / f"busy {name}"
            mark.touch(exist_ok=False)
            time.sleep(rng.uniform(0, 0.002))
            seal(cell, [0])
            mark.unlink()
            print(name, flush=True)
    print("end", flush=True)


def fight(store: Store, seed: int, seconds: float) -> None:
    """Claims one cell again and again, and appends to it as long as it has it."""
    rng = random.Random(seed)
    end = time.monotonic() + seconds
    n = n_lost = 0
    while time.monotonic() < end:
        with store.claim("cell") as cell:
            try:
                if cell is not None:
                    before = cell.resume(HEADER)
                    n = (n // 1000 + 1) * 1000
                    for _ in range(rng.randrange(1, 12)):
                        n += 1
                        number = len(before) + n * 100 + seed
                        cell.append(number, Batch(f"{os.getpid()} {n}", answer(number)))
                        time.sleep(rng.uniform(0, 0.02))
            except LostError:
                n_lost += 1
        time.sleep(rng.uniform(0, 0.01))
    print(n_lost, flush=True)


def main(results: Path, flags: list[str]) -> None:
    if "no locks" in flags:
        refuse_locks()
    store = Store(results)
    cells: dict[str, Cell] = {}
    with ExitStack() as claims:
        for line in sys.stdin:
            words = line.split()
            try:
                if words[0] in ("share", "fight"):
                    {"share": share, "fight": fight}[words[0]](store, *map(int, words[1:]))
                else:
                    print(obey(store, claims, cells, words), flush=True)
            except (LostError, StoreError) as error:
                print(f"{type(error).__name__}: {error}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
