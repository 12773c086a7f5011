"""Results appear whole or not at all, and are built once."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from msmrec.artifacts import atomic_file, build_once, fingerprint


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError), atomic_file(tmp_path / "a.txt") as path:
        path.write_text("half")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"


def test_who_may_read_a_file_does_not_depend_on_who_writes_it(tmp_path: Path) -> None:
    (tmp_path / "a.json").touch()
    with atomic_file(tmp_path / "b.safetensors") as path:
        save_file({"a": np.zeros(1)}, path)
    assert (tmp_path / "b.safetensors").stat().st_mode == (tmp_path / "a.json").stat().st_mode


def test_build_once_builds_once_for_many(tmp_path: Path) -> None:
    calls = []

    def build(folder: Path) -> None:
        calls.append(1)
        (folder / "x").write_text("1")

    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: build_once(tmp_path / "made", build), range(8)))
    assert len(calls) == 1 and all((folder / "x").exists() for folder in folders)


def test_a_failed_build_leaves_no_folder(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        build_once(tmp_path / "made", build)
    assert not (tmp_path / "made").exists()


def test_fingerprints_tell_inputs_apart() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 1, "b": 3})
    assert fingerprint("ab", "c") != fingerprint("a", "bc")
