"""What the machine can do, and the least time that the work of each hot path takes at that rate.

Rates are measured: matrix products (square ones, in float32 and bfloat16), exponentials, dropout masks, memory traffic.
A floor adds up the operations and bytes of the algorithm as it is, at these rates, with nothing in between; the seconds
of the other benchmarks' results, where there are some, stand beside it. The data are ML-1M's.
"""

import json
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from common import arguments, emit, seconds

from msmrec.columns import TEST
from msmrec.data.prepare import SplitProtocol, prepare
from msmrec.data.sources.movielens import MovieLens

DIM, BLOCKS, LENGTH = 64, 2, 200
RESULTS = Path(__file__).parent / "results"


def rates(size: int) -> dict[str, float]:
    """GFLOP/s, billions of exponentials and of mask elements a second, and GB/s."""
    found = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        a = torch.randn(size, size).to(dtype)
        found[f"{name} products, GFLOP/s"] = 2 * size**3 / min(seconds(partial(torch.matmul, a, a), 3)) / 1e9
    x, y = torch.randn(300, 3416), torch.empty(300, 3416)  # in a cache and in place, as the loss has it
    taken = min(seconds(lambda: [torch.exp(x, out=y) for _ in range(20)], 3))
    found["exponentials, 1e9/s"] = x.numel() * 20 / taken / 1e9
    drawn = torch.empty(size, size, dtype=torch.int64)  # 16 bits of it for an element
    found["dropout masks, 1e9/s"] = 4 * drawn.numel() / min(seconds(lambda: drawn.random_(-(2**63), None), 3)) / 1e9
    large, copy = torch.randn(2**24), torch.empty(2**24)
    found["memory, GB/s"] = 2 * large.nbytes / min(seconds(lambda: copy.copy_(large), 3)) / 1e9
    table = torch.randn(9748, DIM)  # ML-1M's nodes, each the sum of about a hundred others
    rows = torch.randint(9748, (9748, 100))
    taken = min(seconds(lambda: F.embedding_bag(rows, table, mode="sum"), 3))
    found["added rows, GB/s"] = rows.numel() * DIM * 4 / taken / 1e9
    return found


def measured(name: str, what: str, who: str) -> float | None:
    """The median of another benchmark's results."""
    try:
        results = json.loads((RESULTS / f"{name}.json").read_text())["results"]
    except OSError:
        return None
    taken = [r["measures"] for r in results if r["who"] == who and r.get("measures")]
    key = next((key for one in taken for key in one if key.startswith(what)), None)
    return float(np.median(taken[0][key])) if key else None


def main() -> None:
    given = arguments(__doc__)
    rate = rates(256 if given.quick else 2048)
    if given.quick:
        emit("ours", {}, table=[{"rate": k, "": f"{v:.3g}"} for k, v in rate.items()])
        return
    data = prepare(MovieLens("ml-1m"), given.root, given.cache, SplitProtocol())
    train = np.minimum(data.ends[0][1:] - data.offsets[1:-1] - 1, LENGTH).astype(float)
    past = np.minimum(data.ends[TEST - 1][1:] - data.offsets[1:-1], LENGTH).astype(float)
    f32, bf16 = rate["float32 products, GFLOP/s"] * 1e9, rate["bfloat16 products, GFLOP/s"] * 1e9
    layer, items = 2 * 6 * DIM**2, data.num_items  # of a position, forward: query, key, value, out, two feed-forward
    attention = 2 * DIM  # of a pair of positions below the diagonal, forward: 4 D over half of the square
    loss = 2 * train.sum() * items * DIM  # one of its three products
    network = 3 * BLOCKS * (train.sum() * layer + (train**2).sum() * attention)
    exps, masks = train.sum() * items, train.sum() * DIM * (2 * BLOCKS + 1)
    slow = exps / (rate["exponentials, 1e9/s"] * 1e9) + masks / (rate["dropout masks, 1e9/s"] * 1e9)
    first = past.sum() * layer + (past**2).sum() * attention  # of all blocks but the last, where one position asks
    ranked = (BLOCKS - 1) * first + past.sum() * 4 * DIM + len(past) * (layer + 4 * DIM**2 + 2 * items * DIM)
    edges = 2 * 563_202
    step = 6 * edges * (DIM * 4 + 8) / (rate["added rows, GB/s"] * 1e9)
    tokens = 256 * 112
    encoded = tokens * 6 * (2 * 12 * 384**2 + 4 * 112 * 384)
    both, rows = (3 * loss + network) / f32, 6 * edges * (DIM * 4 + 8)
    floors = {
        "SASRec, an epoch, float32": (both + slow, ("sasrec", "training", "ours, float32")),
        "SASRec, an epoch, bf16": ((3 * loss + network) / bf16 + slow, ("sasrec", "training", "ours")),
        "full ranking of all users": (ranked / f32, ("sasrec", "full ranking", "ours")),
        "LightGCN, an epoch, BPR, 2,048": (step * 276, ("lightgcn", "an epoch, BPR, batches of 2,048", "ours")),
        "256 texts, float32": (encoded / f32, ("encode", "256 texts, cold", "ours, float32")),
        "256 texts, bf16": (encoded / bf16, ("encode", "256 texts, cold", "ours")),
    }
    operations = [
        f"{(3 * loss + network) / 1e9:,.0f} GFLOP, {exps / 1e9:.2g}e9 exponentials, {masks / 1e9:.2g}e9 mask elements",
        "the same",
        f"{ranked / 1e9:,.0f} GFLOP",
        f"276 steps of 6 sparse products, {rows / 1e9:.2g} GB of rows read from the cache in each step",
        f"{encoded / 1e9:,.0f} GFLOP",
        "the same",
    ]
    table = []
    for (name, (floor, where)), work in zip(floors.items(), operations, strict=True):
        row, taken = {"path": name, "operations": work, "floor, s": f"{floor:.2f}"}, measured(*where)
        if taken:
            row |= {"measured, s": f"{taken:.2f}", "times the floor": f"{taken / floor:.1f}"}
        table.append(row)
    machine = "; ".join(f"{name} {value:,.3g}" for name, value in rate.items())
    emit("ours", {}, table=table, note=f"rates of this machine: {machine}")


if __name__ == "__main__":
    main()
