"""Results that are made once: keyed by a fingerprint of their inputs, written under a temporary name, renamed.

A folder that exists is complete, because the rename is the last thing that happens to it. A build that was killed
leaves only a folder named `.tmp-*`, which the next build of the same result removes.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock


class InputError(Exception):
    """Something that the user gave is wrong. The message is one line: what, where (file, line or key), what to do.

    Command lines print it without a traceback. Not a ValueError, which argument parsers take for a failed type check.
    """


def disk_error(error: Exception) -> str | None:
    """Path and the system's words where a disk is full, a quota spent, something not allowed, or a file stands where a
    folder should; None of other errors.

    Polars and safetensors have the system's number only in their text. A copy's second name is the one written to.
    """
    written = re.search(r"\(os error (\d+)\)", str(error))
    number = getattr(error, "errno", None) or (int(written[1]) if written else None)
    if number not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOTDIR, errno.EEXIST):
        return None
    paths = [getattr(error, "filename2", None), getattr(error, "filename", None), *getattr(error, "__notes__", [])]
    path = next((re.sub(r"\.tmp-\w{8}-", "", str(path)) for path in paths if path), "")
    return f"{path}: {os.strerror(number)}".removeprefix(": ")


def first_line(error: BaseException) -> str:
    """What an error says in its first line; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def one_line(error: BaseException) -> str:
    """All that an error says, in one line."""
    return " ".join(str(error).split())


def fingerprint(*parts: Any) -> str:
    """16 hex digits that change when any of `parts` (whatever `json` and `repr` can write) changes."""
    text = json.dumps(parts, sort_keys=True, default=repr, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """SHA-256 of the file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; what is written there replaces `path` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # safetensors puts a file in its place that nobody else may read
        os.replace(temporary, path)
    except Exception as error:
        error.add_note(str(path))  # a full disk names no file; see `disk_error`
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Writes `content` atomically, indented, with a newline at the end."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `folder`, which becomes it when the block ends well."""
    temporary = folder.with_name(f".tmp-{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)  # left by a killed process
    temporary.mkdir(parents=True)
    try:
        yield temporary
        os.replace(temporary, folder)
    except Exception as error:
        error.add_note(str(folder))
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def build_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """Returns `folder`, made by `build(temporary folder)` first if it does not exist yet.

    Processes that need the same folder at the same time wait for the one that builds it (a lock file beside it, which
    a killed process leaves open). The caller puts the fingerprint of the inputs into the folder's name.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".lock-{folder.name}"):
        if not folder.is_dir():
            with whole_folder(folder) as temporary:  # nobody else holds the lock, so nobody else writes there
                build(temporary)
    return folder
