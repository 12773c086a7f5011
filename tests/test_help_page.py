"""The kept help page is the one that would be made, and a change of the code makes it anew."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from msmrec import help_page as module
from msmrec.help_page import help_page

ROOT = Path(__file__).parents[1]


def test_kept_page_equals_the_made_one(tmp_path: Path) -> None:
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "COLUMNS": "100"}
    pages, taken = [], []
    for flag in ("--help", "--help", "-h"):
        begin = time.perf_counter()
        command = [sys.executable, "train.py", flag]
        pages.append(subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout)
        taken.append(time.perf_counter() - begin)
    assert pages[0] == pages[1] == pages[2] and "--trainer.max_epochs" in pages[0] and "--data.source" in pages[0]
    assert max(taken[1:]) < taken[0]
    assert len(list((tmp_path / "msmrec").iterdir())) == 1


def test_a_change_makes_it_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def page(text: str) -> str:
        return help_page("x", lambda: print(text, end=""), tmp_path)

    assert page("one") == "one" and page("two") == "one"
    monkeypatch.setattr(module, "version", lambda package: "another")
    assert page("two") == "two"
    monkeypatch.setattr(module, "version", lambda package: "a third")
    with pytest.raises(SystemExit):
        help_page("failed", lambda: sys.exit(2), tmp_path)
    assert not list(tmp_path.glob("failed*"))  # what went wrong is not kept
    blocked = tmp_path / "file"
    blocked.touch()
    assert help_page("x", lambda: print("three", end=""), blocked) == "three"  # a cache that cannot be written
