"""How seconds grow with users, items, history length and batch: exponents of a power law, fitted to four sizes each.

Each size is measured on generated data of which only one thing changes. An exponent of 1 is proportional growth. Time
is a step's (training), a whole evaluation's, a graph's step, and one search for all samples.
"""

from itertools import islice

import numpy as np
import torch
from common import arguments, emit, peak_mb, seconds
from generated import Generated

from msmrec.columns import TEST
from msmrec.data.batches import EvalLoader, TrainLoader
from msmrec.data.edges import EdgeLoader, training_edges
from msmrec.metrics.ranking import target_ranks
from msmrec.models.lightgcn import LightGCN
from msmrec.models.rec_module import RecModule
from msmrec.models.sasrec import SASRec
from msmrec.retrieval.history import relevant_history

BASE = {"users": 1000, "items": 4000, "length": 50, "batch": 4096}
SIZES = {
    "users": (500, 1000, 2000, 4000), "items": (2000, 4000, 8000, 16_000), "length": (25, 50, 100, 200),
    "batch": (1024, 2048, 4096, 8192),
}  # fmt: skip
CPU = torch.device("cpu")


def epoch(model: RecModule, loader: TrainLoader | EdgeLoader, count: int) -> list[float]:
    """Seconds of all steps, from the first `count` of them."""
    model.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    some = list(islice(loader, count))

    def steps() -> None:
        for k, one in enumerate(some):
            optimizer.zero_grad()
            model.training_step(one, k).backward()
            optimizer.step()

    return [second * len(loader) / len(some) for second in seconds(steps, 2)]


def sasrec_epoch(data: Generated, length: int, batch: int) -> list[float]:
    torch.manual_seed(0)
    model = SASRec(data.num_items, max_seq_len=length, temperature=0.05)
    loader = TrainLoader(data, length, batch, CPU)
    return epoch(model, loader, 6)


def ranking(data: Generated, length: int, batch: int) -> list[float]:
    model = SASRec(data.num_items, max_seq_len=length, temperature=0.05).eval()
    loader = EvalLoader(data, TEST, length, max(batch // 32, 1), CPU)

    @torch.no_grad()
    def rank() -> None:
        for one in loader:
            scores = model.scores(one)
            scores[one.seen_row, one.seen_item] = -torch.inf
            target_ranks(scores, one.target_item)

    return seconds(rank, 2)


def lightgcn_epoch(data: Generated, length: int, batch: int) -> list[float]:
    user, item = training_edges(data)
    model = LightGCN(data.num_users, data.num_items)
    model.set_edges(torch.from_numpy(user), torch.from_numpy(item))
    loader = EdgeLoader(data, batch, CPU)
    return epoch(model, loader, 4)


def histories(data: Generated, length: int, batch: int) -> list[float]:
    vectors = np.random.default_rng(0).standard_normal((data.num_items + 1, 64)).astype(np.float32)
    rows = np.flatnonzero(np.arange(len(data.item_id)) - data.offsets[data.user_id] >= 5)
    return seconds(lambda: relevant_history(data, [vectors], rows, 10), 2)


WORK = {
    "SASRec, an epoch": (sasrec_epoch, ("users", "items", "length", "batch")),
    "full ranking": (ranking, ("users", "items", "length")),
    "LightGCN, an epoch": (lightgcn_epoch, ("users", "items", "length", "batch")),
    "relevant histories of all rows": (histories, ("users", "items", "length")),
}


def main() -> None:
    given = arguments(__doc__)
    table = []
    for name, (work, axes) in WORK.items():
        for axis in axes:
            sizes = [size // 16 for size in SIZES[axis][:2]] if given.quick else SIZES[axis]
            best = []
            for size in sizes:
                at = {**BASE, **({"users": 60, "items": 100} if given.quick else {}), axis: max(size, 8)}
                best.append(min(work(Generated(at["users"], at["items"], at["length"]), at["length"], at["batch"])))
            slope = np.polyfit(np.log([max(size, 8) for size in sizes]), np.log(best), 1)[0]
            row = {"work": name, "grows with": axis, "sizes": " ".join(f"{size:,}" for size in sizes)}
            row |= {"seconds": " ".join(f"{second:.3g}" for second in best), "exponent": f"{slope:.2f}"}
            table.append({**row, "process's peak, MB": f"{peak_mb():,.0f}"})
    fixed = ", ".join(f"{value:,} {axis}" for axis, value in BASE.items())
    note = f"all but the changed one at {fixed} (batch: positions or edges); the best of two runs; memory never falls"
    emit("ours", {}, ("torch",), table=table, note=note)


if __name__ == "__main__":
    main()
