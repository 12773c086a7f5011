"""Folders of files named by item: which file belongs to which item, and one vector an item from what they hold.

posters/1.jpg               the picture of the item that the dataset calls 1
trailers/1_0.jpg 1_1.jpg    frames of item 1, averaged
trailers/1/*.jpg            the same as a folder
"""

import hashlib
import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import polars as pl
from scipy.sparse import csr_array

from msmrec.artifacts import InputError, file_digest
from msmrec.columns import RAW_ITEM_ID
from msmrec.data.prepare import Dataset
from msmrec.data.root import find
from msmrec.media.features import Features, ItemFeatures
from msmrec.text.vector_cache import cached_rows

log = logging.getLogger(__name__)


class FileEncoder(ABC):
    """Turns files into vectors and is never trained; the constructor's signature is the config schema."""

    caveat = ""  # see ItemFeatures.caveat

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """All that the vectors depend on, so not the batch size or the device."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """D, the width of a vector; known without loading weights."""

    @abstractmethod
    def encode(self, paths: Sequence[Path]) -> np.ndarray:
        """(n, D) float32, row i for file i; a row of NaN for a file that cannot be read."""


class ItemFiles(ItemFeatures):
    """Vectors from a folder of files that are named by the dataset's own item ids (see above).

    Vectors are kept by the files' content: a second run encodes nothing, a changed file is encoded alone. A file that
    cannot be read is left out, counted and named in a warning; files of items that the dataset lacks are counted.

    Args:
        folder: a relative path is looked for under the data root, then here.
        encoder: makes a vector of each file.

    Raises:
        InputError: when vectors are asked for: no such folder, no file of any item in it, or none that can be read.
    """

    suffixes: ClassVar[tuple[str, ...]]
    unit: ClassVar[str]

    def __init__(self, folder: str, encoder: FileEncoder) -> None:
        self.folder, self.encoder, self.caveat = folder, encoder, encoder.caveat

    def vectors(self, dataset: Dataset, root: Path, cache: Path) -> Features:
        """See `ItemFeatures.vectors`; the mean over an item's files."""
        folder = find(self.folder, root, folder=True)
        paths, item, others = files_of_items(folder, dataset.items[RAW_ITEM_ID], self.suffixes)
        if not paths:
            kinds = ", ".join(self.suffixes)
            raise InputError(
                f"{folder}: no file ({kinds}) of an item of {dataset.info['name']} in it, {others:,} others; "
                f"name files <item id>{self.suffixes[0]}"
            )
        name = type(self.encoder).__name__
        key = hashlib.sha256(self.encoder.fingerprint.encode()).hexdigest()[:16]
        digests = [bytes.fromhex(file_digest(path)) for path in paths]

        def encode(positions: list[int]) -> np.ndarray:
            return self.encoder.encode([paths[i] for i in positions])

        rows = cached_rows(digests, encode, cache / "vectors" / f"{name}-{key}", name, self.unit)
        readable = np.isfinite(rows).all(1)
        if not readable.all():
            bad = [str(paths[i].relative_to(folder)) for i in np.flatnonzero(~readable)]
            more = ", ..." if len(bad) > 3 else ""
            what = f"{len(bad):,} of {len(paths):,} files cannot be read"
            if len(bad) == len(paths):
                raise InputError(f"{folder}: {what}: {', '.join(bad[:3])}{more}; put whole {self.unit} files there")
            log.warning("%s: %s and are left out: %s%s", folder, what, ", ".join(bad[:3]), more)
        rows, item = rows[readable], item[readable]
        count = np.bincount(item, minlength=dataset.num_items + 1)
        share = (1 / count[item]).astype(np.float32)
        mean = csr_array((share, (item, np.arange(len(item)))), shape=(len(count), len(item)))  # over an item's files
        log.info(
            "%s: %d of %d items have %s files (%d files; %d others are of no item)",
            folder, (count > 0).sum(), dataset.num_items, self.unit, len(item), others,
        )  # fmt: skip
        return Features(np.ascontiguousarray(mean @ rows, np.float32), count > 0)


def files_of_items(
    folder: Path, raw_item_ids: pl.Series, suffixes: Sequence[str]
) -> tuple[list[Path], np.ndarray, int]:
    """The files that belong to items, in the order of their paths.

    A name is first taken as an id, then as `<id>_<number>`, so ids may hold underscores. Files and folders that begin
    with a dot are passed over.

    Args:
        folder: of files, and of folders named by id.
        raw_item_ids: (N,) ids as the dataset writes them, item 1 first.
        suffixes: of files that count, in lower case.

    Returns:
        n paths, (n,) int64 item ids, and how many files of such suffixes belong to no item.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; name the folder that holds the files")
    item_id = {raw: i for i, raw in enumerate(raw_item_ids.cast(pl.String).to_list(), 1)}
    paths: list[Path] = []
    items: list[int] = []
    others = 0
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.suffix.lower() not in suffixes or any(part.startswith(".") for part in parts) or not path.is_file():
            continue
        name = path.stem if len(parts) == 1 else parts[0]
        item = item_id.get(name)
        if item is None and len(parts) == 1 and (frame := re.fullmatch(r"(.+)_\d+", name)):
            item = item_id.get(frame[1])
        if item is None:
            others += 1
        else:
            paths.append(path)
            items.append(item)
    return paths, np.array(items, np.int64), others
