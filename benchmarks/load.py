"""Seconds from the raw file to the first training batch: ML-1M, and generated ratings in ML-25M's layout.

Nothing is prepared before and imports are left out. Makes the generated file, benchmarks/.work/ml-25m/, if need be.
"""

import tempfile
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

    def first_batch(release: str, root: Path) -> None:
        with tempfile.TemporaryDirectory() as cache:
            dataset = prepare(MovieLens(release), root, Path(cache), SplitProtocol())  # type: ignore[arg-type]
            next(iter(TrainLoader(dataset, 200, 4096, torch.device("cpu"))))

    measures = {}
    if not given.quick:
        measures["ML-1M"] = seconds(lambda: first_batch("ml-1m", given.root), 3)
    measures[f"{rows:,} generated ratings"] = seconds(lambda: first_batch("ml-25m", given.work), 1, 0)
    emit(
        "ours",
        measures,
        ("polars", "torch"),
        note="reads, validates, filters to a 5-core, encodes, splits, writes the dataset folder, makes a batch",
    )


if __name__ == "__main__":
    main()
