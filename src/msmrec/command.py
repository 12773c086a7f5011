"""What every command of the project is run by; without Lightning, so that light commands start at once."""

import sys
from collections.abc import Callable

from msmrec.artifacts import InputError


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
