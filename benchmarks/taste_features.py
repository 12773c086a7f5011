"""Item features that know the training ratings, to ask whether a fusion or its features are to blame for a result.

    python -m msmrec prepare --config visualrec_mlsmall.yaml            # prints the dataset's folder, last
    python benchmarks/taste_features.py FOLDER taste.parquet --noise 1
    python evaluate.py --config visualrec_mlsmall.yaml --run_dir runs/taste --model.init_args.features.visual \
        '{class_path: FeatureFile, init_args: {path: taste.parquet}}'

452 numbers an item, as many as a poster's: 40 factors of the training interactions, mixed, and noise. Items without a
training rating get none.
"""

import argparse
from pathlib import Path

import numpy as np
import polars as pl
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import svds

from msmrec.columns import RAW_ITEM_ID
from msmrec.data.prepare import Dataset

FACTORS, WIDTH = 40, 452


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a prepared dataset")
    parser.add_argument("out", type=Path, help="Parquet file to write")
    parser.add_argument("--noise", type=float, default=1.0, help="its deviation; that of what is known is 1")
    args = parser.parse_args()
    dataset, rng = Dataset(args.folder), np.random.default_rng(0)
    count = dataset.ends[0] - dataset.offsets[:-1]
    user = np.repeat(np.arange(len(count)), count)
    row = np.repeat(dataset.offsets[:-1] - np.cumsum(count) + count, count) + np.arange(count.sum())
    item = dataset.item_id[row]
    times = np.bincount(item, minlength=len(dataset.items) + 1)
    rated = csr_matrix((times[item] ** -0.5, (item, user)), shape=(len(times), len(count)))
    left, scale, _ = svds(rated, k=FACTORS, random_state=0)
    known = left * scale @ rng.standard_normal((FACTORS, WIDTH))
    vectors = known / known[times > 0].std() + args.noise * rng.standard_normal(known.shape)
    table = pl.DataFrame({RAW_ITEM_ID: dataset.items[RAW_ITEM_ID], "vector": vectors[1:].astype(np.float32)})
    table.filter(pl.Series(times[1:] > 0)).write_parquet(args.out)
    print(f"{args.out}: {int((times > 0).sum()):,} of {len(table):,} items")


if __name__ == "__main__":
    main()
