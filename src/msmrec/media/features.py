"""Vectors of items from anything but ratings: text, pictures, sound, or a file of features."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from msmrec.data.prepare import Dataset


class Features(NamedTuple):
    """Vectors of one kind for all items of a dataset."""

    vectors: np.ndarray  # (N + 1, D) float32, zero where an item has none; row 0 is the padding
    present: np.ndarray  # (N + 1,) bool


class ItemFeatures(ABC):
    """One kind of vectors, made once and kept in the cache."""

    caveat = ""
    """What whoever reads a result has to know of these vectors; empty when nothing."""

    @abstractmethod
    def vectors(self, dataset: Dataset, root: Path, cache: Path) -> Features:
        """Vectors of the dataset's items.

        Args:
            dataset: whose items.
            root: data root; relative paths are looked for there.
            cache: where what was computed is kept, by content.
        """
