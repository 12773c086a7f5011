"""What every command of the project is run by; without Lightning, so that light commands start at once."""

import os
import sys
from collections.abc import Callable

from msmrec.artifacts import InputError

PYTORCH_SETTINGS = {
    # Tensors of 2 MB and more lie on large pages. With small ones a new tensor on the CPU needs 512 times as many:
    # a quarter of ML-1M's evaluation, and more than half of a step over a million items.
    "THP_MEM_ALLOC_ENABLE": "1",
}
"""Settings of PyTorch that it reads when it is first used, so they are made before it is imported; what is set already
stays. benchmarks/README.md has the measurements."""
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
        print(f"msmrec: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("msmrec: interrupted; the same command goes on from the last finished epoch", file=sys.stderr)
        sys.exit(130)
