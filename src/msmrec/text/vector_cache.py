"""The row cache of vectors: each different text (or file, see media/) is encoded once, by content, and kept on disk.

vectors = encode_cached(encoder, texts, Path("cache/text"))  # the second call encodes nothing
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from msmrec.artifacts import InputError
from msmrec.text.encoder import TextEncoder

log = logging.getLogger(__name__)

CHUNK_ROWS = 512  # texts between two writes of the cache: what a killed run loses at most
MERGE_FILES = 16  # so many small cache files become one
MERGE_BYTES = 16 * 2**20  # a file from this size on is never rewritten


def encode_cached(encoder: TextEncoder, texts: Sequence[str], cache_dir: Path) -> NDArray[np.float32]:
    """Encode texts, each different one once, and keep the vectors on disk by the text's hash.

    A changed text is encoded alone; when nothing is missing the model is not even loaded. An encoder that
    ``fits_corpus`` is the exception: any change to the set of texts encodes all of them again. A killed run loses
    at most its last 512 texts. Processes may share the folder: while one encodes the others wait, and then find its
    rows. How many rows were encoded and reused is logged at level INFO.

    Args:
        encoder: what makes the vectors.
        texts: n texts; an empty or blank one gets a zero vector and is not encoded.
        cache_dir: the cache; each encoder fingerprint has its own folder there.

    Returns:
        (n, D) float32, row i for text i.

    Raises:
        TypeError: when an entry is not a string.
        InputError: when a vector is not finite; nothing of that chunk is kept.
    """
    keys: list[bytes] = []  # sha256 of each text that is not blank
    filled: list[int] = []  # and its row
    for i, text in enumerate(texts):
        if not isinstance(text, str) or isinstance(texts, str):
            raise TypeError(
                f"texts[{i}] is a {type(text).__name__} of a {type(texts).__name__}: give a list of strings"
            )
        if text.strip():
            keys.append(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
            filled.append(i)
    if not keys:
        return np.zeros((len(texts), encoder.dim), np.float32)

    def encode(positions: list[int]) -> NDArray[np.float32]:
        block = encoder.encode([texts[filled[k]] for k in positions])
        if not (finite := np.isfinite(block).all(1)).all():
            raise InputError(
                f"{type(encoder).__name__} gave a vector that is not finite for "
                f"{texts[filled[positions[int(finite.argmin())]]][:40]!r}: "
                "try precision float32, or check the model's weights"
            )
        return block

    scope = encoder.fingerprint
    if encoder.fits_corpus:
        scope += hashlib.sha256(b"".join(sorted(set(keys)))).hexdigest()
    name = type(encoder).__name__
    folder = cache_dir / f"{name}-{hashlib.sha256(scope.encode()).hexdigest()[:16]}"
    rows = cached_rows(keys, encode, folder, name, "text", at_once=encoder.fits_corpus)
    encoder.release()
    vectors = np.zeros((len(texts), rows.shape[1]), np.float32)
    vectors[filled] = rows
    return vectors


def cached_rows(
    keys: Sequence[bytes],
    compute: Callable[[list[int]], NDArray[np.float32]],
    folder: Path,
    name: str,
    unit: str,
    at_once: bool = False,
) -> NDArray[np.float32]:
    """Rows by the hash of what they are made of: each different one is made once and kept on disk.

    Args:
        keys: n sha256 digests, at least one.
        compute: positions in `keys` to (m, D) rows, one for each; a row with NaN is one that cannot be made, which is
            returned like the others but not kept.
        folder: the cache of these rows; everything else that they depend on belongs into its name.
        name: who makes them, for the log.
        unit: of what, for the log and the bar.
        at_once: make all rows in one call, and all of them again when one is missing.

    Returns:
        (n, D) float32.
    """
    from tqdm import tqdm

    rows: dict[bytes, list[int]] = {}
    for i, key in enumerate(keys):
        rows.setdefault(key, []).append(i)
    missing = set(rows)
    vectors = np.zeros((0, 0), np.float32)

    def keep(found: Sequence[bytes], block: NDArray[np.float32]) -> None:
        nonlocal vectors
        if not len(vectors):  # only now is their width known
            vectors = np.zeros((len(keys), block.shape[1]), np.float32)
        for key, vector in zip(found, block, strict=True):
            if key in missing:
                vectors[rows[key]] = vector
                missing.remove(key)

    def look() -> None:
        for found, block in _stored(folder, missing):
            keep(found, block)

    look()
    todo: list[bytes] = []
    if missing:
        with _alone(folder, name):
            look()
            if at_once and missing:
                missing.update(rows)
            # by hash, that is in random order: chunks are alike, and the same set gives the same result in any order
            todo = sorted(missing)
            step = max(len(todo), 1) if at_once else CHUNK_ROWS
            with tqdm(total=len(todo), desc=f"encode {unit}s", unit=unit, disable=not todo) as bar:
                for start in range(0, len(todo), step):
                    chunk = todo[start : start + step]
                    block = compute([rows[key][0] for key in chunk])
                    whole = np.asarray(np.isfinite(block).all(1))
                    if whole.any():
                        _write(folder, [key for key, kept in zip(chunk, whole, strict=True) if kept], block[whole])
                        _merge(folder)
                    keep(chunk, block)
                    bar.update(len(chunk))
    log.info("%s: %d %ss encoded, %d reused", name, len(todo), unit, len(rows) - len(todo))
    return vectors


@contextlib.contextmanager
def _alone(folder: Path, name: str) -> Iterator[None]:
    """One process makes rows of a kind at a time: those that waited find them made."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.warning("%s: another process is encoding; waiting for its rows", name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _read(path: Path, wanted: set[bytes] | None = None) -> tuple[list[bytes], NDArray[np.float32]]:
    """Keys and vectors of one cache file; with ``wanted``, no vectors are read when it has none of those keys."""
    with np.load(path, allow_pickle=False) as chunk:
        keys = [row.tobytes() for row in chunk["keys"]]
        if wanted is not None and wanted.isdisjoint(keys):
            return [], np.zeros((0, 0), np.float32)
        return keys, chunk["vectors"]


def _stored(folder: Path, wanted: set[bytes]) -> Iterator[tuple[list[bytes], NDArray[np.float32]]]:
    """The cache files that hold something of ``wanted``, one at a time."""
    seen: set[Path] = set()
    # another process may merge files meanwhile: its new file is there before the old ones go, so look again
    while new := sorted(set(folder.glob("*.npz")) - seen):
        seen.update(new)
        for path in new:
            try:
                keys, block = _read(path, wanted)
            except FileNotFoundError:
                continue
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                log.warning("vector cache: %s cannot be read (%s); its rows are encoded again", path, error)
                path.unlink(missing_ok=True)
                continue
            if keys:
                yield keys, block


def _write(folder: Path, keys: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
    """Add one file; it appears under its name only when it is complete and on disk."""
    folder.mkdir(parents=True, exist_ok=True)
    name = uuid.uuid4().hex
    temporary = folder / f"{name}.tmp"
    try:
        with temporary.open("wb") as file:
            np.savez(file, keys=np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), 32), vectors=vectors)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / f"{name}.npz")
    finally:
        temporary.unlink(missing_ok=True)


def _merge(folder: Path) -> None:
    """Make one file of many small ones, and drop what killed runs left.

    Safe beside other processes: a file is removed only after all its rows are in another; the worst that a race
    does is to store rows twice, and a later merge drops the copies.
    """
    for path in folder.glob("*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > 3600:  # no write takes so long
                path.unlink()
    try:
        sizes = {path: path.stat().st_size for path in folder.glob("*.npz")}
        small = sorted((path for path in sizes if sizes[path] < MERGE_BYTES), key=lambda path: sizes[path])
        if len(small) < MERGE_FILES:
            return
        parts = [_read(path) for path in small[:MERGE_FILES]]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return  # another process was faster, or a file is damaged: the next start drops that one
    keys = [key for part, _ in parts for key in part]
    place = {key: i for i, key in enumerate(keys)}
    _write(folder, list(place), np.concatenate([block for _, block in parts])[list(place.values())])
    for path in small[:MERGE_FILES]:
        path.unlink(missing_ok=True)
