"""Genres as one kind of item features."""

from pathlib import Path

import numpy as np

from msmrec.artifacts import InputError
from msmrec.data.catalogue import genre_matrix
from msmrec.data.prepare import Dataset
from msmrec.media.features import Features, ItemFeatures


class GenreFeatures(ItemFeatures):
    """One number a genre: 1 where an item has it, 0 where not, in alphabetical order."""

    def vectors(self, dataset: Dataset, root: Path, cache: Path) -> Features:
        """See `ItemFeatures.vectors`; an item without genres has no vector.

        Raises:
            InputError: the dataset knows no genres.
        """
        vectors = genre_matrix(dataset)
        if not vectors.shape[1]:
            raise InputError(f"{dataset.info['name']} knows no genres: leave GenreFeatures out of model.features")
        return Features(vectors, np.asarray(vectors.any(1)))
