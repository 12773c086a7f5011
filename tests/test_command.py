"""What every command is run by: signals, and mistakes that the user can mend."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from msmrec.artifacts import InputError, atomic_file, build_once
from msmrec.cli import build
from msmrec.command import main
from msmrec.run_folder import load_safely

CHILD = """
import pathlib, signal, sys, time
def end(*_):
    time.sleep(0.3)  # as long as a checkpoint takes
    pathlib.Path(sys.argv[1], "ended").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, end)
pathlib.Path(sys.argv[1], "begun").touch()
time.sleep(60)
"""


def test_a_child_is_terminated_with_its_parent_and_waited_for(tmp_path: Path) -> None:
    code = "import sys; from msmrec.command import run_child; run_child([sys.executable, '-c', *sys.argv[1:]])"
    parent = subprocess.Popen([sys.executable, "-c", code, CHILD, str(tmp_path)], stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "begun").exists():
        assert parent.poll() is None
        time.sleep(0.02)
    parent.send_signal(signal.SIGTERM)
    said = parent.communicate(timeout=50)[1]
    assert parent.returncode == 143 and (tmp_path / "ended").exists()
    assert "the same command goes on" in said


def full(folder: Path) -> None:
    """As a write in the middle of a file fails: no name."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def replace_in(folder: Path) -> None:
    with atomic_file(folder / "a.json"):
        full(folder)


def table_in(folder: Path) -> None:
    with atomic_file(folder / "a.parquet"):
        raise pl.exceptions.ComputeError("parquet: underlying IO error: No space left on device (os error 28)")


def copied(folder: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/x", None, str(folder / ".tmp-01234567-a.ckpt"))


def file_in(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file"


def denied(folder: Path) -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder / ".tmp-01234567-a.ckpt"))


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (replace_in, "{}/a.json: No space left on device"),
        (table_in, "{}/a.parquet: No space left on device"),
        (lambda folder: build_once(folder / "built", full), "{}/built: No space left on device"),
        (denied, "{}/a.ckpt: Permission denied"),
        (copied, "{}/a.ckpt: No space left on device"),
        (full, "No space left on device"),
        (lambda folder: build_once(file_in(folder) / "built", full), "{}/file: File exists"),
        (lambda folder: build_once(file_in(folder) / "in" / "built", full), "{}/file/in: Not a directory"),
        (lambda folder: load_safely("last.ckpt", lambda: denied(folder)), "{}/a.ckpt: Permission denied"),
    ],
)
def test_what_a_disk_does_not_take_is_one_line(
    command: Callable[[Path], None], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as status:
        main(lambda: command(tmp_path))
    assert status.value.code == 2 and capsys.readouterr().err == f"msmrec: {said.format(tmp_path)}\n"


def test_a_mistake_is_one_line_whatever_it_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise InputError("h.csv: no column user; it has a\n1\r\n2")

    with pytest.raises(SystemExit):
        main(command)
    assert capsys.readouterr().err == "msmrec: h.csv: no column user; it has a 1 2\n"


def test_a_user_without_a_home_is_no_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # KeyError, as of a user whom the container does not know
    with pytest.raises(InputError, match="there is no such key"):
        build(["--config", "sasrec_ml100k.yaml", "--modle=x"], save=False)
    assert list(Path.home().iterdir()) == []  # for W&B, which has to have one
    Path.home().rmdir()
