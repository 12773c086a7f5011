"""How fast a file of Amazon reviews is read, and in how much memory.

    python benchmarks/amazon.py --reviews 2000000 [--release 2018] [--loose] [--words 80]

Writes a gzip of made-up reviews (2018: JSON with text; --loose: Python literals, as 2014's first files), then reads it
and prepares it in a fresh process. Prints rows a second and the peak memory of that process, at start, after reading
and after preparing.
"""

import argparse
import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CATEGORY = "Made_Up"


def write(folder: Path, reviews: int, release: str, loose: bool, words: int) -> Path:
    """Users and items are drawn with popularity 1 / rank; a text has 1 to 2 `words` words."""
    rng = np.random.default_rng(0)
    vocabulary = np.array('the and a it is great "solid" sound for don\'t buy works as new strings box ok'.split())
    texts = [" ".join(rng.choice(vocabulary, size)) for size in rng.integers(1, 2 * words, 2_000)]
    names = {"2014": "reviews_{}.json.gz", "2018": "{}.json.gz", "2023": "{}.jsonl.gz"}
    path = folder / "amazon" / f"{CATEGORY}_{release}" / names[release].format(CATEGORY)
    path.parent.mkdir(parents=True)
    with gzip.open(path, "wt", compresslevel=1) as file:
        for begin in range(0, reviews, 100_000):
            count = min(100_000, reviews - begin)
            user = (reviews / 4 * rng.random(count) ** 2).astype(int).tolist()
            item = (reviews / 20 * rng.random(count) ** 3).astype(int).tolist()
            when = rng.integers(10**9, 1_500_000_000, count).tolist()
            rating, text = rng.integers(1, 6, count).tolist(), rng.integers(len(texts), size=count).tolist()
            for u, i, r, t, k in zip(user, item, rating, when, text, strict=True):
                if release == "2023":
                    row = {"rating": float(r), "title": "Fine", "text": texts[k], "images": [], "asin": f"B{i:09}",
                           "parent_asin": f"B{i:09}", "user_id": f"AE{u:026}", "timestamp": t * 1000}  # fmt: skip
                else:
                    row = {"overall": float(r), "verified": True, "reviewerID": f"A{u:013}", "asin": f"B{i:09}",
                           "reviewText": texts[k], "summary": "Fine", "unixReviewTime": t}  # fmt: skip
                file.write((repr(row) if loose else json.dumps(row)) + "\n")
    return path


def measure(folder: Path, release: str) -> None:
    """Runs in the fresh process."""
    from msmrec.data.prepare import SplitProtocol, prepare
    from msmrec.data.sources.amazon import Amazon, read_reviews
    from msmrec.data.sources.border import Border

    def peak() -> str:
        return f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB"

    source = Amazon(CATEGORY, release)  # type: ignore[arg-type]
    print(f"imports: {peak()}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    begin = time.perf_counter()
    rows = len(read_reviews(Border(source.files(folder)[0], 0.01), source.release))
    seconds = time.perf_counter() - begin
    print(f"read: {rows:,} reviews in {seconds:.1f} s, {rows / seconds:,.0f} rows/s, {peak()}")
    begin = time.perf_counter()
    data = prepare(source, folder, folder / "cache", SplitProtocol(duplicates="last"))
    print(f"prepare, reading included: {time.perf_counter() - begin:.1f} s, {peak()}")
    print(f"{data.num_users:,} users, {data.num_items:,} items, {data.info['num_interactions']:,} interactions, 5-core")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reviews", type=int, default=1_000_000)
    parser.add_argument("--release", choices=["2014", "2018", "2023"], default="2018")
    parser.add_argument("--loose", action="store_true", help="Python literals")
    parser.add_argument("--words", type=int, default=80, help="mean length of a text")
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.folder:
        measure(Path(args.folder), args.release)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), args.reviews, args.release, args.loose, args.words)
        print(f"{path.name}: {path.stat().st_size / 1e6:,.0f} MB", flush=True)
        line = [sys.executable, __file__, "--folder", folder, "--release", args.release]
        subprocess.run(line, check=True)


if __name__ == "__main__":
    main()
