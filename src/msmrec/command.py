"""What every command of the project is run by; without Lightning, so that light commands start at once."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from msmrec.artifacts import InputError, disk_error, one_line

PYTORCH_SETTINGS = {
    # Tensors of 2 MB and more lie on large pages. With small ones a new tensor on the CPU needs 512 times as many:
    # a quarter of ML-1M's evaluation, and more than half of a step over a million items.
    "THP_MEM_ALLOC_ENABLE": "1",
}
"""Settings of PyTorch that it reads when it is first used, so they are made before it is imported; what is set already
stays. benchmarks/NOTES.md has the measurements."""
for _name, _value in PYTORCH_SETTINGS.items():
    os.environ.setdefault(_name, _value)


def main(command: Callable[[], object], page: Callable[[], str] | None = None) -> None:
    """Runs a command; what the user can mend is one line on stderr and exit status 2.

    Args:
        command: what reads sys.argv.
        page: what is printed instead where nothing but help was asked for, or nothing at all.
    """
    if page and sys.argv[1:] in ([], ["--help"], ["-h"]):
        print(page().strip())
        sys.exit(0)
    try:
        command()
    except InputError as error:
        print(f"msmrec: {one_line(error)}", file=sys.stderr)  # names in a file may hold line breaks
        sys.exit(2)
    except KeyboardInterrupt:
        print("msmrec: interrupted; the same command goes on from the last finished epoch", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if (said := disk_error(error)) is None:
            raise
        print(f"msmrec: {said}", file=sys.stderr)
        sys.exit(2)


def train_in_child(args: Sequence[str], **options: Any) -> int:
    """Trains in a process of its own, as train.py does, and returns its exit status; see `run_child`.

    By a module's name, as Lightning starts further processes (DDP) by what stands in the command line.
    """
    return run_child([sys.executable, "-m", "msmrec", "train", *args], **options)


def run_child(command: Sequence[str], **options: Any) -> int:
    """Runs a command to its end and returns its exit status.

    A SIGTERM, which schedulers send to this process alone, is passed on; this process then ends with status 143 when
    the command has ended. Ctrl-C reaches both, and is waited for as well.

    Args:
        options: of `subprocess.Popen`.
    """
    terminated = False

    def pass_on(*_: object) -> None:
        nonlocal terminated
        terminated = True
        child.terminate()

    with subprocess.Popen(command, stdin=subprocess.DEVNULL, **options) as child:
        before = signal.signal(signal.SIGTERM, pass_on)
        try:
            status = child.wait()
        except KeyboardInterrupt:
            child.wait()
            raise
        finally:
            signal.signal(signal.SIGTERM, before)
    if terminated:
        print("msmrec: terminated; the same command goes on", file=sys.stderr)
        sys.exit(143)
    return status
