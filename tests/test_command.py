"""What every command is run by: signals, and mistakes that the user can mend."""

import signal
import subprocess
import sys
import time
from pathlib import Path

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
