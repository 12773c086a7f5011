"""Seconds until `python train.py --help` has printed, and until it has explained every field of a config."""

import subprocess
import sys
from functools import partial

from common import arguments, emit, seconds


def main() -> None:
    given = arguments(__doc__)
    measures = {}
    for words in ("--help", "--config sasrec_ml1m.yaml --help"):
        command = [sys.executable, "train.py", *words.split()]
        run = partial(subprocess.run, command, check=True, capture_output=True)
        measures[f"train.py {words}"] = seconds(run, 1 if given.quick else 3)
    emit("ours", measures, ("torch", "lightning", "jsonargparse"))


if __name__ == "__main__":
    main()
