"""Where a path that a config names is looked for."""

import os
from pathlib import Path

from msmrec.artifacts import InputError


def at_home(name: str) -> Path:
    """A path of a config or the environment, in which no shell has put the home folder for ~."""
    return Path(os.path.expanduser(name))


def find(name: str, root: Path, folder: bool = False) -> Path:
    """The file, or what should be a folder, under the data root, else here.

    Raises:
        InputError: it is in neither place.
    """
    for path in (root / name, at_home(name)):
        if path.is_file() or (folder and path.exists()):
            return path
    raise InputError(f"{name}: neither in the data root {root} nor here; put it there or mend the config")
