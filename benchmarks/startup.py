"""Seconds until `python train.py --help` has printed."""

import subprocess
import sys

from common import arguments, emit, seconds


def main() -> None:
    given = arguments(__doc__)
    command = [sys.executable, "train.py", "--help"]
    taken = seconds(lambda: subprocess.run(command, check=True, capture_output=True), 1 if given.quick else 3)
    emit("ours", {"train.py --help": taken}, ("torch", "lightning", "jsonargparse"))


if __name__ == "__main__":
    main()
