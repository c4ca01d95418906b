from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from prefbench.tasks import shipped_folder, tasks_folder

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", folder, ROOT], check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_a_checkout_finds_its_own_folders() -> None:
    assert tasks_folder() == ROOT / "tasks"
    assert shipped_folder("judges") == ROOT / "judges"


def test_an_installed_package_finds_tasks_and_judges_inside_itself(
    wheel: Path, tmp_path: Path
) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    program = (
        "from prefbench.tasks import shipped_folder, tasks_folder, load_index\n"
        "print(tasks_folder()); print(shipped_folder('judges'))\n"
        "print(*load_index([tasks_folder()])[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": ""},
    )
    tasks, judges, suites = done.stdout.splitlines()
    assert Path(tasks).is_relative_to(tmp_path / "site")
    assert Path(judges).is_relative_to(tmp_path / "site")
    assert {"paper", "quick", "demo"} <= set(suites.split())


def test_the_wheel_has_every_task_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    shipped = {Path(n).name for n in names if "_shipped/tasks/" in n}
    assert shipped == {path.name for path in (ROOT / "tasks").iterdir() if path.is_file()}
    assert not [name for name in names if name.startswith("tests/")]
    assert "prefbench/py.typed" in names


def test_the_pinned_versions_fit_what_is_asked_for_and_nothing_is_for_cuda() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {
        canonicalize_name(one.name): one
        for one in (Requirement(line) for line in lines if not line.startswith("#"))
    }
    assert all(len(one.specifier) == 1 and not one.url for one in pins.values())
    extras = project["optional-dependencies"]
    for line in [
        *project["dependencies"],
        *(line for one in extras if one != "vllm" for line in extras[one]),
    ]:
        asked = Requirement(line)
        if asked.name == project["name"]:  # its own extras, which are looked at themselves
            assert asked.extras <= set(extras)
            continue
        (version,) = pins[canonicalize_name(asked.name)].specifier
        assert asked.specifier.contains(version.version), line
    unwanted = {"torchvision", "torchaudio", "torchcodec", "triton", "vllm"}
    assert not {n for n in pins if n in unwanted or n.startswith(("nvidia-", "cuda-"))}
