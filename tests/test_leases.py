"""Claims across nodes: processes that are told to be of other nodes, and see no lock of theirs."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from prefbench.beats import TERM, Beats
from prefbench.errors import InputError
from prefbench.lease_files import FileLeases
from prefbench.leases import Claim
from prefbench.store import Store
from tests.claimant import HEADER, Claimant

Start = Callable[..., Claimant]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts claimants of nodes, whose leases hold for a second unless told."""
    started = []

    def one(node: str, *flags: str, term: float = 1.0, inside: tuple[str, ...] = ()) -> Claimant:
        results = tmp_path / "results"
        started.append(Claimant(results, node, term=term, flags=flags, inside=inside))
        return started[-1]

    yield one
    for claimant in started:
        claimant.send(signal.SIGCONT)
        claimant.end()


def files(results: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(results)): path.read_bytes()
        for path in sorted(results.rglob("*"))
        if path.is_file()
    }


def test_two_nodes_with_two_processes_each_do_every_cell_once(start: Start, tmp_path: Path) -> None:
    claimants = [start(node, term=60) for node in ("one", "two", "one", "two")]
    for seed, claimant in enumerate(claimants):
        claimant.tell("share", seed, 200)
    done: list[list[str]] = [list(iter(claimant.hear, "end")) for claimant in claimants]
    assert Counter(name for some in done for name in some) == {f"cell{i}": 1 for i in range(200)}
    assert sum(map(bool, done)) > 1
    assert list((tmp_path / "results").rglob("*lease*")) == []


def test_what_a_killed_process_has_is_free_at_once_on_its_node(start: Start) -> None:
    holder, other = start("one", term=3600), start("one", term=3600)
    assert holder.ask("claim cell") == "yes"
    assert other.ask("claim cell") == "no"
    holder.end()
    assert other.ask("claim cell") == "yes"


def test_what_a_node_has_that_is_gone_is_free_after_a_term_and_not_before(start: Start) -> None:
    holder, other = start("one"), start("two")
    assert holder.ask("claim cell") == "yes"
    deadline = time.monotonic() + 3  # renewed all the time, it outlasts its term
    while time.monotonic() < deadline:
        assert other.ask("claim cell") == "no"
        time.sleep(0.1)
    killed = time.monotonic()
    holder.end()
    assert other.ask("wait cell") == "yes"
    assert time.monotonic() - killed > 0.6  # the last beat seen was of a quarter before at most
    assert other.ask("check cell") == "done"


def test_a_process_that_was_stopped_for_long_writes_nothing_more(
    start: Start, tmp_path: Path
) -> None:
    stopped, other = start("one"), start("two")
    assert stopped.ask("claim cell") == "yes"
    assert stopped.ask("resume cell") == ""
    assert stopped.ask("append cell 0") == "done"
    stopped.send(signal.SIGSTOP)
    assert other.ask("wait cell") == "yes"
    assert other.ask("resume cell") == "0"
    assert other.ask("append cell 1") == "done"
    before = files(tmp_path / "results" / "cells")
    stopped.send(signal.SIGCONT)
    for told in ("append cell 2", "seal cell 0 2", "fail cell", "resume cell", "check cell"):
        assert stopped.ask(told) == "LostError: cell: taken over by another process"
    assert stopped.ask("release") == "done"
    after = files(tmp_path / "results" / "cells")
    assert {**after, "cell/lease": b""} == {**before, "cell/lease": b""}
    assert other.ask("append cell 2") == "done"
    assert other.ask("seal cell 0 1 2") == "done"
    store = Store(tmp_path / "results")
    assert [one.item for one in store.answers("cell")] == [0, 1, 2]
    assert stopped.ask("claim cell") == "no"
    assert other.ask("release") == "done"
    assert stopped.ask("claim cell") == "yes"


def test_a_process_that_was_stopped_goes_on_where_nobody_came(start: Start) -> None:
    stopped = start("one", term=0.2)
    assert stopped.ask("claim cell") == "yes"
    stopped.send(signal.SIGSTOP)
    time.sleep(0.5)
    stopped.send(signal.SIGCONT)
    assert stopped.ask("check cell") == "done"


def test_a_file_system_without_locks_goes_by_leases_alone(start: Start) -> None:
    """On one node, too, where nothing but the term tells that a process was killed."""
    holder, other = (start("one", "no locks") for _ in range(2))
    assert holder.ask("claim cell") == "yes"
    assert other.ask("claim cell") == "no"
    locking = start("one")
    assert locking.ask("claim cell") == "no"  # its lock tells nothing of who has none
    holder.end()
    assert other.ask("claim cell") == "no"
    assert other.ask("wait cell") == "yes"


def test_who_cannot_renew_has_lost_it_after_a_term(start: Start) -> None:
    holder, other = start("one"), start("two")
    assert holder.ask("claim cell") == "yes"
    assert holder.ask("full") == "done"
    said = []
    while not said or said[-1] == "done":
        said.append(holder.ask("check cell"))
        time.sleep(0.05)
    assert said[0] == "done"
    assert said[-1] == "LostError: cell: taken over by another process"
    assert other.ask("wait cell") == "yes"
    assert holder.ask("room") == "done"
    assert holder.ask("check cell").startswith("LostError")
    assert other.ask("check cell") == "done"


def test_on_a_full_disk_what_is_held_is_kept_and_no_more_can_be_had(
    start: Start, tmp_path: Path
) -> None:
    """A beat is as long as the one before and written in its place, which takes no room."""
    (tmp_path / "results").mkdir()
    mounted = f"mount -t tmpfs -o size=64k tmpfs '{tmp_path}/results' && exec \"$@\""
    holder = start("one", term=0.4, inside=("unshare", "-rm", "sh", "-ec", mounted, "sh"))
    assert holder.ask("claim cell") == "yes"
    assert holder.ask("resume cell") == ""
    assert holder.ask("fill") == "done"
    time.sleep(1)
    assert holder.ask("check cell") == "done"
    assert holder.ask("claim another").startswith("StoreError: ")
    assert holder.ask("empty") == "done"
    assert holder.ask("claim another") == "yes"
    assert holder.ask("append cell 0") == "done"


def test_where_no_lease_can_be_written_none_is_left_behind(start: Start, tmp_path: Path) -> None:
    full = start("one")
    assert full.ask("full") == "done"
    assert full.ask("claim cell").startswith("StoreError: ")
    assert not (tmp_path / "results" / "cells" / "cell" / "lease").exists()
    assert full.ask("room") == "done"
    assert full.ask("claim cell") == "yes"


def test_processes_stopped_at_random_moments_never_write_after_one_another(
    start: Start, tmp_path: Path
) -> None:
    """What one process appends while it has the cell stands in one piece: whoever was stopped in
    the midst of it, even between looking and writing, adds nothing to what the next has begun."""
    claimants = [start(f"node {i}", term=0.15) for i in range(3)]
    for i, claimant in enumerate(claimants):
        claimant.tell("fight", i, 6)
    rng = random.Random(0)
    end = time.monotonic() + 6
    while time.monotonic() < end:
        one = rng.choice(claimants)
        one.send(signal.SIGSTOP)
        time.sleep(rng.uniform(0.05, 0.5))
        one.send(signal.SIGCONT)
        time.sleep(rng.uniform(0, 0.1))
    n_lost = sum(int(claimant.hear()) for claimant in claimants)
    assert n_lost > 0
    journal = tmp_path / "results" / "cells" / "cell" / "journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()[1:]]
    turns = [(int(pid), int(n) // 1000) for pid, n in (line["texts"].split() for line in lines)]
    changes = [turn for turn, before in zip(turns, [None, *turns], strict=False) if turn != before]
    assert len(changes) == len(set(changes)) > 3


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.seconds = 1e6

    def __call__(self) -> float:
        return self.seconds


class Node:
    """A node in this process, whose clock is its own and whose thread never comes to beat."""

    def __init__(self, folder: Path, name: str) -> None:
        self.clock = Clock()
        self.leases = FileLeases(node=name, locks=folder / name, beats=Beats(self.clock))
        self.cell = folder / "cell"
        self.cell.mkdir(parents=True, exist_ok=True)

    def take(self) -> Claim | None:
        return self.leases.take("cell", self.cell)


@pytest.mark.parametrize("seed", range(40))
def test_of_nodes_whose_clocks_differ_one_has_it_at_a_time(tmp_path: Path, seed: int) -> None:
    """Whatever they do in whatever order: all that a model allows, and nothing else, happens."""
    rng = random.Random(seed)
    nodes = [Node(tmp_path, f"node {i}") for i in range(3)]
    for node in nodes:
        node.clock.seconds = rng.uniform(0, 1e9)
    holds: dict[int, Claim] = {}
    owner: int | None = None
    for _ in range(300):
        i = rng.randrange(3)
        match rng.choice(("take", "take", "check", "release", "pass", "pass", "forget")):
            case "take" if i not in holds:
                if (claim := nodes[i].take()) is not None:
                    holds[i] = claim
                    owner = i
            case "check" if i in holds:
                assert holds[i].is_ours() == (owner == i)
                if owner != i:
                    holds.pop(i).release()
            case "release" if i in holds:
                holds.pop(i).release()
                owner = None if owner == i else owner
            case "forget" if i in holds and rng.random() < 0.3:  # killed: its lock alone goes
                holds[i]._given_back.pop_all()
                del holds[i]
                nodes[i] = Node(tmp_path, f"node {i} again {rng.random()}")
                owner = None if owner == i else owner
            case "pass":
                for node in nodes:
                    node.clock.seconds += rng.choice((1.0, TERM / 3, TERM + 1))
        assert sum(claim.is_ours() for k, claim in holds.items() if k == owner) <= 1
    assert len(list(nodes[0].cell.iterdir())) <= 2


def fifo(path: Path) -> None:
    os.mkfifo(path)


GARBAGE: dict[str, Callable[[Path], object]] = {
    "empty": Path.touch,
    "torn": lambda path: path.write_text('{"node": "one", "lo'),
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 64),
    "large": lambda path: path.write_bytes(b"[" * 10_000_000),
    "list": lambda path: path.write_text("[1, 2]"),
    "number": lambda path: path.write_text("9" * 5000),
    "folder": Path.mkdir,
    "full folder": lambda path: (path / "in it").mkdir(parents=True),
    "pipe": fifo,
    "link to nothing": lambda path: path.symlink_to("nothing"),
    "link to much": lambda path: path.symlink_to("/dev/zero"),
    "link to itself": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_where_a_lease_should_be_blocks_for_a_term(tmp_path: Path, kind: str) -> None:
    node = Node(tmp_path, "one")
    GARBAGE[kind](node.cell / "lease")
    assert node.take() is None
    node.clock.seconds += TERM - 1
    assert node.take() is None
    node.clock.seconds += 1
    claim = node.take()
    assert claim is not None
    assert claim.is_ours()
    claim.release()
    assert not (node.cell / "lease").exists()


@pytest.mark.parametrize("term", ["1e308", "-1", "0", "NaN", '"60"', "null", "[]"])
def test_a_lease_of_a_senseless_term_blocks_for_ours(tmp_path: Path, term: str) -> None:
    node, other = Node(tmp_path, "one"), Node(tmp_path, "two")
    claim = other.take()
    assert claim is not None
    lease = node.cell / "lease"
    content = lease.read_text()
    assert '"term": 60.0' in content
    lease.write_text(content.replace('"term": 60.0', f'"term": {term}'))
    assert not claim.is_ours()
    assert node.take() is None
    node.clock.seconds += TERM
    assert node.take() is not None


def test_the_holder_says_how_long_its_beat_holds(tmp_path: Path) -> None:
    slow, fast = Node(tmp_path, "slow"), Node(tmp_path, "fast")
    slow.leases.term = 600
    fast.leases.term = 1
    assert slow.take() is not None
    assert fast.take() is None
    fast.clock.seconds += 599
    assert fast.take() is None
    fast.clock.seconds += 1
    assert fast.take() is not None


def test_a_lease_that_is_deleted_is_lost(tmp_path: Path) -> None:
    node, other = Node(tmp_path, "one"), Node(tmp_path, "two")
    claim = node.take()
    assert claim is not None
    (node.cell / "lease").unlink()
    theirs = other.take()
    assert theirs is not None
    assert not claim.is_ours()
    claim.release()
    assert theirs.is_ours()


# Later Pythons warn of threads, which the child here leaves alone.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_fork_of_the_holder_holds_nothing_and_gives_nothing_back(tmp_path: Path) -> None:
    node = Node(tmp_path, "one")
    claim = node.take()
    assert claim is not None
    child = os.fork()
    if child == 0:
        ours = claim.is_ours()
        claim.release()
        os._exit(ours)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert claim.is_ours()


def test_claims_beside_those_of_cells_hold_alike(start: Start, tmp_path: Path) -> None:
    store = Store(tmp_path / "results", leases=[Node(tmp_path, "here").leases])
    alone: Callable[[], AbstractContextManager[bool]] = partial(store.alone, "judge-a")
    with alone() as mine, alone() as again:
        assert mine
        assert not again
    with alone() as mine:
        assert mine


def test_a_claim_that_needs_two_leases_takes_both_or_none(tmp_path: Path) -> None:
    near, far = Node(tmp_path / "near", "one"), Node(tmp_path / "far", "one")
    store = Store(tmp_path / "results", leases=[near.leases, Elsewhere(far)])
    blocking = far.take()
    assert blocking is not None
    with store.claim("cell") as cell:
        assert cell is None
    assert not (tmp_path / "results" / "cells" / "cell" / "lease").exists()
    blocking.release()
    with store.claim("cell") as cell:
        assert cell is not None
        cell.resume(HEADER)
        assert (far.cell / "lease").exists()
    assert not (far.cell / "lease").exists()


class Elsewhere:
    """Leases that lie where those of another node's do."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def take(self, name: str, folder: Path) -> Claim | None:
        return self.node.take()


@pytest.mark.parametrize("told", ["soon", "0", "-1", "nan", "1e9"])
def test_a_senseless_number_of_seconds_is_refused(told: str) -> None:
    with pytest.raises(InputError, match="PREFBENCH_LEASE_SECONDS"):
        FileLeases.from_environment({"PREFBENCH_LEASE_SECONDS": told})
