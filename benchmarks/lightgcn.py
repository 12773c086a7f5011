"""Seconds of a LightGCN epoch on ML-1M's 575,281 positive ratings: BPR, dim 64, 3 layers, batches of 2,048.

Then the larger batches and the softmax that configs/lightgcn_ml1m.yaml trains with. Hands the edges to the peers.
"""

import time
from itertools import islice

import numpy as np
import torch
from common import arguments, emit, quarters

from msmrec.data.edges import EdgeLoader, training_edges
from msmrec.data.prepare import SplitProtocol, prepare
from msmrec.data.sources.movielens import MovieLens
from msmrec.data.sources.simulated import Simulated
from msmrec.models.lightgcn import LightGCN


def main() -> None:
    given = arguments(__doc__, steps=60)
    above = SplitProtocol(min_user_count=0, min_item_count=0, min_rating=4)  # 575,281 ratings of 4 and 5
    if given.quick:
        world = Simulated(num_users=120, num_items=60, mean_interactions=14)
        dataset = prepare(world, given.work, given.work, SplitProtocol())
    else:
        dataset = prepare(MovieLens("ml-1m"), given.root, given.cache, above)
    user, item = training_edges(dataset)
    np.savez(given.work / "lightgcn.npz", user=user, item=item)
    measures = {}
    for name, size, options in (
        ("an epoch, BPR, batches of 2,048", 2048, {}),
        ("an epoch, BPR, batches of 16,384", 16_384, {}),
        ("an epoch, softmax over all items, batches of 32,768", 32_768,
         {"loss": "softmax", "temperature": 0.2, "num_layers": 2}),
    ):  # fmt: skip
        torch.manual_seed(0)
        model = LightGCN(dataset.num_users, dataset.num_items, **{"num_layers": 3, **options})
        model.set_edges(torch.from_numpy(user), torch.from_numpy(item))
        model.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
        optimizer, taken = torch.optim.Adam(model.parameters(), 1e-3, fused=True), []
        loader = EdgeLoader(dataset, size, torch.device("cpu"), by_user=model._whole)
        begin = time.perf_counter()
        for step, batch in enumerate(islice(loader, given.steps)):
            optimizer.zero_grad()
            model.training_step(batch, step).backward()
            optimizer.step()
            taken.append(time.perf_counter() - begin)
            begin = time.perf_counter()
        measures[name] = quarters(taken, len(loader))
    emit(
        "ours",
        measures,
        note=f"{len(user):,} edges; {given.steps} steps, scaled; loss and graph are torch_geometric's"
        " (tests/models/test_lightgcn.py: equal vectors and gradients), so the same quality by the same steps",
    )


if __name__ == "__main__":
    main()
