"""Histories and prompts of all click samples of ML-1M: what retrieval, eq. 8, rendering and tokens cost, beside a loop.

Vectors are random: the work is the same. The loop, which is what a NumPy program without more thought does, runs over a
part of the samples and is scaled.
"""

import time
from dataclasses import replace

import numpy as np
import torch  # noqa: F401 (whose threads `arguments` sets)
from common import arguments, emit, seconds

from msmrec.columns import TEST, TRAIN, VAL
from msmrec.data.prepare import SplitProtocol, prepare
from msmrec.data.samples import sample_rows
from msmrec.data.sources.movielens import MovieLens
from msmrec.data.sources.simulated import Simulated
from msmrec.retrieval.history import in_time, relevant_history, rerank
from msmrec.retrieval.prompts import MOVIE_TEMPLATE, Prompts, PromptTokens

K = 30


def main() -> None:
    given = arguments(__doc__, loop=20_000)
    protocol = SplitProtocol(min_user_count=0, min_item_count=0, split="global_time", min_history=5)
    template = MOVIE_TEMPLATE
    if given.quick:
        world = Simulated(num_users=120, num_items=60, mean_interactions=14)
        data, template = prepare(world, given.work, given.work, protocol), replace(template, profile="")
    else:
        data = prepare(MovieLens("ml-1m"), given.root, given.cache, protocol)
    rows = np.concatenate([sample_rows(data, part) for part in (TRAIN, VAL, TEST)])
    vectors = np.random.default_rng(0).standard_normal((data.num_items + 1, 192)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = relevant_history(data, [vectors], rows, K)
    chosen = rerank(data, found.rows, rows, 2 / 3, 1.0)
    prompts = Prompts(data, template)
    begin = time.perf_counter()
    prompts.heads, prompts.entries, prompts.tails  # noqa: B018 (made once)
    pieces = time.perf_counter() - begin
    some, history = rows[-97_002:], in_time(chosen[-97_002:])
    words = PromptTokens(
        prompts, lambda texts: [[hash(w) % 2**31 for w in t.split()] for t in texts], [], [], None, 2048
    )
    parts = range(0, len(some), 8192)
    nearest = f"the {K} nearest of all {len(rows):,} samples"
    emit(
        "ours",
        {
            nearest: seconds(lambda: relevant_history(data, [vectors], rows, K)),
            "both channels by eq. 8": seconds(lambda: rerank(data, found.rows, rows, 2 / 3, 1.0)),
            "pieces of prompts": [pieces],
            f"{len(some):,} prompts as text": seconds(lambda: sum(map(len, prompts.texts(some, history)))),
            f"{len(some):,} prompts as tokens (words)": seconds(
                lambda: [words(some[k : k + 8192], history[k : k + 8192]) for k in parts]
            ),
        },
        ("torch", "numpy", "polars"),
    )
    drawn = np.random.default_rng(1).choice(rows, min(given.loop, len(rows)), replace=False)

    def plain() -> None:
        for row in drawn:
            first = data.offsets[data.user_id[row]]
            near = vectors[data.item_id[first:row]] @ vectors[data.item_id[row]]
            np.argsort(-near)[:K]

    scale = len(rows) / len(drawn)
    taken = [second * scale for second in seconds(plain, 2)]
    emit("a NumPy loop over samples", {nearest: taken}, ("numpy",), note=f"{len(drawn):,} samples, scaled")


if __name__ == "__main__":
    main()
