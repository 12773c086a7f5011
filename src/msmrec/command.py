"""What every command of the project is run by; without Lightning, so that light commands start at once."""

import sys
from collections.abc import Callable

from msmrec.artifacts import InputError


def main(command: Callable[[], object]) -> None:
    """Runs a command; what the user can mend is one line on stderr and exit status 2."""
    try:
        command()
    except InputError as error:
        print(f"msmrec: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("msmrec: interrupted; the same command goes on from the last finished epoch", file=sys.stderr)
        sys.exit(130)
