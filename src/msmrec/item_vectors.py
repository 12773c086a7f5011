"""Item vectors that one run leaves and another reads: (N + 1, D), row 0 the padding."""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from msmrec.artifacts import InputError


def run_vectors(run: Path, num_items: int) -> np.ndarray:
    """(N + 1, D) item vectors that a run left.

    Raises:
        InputError: the run has none, or they are of another catalogue or not finite.
    """
    path = run / "item_embeddings.safetensors"
    if not path.is_file():
        raise InputError(f"{path}: not there; this run's model has no item vectors")
    return check_vectors(load_file(path)["item_embeddings"].astype(np.float32), num_items)


def normalised(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1; zero rows stay zero, and such items are near to nothing."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
    return unit


def standardised(vectors: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and deviation 1 over the items that have a vector; those without keep zero."""
    there = vectors.any(1)
    known, scaled = vectors[there], np.zeros_like(vectors)
    if len(known):
        scaled[there] = (known - known.mean(0)) / np.maximum(known.std(0), 1e-6)
    return scaled


def check_vectors(vectors: np.ndarray, num_items: int) -> np.ndarray:
    """Returns the vectors as float32 (N + 1, D).

    Raises:
        InputError: they are of another catalogue, or some are NaN or infinite.
    """
    if vectors.ndim != 2 or len(vectors) != num_items + 1:
        raise InputError(f"item vectors of shape {vectors.shape} for a catalogue of {num_items:,} items")
    bad = np.flatnonzero(~np.isfinite(vectors).all(1))
    if len(bad):
        raise InputError(
            f"item vectors hold NaN or infinity for {len(bad):,} items, first {bad[0]}; mend the run that made them"
        )
    return vectors.astype(np.float32, copy=False)
