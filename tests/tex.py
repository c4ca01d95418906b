"""A real TeX for tests: compiles a document and reads its pages back."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGES = "texlive-latex-base texlive-latex-recommended lmodern poppler-utils"


@dataclass(frozen=True)
class Printed:
    """What came out: the pages' text, and what TeX had to say."""

    text: str
    log: str

    @property
    def overfull(self) -> list[float]:
        """By how many points lines are too wide, and pages too high."""
        boxes = re.findall(r"Overfull \\[hv]box \(([\d.]+)pt too", self.log)
        floats = re.findall(r"Float too large for page by ([\d.]+)pt", self.log)
        return [float(points) for points in (*boxes, *floats)]


def compile_tex(source: str, folder: Path) -> Printed:
    """Compiles a document; skips the test where there is no TeX, fails it where TeX fails."""
    for program in ("pdflatex", "pdftotext"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}; Debian has it: apt-get install {PACKAGES}")
    (folder / "page.tex").write_text(source, encoding="ascii")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "page"]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=300, check=False)
    log = (folder / "page.log").read_text(encoding="latin-1").replace("\n", " ")
    assert done.returncode == 0, log[-3000:]
    subprocess.run(["pdftotext", "-layout", "page.pdf"], cwd=folder, timeout=60, check=True)
    return Printed((folder / "page.txt").read_text(encoding="utf-8"), log)


def flat(text: str) -> str:
    """A page's text with its ligatures taken apart and each space or line break as one space."""
    for ligature, letters in {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl"}.items():
        text = text.replace(ligature, letters)
    return " ".join(text.replace("−", "-").replace("’", "'").split())
