"""Leases on a real S3-compatible server, by clocks that the test turns."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from prefbench.buckets.leases import ObjectLeases
from prefbench.buckets.objects import Objects
from prefbench.errors import StoreError
from tests.buckets.server import Server

pytestmark = pytest.mark.xdist_group("s3")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def leases(address: str, copy: str, clock: Clock, *, term: float = 3600.0) -> ObjectLeases:
    return ObjectLeases(Objects(address), copy, term=term, looks=0.0, clock=clock)


def test_one_of_many_that_ask_at_once_has_it(server: Server, address: str) -> None:
    clock = Clock()
    machines = [leases(address, f"copy {n}", clock) for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda machine: machine.take("x"), machines))
    (lease,) = (one for one in found if one)
    assert lease.is_ours()
    other = machines[1] if lease is found[0] else machines[0]
    assert other.take("x") is None
    assert other.take("y") is not None
    lease.release()
    assert not lease.is_ours()
    assert other.take("x") is not None


def test_one_that_beats_no_more_is_taken_over_once_by_the_observers_own_clock(
    server: Server, address: str
) -> None:
    clock = Clock()
    dead, one, two = (leases(address, name, clock) for name in ("dead", "one", "two"))
    lost = dead.take("x")
    assert lost is not None
    assert one.take("x") is two.take("x") is None
    clock.now += 3599
    assert one.take("x") is None
    clock.now += 2
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda machine: machine.take("x"), (one, two)))
    assert sum(lease is not None for lease in found) == 1
    # The one that was thought dead finds out with its next beat, and takes nothing away.
    lost.beat()
    assert not lost.is_ours()
    lost.release()
    (without,) = (each for each, lease in zip((one, two), found, strict=True) if lease is None)
    assert without.take("x") is None


def test_one_that_beats_is_left_alone(server: Server, address: str) -> None:
    clock = Clock()
    objects = Objects(address)
    alive, other = ObjectLeases(objects, "alive", term=0.2), leases(address, "other", clock)
    lease = alive.take("x")
    assert lease is not None
    assert other.take("x") is None
    for _ in range(3):
        before, deadline = objects.read("leases/x.json"), time.monotonic() + 60
        while objects.read("leases/x.json") == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        clock.now += 3601
        assert other.take("x") is None
    assert lease.is_ours()
    lease.release()


class Deaf(Objects):
    """Hears no answer to what it writes while it is told not to."""

    deaf = False

    def replace(self, name: str, data: bytes, stamp: str) -> str | None:
        found = super().replace(name, data, stamp)
        if self.deaf:
            raise StoreError("no answer")
        return found


@pytest.mark.parametrize("is_heard_again", [True, False])
def test_an_answer_that_got_lost_loses_no_lease(
    server: Server, address: str, is_heard_again: bool
) -> None:
    clock, objects = Clock(), Deaf(address)
    lease = ObjectLeases(objects, "one", term=3600.0, looks=0.0, clock=clock).take("x")
    other = leases(address, "other", clock)
    assert lease is not None
    assert other.take("x") is None
    clock.now += 1200
    first, objects.deaf = objects.read("leases/x.json"), True
    lease.beat()
    second = objects.read("leases/x.json")
    assert second != first
    if is_heard_again:
        objects.deaf = False
        lease.beat()
        clock.now += 1200
        lease.beat()
        assert objects.read("leases/x.json") not in (first, second)
    clock.now += 2500
    assert lease.is_ours()  # the store was away, but nobody has come
    assert other.take("x") is None  # it has seen another beat
    objects.deaf = False
    lease.release()
    assert other.take("x") is not None


def test_what_the_same_working_copy_has_left_needs_no_waiting(server: Server, address: str) -> None:
    clock = Clock()
    assert leases(address, "mine", clock).take("x")
    assert leases(address, "other", clock).take("x") is None
    assert leases(address, "mine", clock).take("x")


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"[" * 100_000])
def test_what_is_no_lease_runs_out(server: Server, address: str, data: bytes) -> None:
    server.files.pipe_file(f"{address.removeprefix('s3://')}/leases/x.json", data)
    clock = Clock()
    one = leases(address, "one", clock)
    assert one.take("x") is None
    clock.now += 3601
    assert one.take("x") is not None
