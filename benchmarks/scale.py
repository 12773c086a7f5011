"""Does it work when large? 25 million generated ratings, and a catalogue of a million items, with peak memory.

--part ratings: the raw file prepared, training steps of SASRec (softmax over all items, and sampled), part of the full
ranking.
--part catalogue: training steps with sampled softmax, the ranking of a part of the users in blocks, and by FAISS.
"""

import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from common import arguments, emit, peak_mb
from generated import Generated, ratings_file

from msmrec.columns import TEST
from msmrec.data.batches import EvalLoader, TrainLoader
from msmrec.data.prepare import Dataset, SplitProtocol, prepare
from msmrec.data.sources.movielens import MovieLens
from msmrec.metrics.ranking import target_ranks
from msmrec.models.rec_module import users_at_once
from msmrec.models.sasrec import SASRec

CPU = torch.device("cpu")
Rows = list[dict[str, str]]


def row(work: str, seconds: float, whole: str = "") -> dict[str, str]:
    print(f"{work}: {seconds:.2f} s, peak {peak_mb():,.0f} MB", flush=True)
    return {"work": work, "seconds": f"{seconds:.2f}", "for the whole": whole, "peak so far, MB": f"{peak_mb():,.0f}"}


def train(model: SASRec, data: Dataset, steps: int) -> Rows:
    loader = TrainLoader(data, 200, 4096, CPU)
    model.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    optimizer, taken = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True), []
    for k, batch in enumerate(islice(loader, steps + 1)):
        begin = time.perf_counter()
        optimizer.zero_grad()
        model.training_step(batch, k).backward()
        optimizer.step()
        taken.append(time.perf_counter() - begin)
    mean = float(np.mean(taken[1:]))
    whole = f"{mean * len(loader):,.0f} s an epoch of {len(loader):,} steps"
    return [row(f"a training step ({model.loss}), mean of {steps}", mean, whole)]


@torch.no_grad()
def rank(model: SASRec, data: Dataset, users: int) -> Rows:
    size = users_at_once(128, data.num_items)
    loader, done, begin = EvalLoader(data, TEST, 200, size, CPU), 0, time.perf_counter()
    model.eval()
    for batch in loader:
        scores = model.scores(batch)
        scores[batch.seen_row, batch.seen_item] = -torch.inf
        target_ranks(scores, batch.target_item)
        done += len(batch.user_id)
        if done >= users:
            break
    taken = time.perf_counter() - begin
    whole = f"{taken * len(loader.user) / done:,.0f} s for {len(loader.user):,} users"
    return [row(f"full ranking of {done:,} users in blocks of {size}", taken, whole)]


def ratings(given: object) -> Rows:
    rows = 20_000 if given.quick else given.rows  # type: ignore[attr-defined]
    ratings_file(given.work, rows)  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as cache:
        begin = time.perf_counter()
        data = prepare(MovieLens("ml-25m"), given.work, Path(cache), SplitProtocol())  # type: ignore[attr-defined]
        table = [row(f"{len(data.item_id):,} ratings prepared", time.perf_counter() - begin)]
        torch.manual_seed(0)
        steps = 1 if given.quick else 6  # type: ignore[attr-defined]
        model = SASRec(data.num_items, temperature=0.05)
        table += train(model, data, steps) + rank(model, data, 1024)
        sampled = SASRec(data.num_items, temperature=0.05, loss="sampled_softmax", num_negatives=512)
        table += train(sampled, data, steps)
    about = f"{data.num_users:,} users, {data.num_items:,} items"
    return [{"dataset": about, **one} for one in table]


def catalogue(given: object) -> Rows:
    from msmrec.retrieval.index import ItemIndex

    items = 500 if given.quick else given.items  # type: ignore[attr-defined]
    data = Generated(200 if given.quick else 20_000, items, 50)
    torch.manual_seed(0)
    model = SASRec(items, temperature=0.05, loss="sampled_softmax", num_negatives=min(512, items // 2))
    table = train(model, data, 1 if given.quick else 6) + rank(model, data, 512)  # type: ignore[attr-defined]
    begin = time.perf_counter()
    with torch.no_grad():
        index = ItemIndex("ivf", device="cpu").build(model.item_embeddings().numpy())
    table.append(row("an ivf index of the items' vectors", time.perf_counter() - begin))
    batch = next(iter(EvalLoader(data, TEST, 200, 512, CPU)))
    begin = time.perf_counter()
    with torch.no_grad():
        index.search(model.user_embeddings(batch).numpy(), 100)
    table.append(row(f"the 100 nearest items of {len(batch.user_id)} users by it", time.perf_counter() - begin))
    return [{"dataset": f"{data.num_users:,} users, {data.num_items:,} items", **one} for one in table]


def main() -> None:
    given = arguments(__doc__, part="ratings", rows=25_000_000, items=1_000_000)
    table = ratings(given) if given.part == "ratings" else catalogue(given)
    emit("ours", {}, ("torch", "polars"), table=table, note=f"{given.part}; a user by items matrix is never made")


if __name__ == "__main__":
    main()
