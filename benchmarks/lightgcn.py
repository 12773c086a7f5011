"""Seconds of a LightGCN epoch, ours and torch_geometric's, on the same edges, batches and optimiser.

    python benchmarks/lightgcn.py --data.root DIR [--threads 1] [--steps 20] [--repetitions 5] [--layers 3]

torch_geometric twice: with edge_index (message passing) and with a sparse CSR matrix normalised beforehand, for which
it needs no extra package. All draw one negative an edge: torch_geometric brings no sampler for this, so it is given
ours, and the timing is of propagation, loss, backward and optimiser. The variants take turns in each repetition, so
that a busy machine slows all of them; the table gives the fastest and the median repetition, warm-up left out,
scaled from `steps` batches to the epoch.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch
from torch_geometric.nn.models import LightGCN as Reference

from msmrec.data.edges import EdgeBatch, EdgeLoader, training_edges
from msmrec.data.prepare import SplitProtocol, prepare
from msmrec.data.sources.movielens import MovieLens
from msmrec.models.lightgcn import LightGCN


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data.root", dest="root", default=os.environ.get("MSMREC_DATA", "data"))
    parser.add_argument("--cache", default=os.environ.get("MSMREC_CACHE", "artifacts"))
    for name, default in {"threads": 1, "steps": 20, "repetitions": 5, "layers": 3, "batch_size": 4096}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    protocol = SplitProtocol(min_user_count=0, min_item_count=0, min_rating=3, split="user_random")
    dataset = prepare(MovieLens("ml-1m"), Path(args.root), Path(args.cache), protocol)
    user, item = (torch.from_numpy(x).to(device) for x in training_edges(dataset))
    loader = EdgeLoader(dataset, args.batch_size, device)

    ours = LightGCN(dataset.num_users, dataset.num_items, num_layers=args.layers).to(device)
    ours.set_edges(user, item, device)
    ours.log = lambda *args, **kwargs: None
    assert ours.graph is not None and ours.sampler is not None
    first, graph, sampler = dataset.num_users + 1, ours.graph, ours.sampler
    ends = torch.stack([user.long(), item.long() + first])
    edge_index = torch.cat([ends, ends.flip(0)], 1)

    def reference(adjacency: torch.Tensor, normalize: bool) -> tuple[torch.nn.Module, Callable[[EdgeBatch], None]]:
        model = Reference(len(ours.embedding.weight), 64, args.layers, normalize=normalize).to(device)

        def loss(batch: EdgeBatch) -> torch.Tensor:
            negative = sampler.draw(batch.user_id, 1)[:, 0]
            items = torch.cat([batch.pos_item, negative]) + first
            positive_rank, negative_rank = model(adjacency, torch.stack([batch.user_id.repeat(2), items])).chunk(2)
            return model.recommendation_loss(positive_rank, negative_rank, torch.cat([batch.user_id, items]))

        return model, loss

    variants = {
        "ours": (ours, lambda batch: ours.training_step(batch, 0)),
        "torch_geometric, edge_index": reference(edge_index, True),
        "torch_geometric, sparse CSR": reference(graph, False),
    }
    steps = min(args.steps, len(loader))
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    optimizers = {n: torch.optim.Adam(model.parameters(), lr=1e-3, fused=True) for n, (model, _) in variants.items()}
    for repetition in range(args.repetitions + 1):
        for name, (_, loss) in variants.items():
            loader.set_epoch(repetition)
            batches = list(islice(loader, steps))
            begin = time.perf_counter()
            for batch in batches:
                optimizers[name].zero_grad()
                loss(batch).backward()
                optimizers[name].step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if repetition:  # the first warms up
                seconds[name].append((time.perf_counter() - begin) / steps * len(loader))
    print(
        f"{len(user):,} edges, batch {args.batch_size}, {args.layers} layers, dim 64, {args.threads} thread(s) of"
        f" {device.type}, {steps} of {len(loader)} batches, {args.repetitions} repetitions"
    )
    print(f"load average {os.getloadavg()[0]:.1f} of {os.cpu_count()} processors; seconds an epoch:")
    for name, taken in seconds.items():
        print(f"  {name:30} fastest {min(taken):7.2f}   median {statistics.median(taken):7.2f}")


if __name__ == "__main__":
    main()
