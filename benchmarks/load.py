"""Seconds from the raw file to the first training batch: ML-1M, and generated ratings in ML-25M's layout.

First with nothing prepared, then again from the dataset folder that the first start left. Imports are left out. Makes
the generated file, benchmarks/.work/ml-25m/, if need be.
"""

import itertools
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from common import arguments, emit, seconds
from generated import ratings_file

from msmrec.data.batches import TrainLoader
from msmrec.data.prepare import SplitProtocol, prepare
from msmrec.data.sources.movielens import MovieLens


def main() -> None:
    given = arguments(__doc__, rows=25_000_000)
    rows = 20_000 if given.quick else given.rows
    ratings_file(given.work, rows)

    def first_batch(release: str, root: Path, caches: Iterator[Path]) -> None:
        dataset = prepare(MovieLens(release), root, next(caches), SplitProtocol())  # type: ignore[arg-type]
        next(iter(TrainLoader(dataset, 200, 4096, torch.device("cpu"))))

    sizes = [] if given.quick else [("ML-1M", "ml-1m", given.root, 3)]
    measures = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, release, root, times in [*sizes, (f"{rows:,} generated ratings", "ml-25m", given.work, 1)]:
            fresh = map(Path(folder, release).joinpath, map(str, itertools.count()))
            measures[name] = seconds(partial(first_batch, release, root, fresh), times, times > 1)
            again = itertools.repeat(Path(folder, release, "0"))
            measures[f"{name}, a second time"] = seconds(partial(first_batch, release, root, again), 3)
    emit(
        "ours",
        measures,
        ("polars", "torch"),
        note="reads, validates, filters to a 5-core, encodes, splits, writes the dataset folder, makes a batch; a"
        " second time reads the raw files for their fingerprint, and the dataset folder",
    )


if __name__ == "__main__":
    main()
