"""Histories and prompts of all click samples of ML-1M: what retrieval, eq. 8, rendering and tokens cost.

    OMP_NUM_THREADS=2 python benchmarks/retrieval.py [--root DIR] [--k 30]

Vectors are random: the work is the same. `plain loop` is what a NumPy loop over samples takes, on a part, scaled up.
"""

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from msmrec.columns import TEST, TRAIN, VAL
from msmrec.data.prepare import SplitProtocol, prepare
from msmrec.data.samples import sample_rows
from msmrec.data.sources.movielens import MovieLens
from msmrec.retrieval.history import relevant_history, rerank
from msmrec.retrieval.prompts import MOVIE_TEMPLATE, Prompts, PromptTokens, in_time


def best_of(repetitions: int, work: Callable[[], object]) -> float:
    """Shortest of several times, in seconds."""
    seconds = []
    for _ in range(repetitions):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(os.environ.get("MSMREC_DATA", "data")))
    parser.add_argument("--k", type=int, default=30)
    parser.add_argument("--repetitions", type=int, default=3)
    args = parser.parse_args()
    protocol = SplitProtocol(min_user_count=0, min_item_count=0, split="global_time", min_history=5)
    data = prepare(MovieLens("ml-1m"), args.root, Path(tempfile.mkdtemp()), protocol)
    rows = np.concatenate([sample_rows(data, part) for part in (TRAIN, VAL, TEST)])
    vectors = np.random.default_rng(0).standard_normal((data.num_items + 1, 192)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    print(f"{len(rows):,} samples, K = {args.k}, {torch.get_num_threads()} threads, best of {args.repetitions}")
    found = relevant_history(data, [vectors], rows, args.k)
    chosen = rerank(data, found.rows, rows, 2 / 3, 1.0)
    some = np.random.default_rng(1).choice(len(rows), 20_000, replace=False)

    def plain() -> None:
        for row in rows[some]:
            first = data.offsets[data.user_id[row]]
            similarity = vectors[data.item_id[first:row]] @ vectors[data.item_id[row]]
            np.argsort(-similarity)[: args.k]

    def row(name: str, seconds: float) -> None:
        print(f"{name:34} {seconds:7.2f} s   {len(rows) / seconds:10,.0f} a second")

    row("relevant history", best_of(args.repetitions, lambda: relevant_history(data, [vectors], rows, args.k)))
    row("eq. 8, both channels", best_of(args.repetitions, lambda: rerank(data, found.rows, rows, 2 / 3, 1.0)))
    row("plain loop (scaled)", best_of(1, plain) * len(rows) / len(some))
    prompts, test = Prompts(data, MOVIE_TEMPLATE), slice(len(rows) - 97_002, len(rows))
    begun = time.perf_counter()
    prompts.heads, prompts.entries, prompts.tails  # noqa: B018 (made once)
    print(f"{'pieces of prompts, once':34} {time.perf_counter() - begun:7.2f} s   {len(prompts.entries):,} lines")
    history = in_time(chosen[test])
    seconds = best_of(args.repetitions, lambda: sum(len(text) for text in prompts.texts(rows[test], history)))
    print(f"{'prompts as text':34} {seconds:7.2f} s   {97_002 / seconds:10,.0f} a second")
    words = PromptTokens(
        prompts, lambda texts: [[hash(w) % 2**31 for w in t.split()] for t in texts], [], [], None, 2048
    )
    seconds = best_of(
        args.repetitions,
        lambda: [words(rows[test][k : k + 8192], history[k : k + 8192]) for k in range(0, 97_002, 8192)],
    )
    print(f"{'prompts as tokens (words)':34} {seconds:7.2f} s   {97_002 / seconds:10,.0f} a second")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
