"""The kinds of ItemIndex, measured: which one for how many items.

    OMP_NUM_THREADS=1 python benchmarks/index.py [--max_items 100000] [--kinds ivf pq] [--threads 1]

For 10,000, 100,000 and 1,000,000 items of 128 numbers (clusters of about 100, half of a vector's variance inside its
cluster), each kind with its default settings: CPU seconds to build, CPU seconds for 1,000 queries of 30 items, the
share of the 30 that brute force finds too, and megabytes on disk. Prints a Markdown table. CPU seconds do not count
what other processes take; on one thread they are what an idle machine needs. hnsw with
1,000,000 items builds for many minutes.
"""

import argparse
import platform
import resource
import tempfile
import time
from pathlib import Path

import faiss
import numpy as np

from msmrec.retrieval.index import ItemIndex, Kind

KINDS: tuple[Kind, ...] = ("flat", "ivf", "hnsw", "pq")
DIM, NUM_QUERIES, K = 128, 1_000, 30


def clustered(num_items: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Item vectors (N + 1, D), row 0 the padding, and queries (B, D) drawn like them."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(num_items // 100, 1), DIM), np.float32)
    vectors = rng.standard_normal((num_items + 1 + NUM_QUERIES, DIM), np.float32)
    vectors += centres[rng.integers(0, len(centres), len(vectors))]
    return vectors[: num_items + 1], vectors[num_items + 1 :]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--min_items", type=int, default=0)
    parser.add_argument("--max_items", type=int, default=1_000_000)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="flat, the truth, always runs")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    faiss.omp_set_num_threads(args.threads)
    print(f"faiss {faiss.__version__}, {faiss.omp_get_max_threads()} thread(s), {platform.machine()}, ", end="")
    print(f"D = {DIM}, {NUM_QUERIES:,} queries, k = {K}\n")
    print(f"| items | kind | build, CPU s | search, CPU s | recall@{K} | MB |\n|--:|:--|--:|--:|--:|--:|", flush=True)
    for num_items in (10_000, 100_000, 1_000_000):
        if not args.min_items <= num_items <= args.max_items:
            continue
        vectors, queries = clustered(num_items)
        truth = np.zeros((0, 0), np.int64)
        for kind in KINDS:
            if kind != "flat" and kind not in args.kinds:
                continue
            begin = time.process_time()
            index = ItemIndex(kind, device="cpu").build(vectors)
            build = time.process_time() - begin
            begin = time.process_time()
            _, found = index.search(queries, K)
            search = time.process_time() - begin
            if kind == "flat":
                truth = found  # brute force; tests/retrieval checks it against numpy
            recall = np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(found, truth, strict=True)])
            with tempfile.TemporaryDirectory() as folder:
                index.save(Path(folder))
                size = sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e6
            print(f"| {num_items:,} | {kind} | {build:.2f} | {search:.3f} | {recall:.3f} | {size:.1f} |", flush=True)
            del index
    print(f"\nmost memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


if __name__ == "__main__":
    main()
