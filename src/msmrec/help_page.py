"""The page that `python train.py --help` prints, kept between calls.

To make it, torch, Lightning and all that a config can name are imported and the constructors read: about six seconds,
four of them in imports of torch, and in what Lightning imports in turn (torchmetrics, torch._dynamo, wandb). The page
changes with the code alone, so it is kept in the user's cache folder, under the sizes and times of the source files and
the versions of what they import. This module imports nothing that takes time.
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import version
from io import StringIO
from pathlib import Path

from msmrec.artifacts import atomic_file, fingerprint

_PACKAGES = ("torch", "lightning", "jsonargparse")


def help_page(name: str, show: Callable[[], object], cache: Path | None = None) -> str:
    """What `show` prints, from the cache where it is there.

    Args:
        name: of the command. show: prints the page, and may exit. cache: by default ~/.cache/msmrec.
    """
    source = Path(__file__).parent
    files = sorted([*source.rglob("*.py"), *source.parents[1].glob("configs/base.yaml")])
    state = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    about = [sys.version, sys.argv[0], shutil.get_terminal_size().columns, *map(version, _PACKAGES)]
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    kept = (cache or home / "msmrec") / f"{name}-help-{fingerprint(state, about)}.txt"
    with contextlib.suppress(OSError):
        return kept.read_text()
    printed = StringIO()
    with contextlib.redirect_stdout(printed):
        try:
            show()
        except SystemExit as end:
            if end.code:
                raise
    with contextlib.suppress(OSError), atomic_file(kept) as path:  # a home that cannot be written to costs only time
        path.write_text(printed.getvalue())
    return printed.getvalue()
