from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from prefbench.mounts import file_system, journal_mode
from tests.systems import write

TABLE = r"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:5 / /shared rw - nfs4 server:/export rw,vers=4.2
24 23 0:6 / /shared/fast rw - lustre mgs@tcp:/fast rw,flock
25 22 0:7 / /with\040space rw - tmpfs tmpfs rw
26 22 0:8 / /twice rw - xfs /dev/sdb rw
27 22 0:9 / /twice rw - fuse.sshfs there: rw
torn line
28 22 0:10 /
"""


@pytest.mark.parametrize(
    ("path", "kind", "mode"),
    [
        ("/home/results/v.sqlite", "ext4", "WAL"),
        ("/shared/results/v.sqlite", "nfs4", "DELETE"),
        ("/shared/fast/v.sqlite", "lustre", "DELETE"),
        ("/shared/fastest/v.sqlite", "nfs4", "DELETE"),
        ("/with space/v.sqlite", "tmpfs", "WAL"),
        ("/twice/v.sqlite", "fuse.sshfs", "DELETE"),
    ],
)
def test_the_deepest_mount_counts_and_of_one_place_the_last(
    tmp_path: Path, path: str, kind: str, mode: str
) -> None:
    system = write(tmp_path, proc__self__mountinfo=TABLE)
    assert file_system(Path(path), system) == kind
    assert journal_mode(Path(path), system) == mode


def test_a_link_is_where_it_leads_to(tmp_path: Path) -> None:
    far = tmp_path.resolve() / "far"
    table = f"1 0 0:1 / / rw - ext4 a rw\n2 1 0:2 / {far} rw - nfs b rw\n"
    system = write(tmp_path, proc__self__mountinfo=table)
    (tmp_path / "far").mkdir()
    (tmp_path / "near").symlink_to(tmp_path / "far")
    assert file_system(tmp_path / "near" / "v.sqlite", system) == "nfs"
    assert file_system(tmp_path / "v.sqlite", system) == "ext4"


def test_a_system_that_tells_nothing(tmp_path: Path) -> None:
    assert file_system(tmp_path, tmp_path) is None
    assert journal_mode(tmp_path, tmp_path) == "WAL"


def test_what_this_system_says_is_what_stat_says(tmp_path: Path) -> None:
    told = subprocess.run(
        ["findmnt", "-n", "-o", "FSTYPE", "-T", tmp_path], capture_output=True, text=True
    )
    if told.returncode:
        pytest.skip("no findmnt here, which util-linux brings")
    assert file_system(tmp_path) == told.stdout.split()[-1]


OPENED = """
import sys
from pathlib import Path
from prefbench.judges.verdicts import Verdicts
with Verdicts(Path(sys.argv[1])) as verdicts:
    assert len(verdicts) == 0
"""


@pytest.mark.parametrize(("kind", "mode"), [("tmpfs", "wal"), ("ramfs", "delete")])
def test_the_log_is_kept_where_the_file_system_is_known_to_be_local(
    tmp_path: Path, kind: str, mode: str
) -> None:
    folder, program = tmp_path / "mounted", tmp_path / "opened.py"
    folder.mkdir()
    program.write_text(OPENED)
    # As root of a namespace, which may mount; what is mounted is gone with it.
    commands = f"""
        mount -t {kind} made-up {folder}
        {sys.executable} {program} {folder}/v.sqlite
        cp {folder}/v.sqlite {tmp_path}/copied.sqlite
    """
    subprocess.run(["unshare", "-rm", "sh", "-ec", commands], check=True)
    connection = sqlite3.connect(tmp_path / "copied.sqlite")
    assert connection.execute("PRAGMA journal_mode").fetchone() == (mode,)
    connection.close()
