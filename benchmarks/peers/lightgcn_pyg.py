"""torch_geometric's LightGCN, as its example (edge_index) and with a sparse CSR matrix made beforehand."""

import time

import numpy as np
import torch
from common import arguments, emit, quarters
from torch_geometric.nn.models import LightGCN


def normalised(row, col, size):
    """D^-1/2 A D^-1/2 as CSR, for which torch_geometric needs no package beside torch."""
    order = np.lexsort((col, row))
    row, col = row[order], col[order]
    degree = np.bincount(row, minlength=size).clip(min=1)
    value = 1 / np.sqrt(degree[row] * degree[col])
    start = np.concatenate([[0], np.bincount(row, minlength=size).cumsum()])
    parts = (torch.from_numpy(x) for x in (start, col, value.astype(np.float32)))
    return torch.sparse_csr_tensor(*parts, (size, size))


def main():
    given = arguments(__doc__, steps=12)
    with np.load(given.work / "lightgcn.npz") as file:
        user, item = file["user"].astype(np.int64), file["item"].astype(np.int64)
    first = int(user.max()) + 1
    size = first + int(item.max()) + 1
    row, col = np.concatenate([user, item + first]), np.concatenate([item + first, user])
    edge_index = torch.from_numpy(np.stack([row, col]))
    whole = len(user) // 2048 + 1
    for name, adjacency, steps in (
        ("torch_geometric, its example", edge_index, given.steps // 2),
        ("torch_geometric, CSR", normalised(row, col, size), given.steps),
    ):
        torch.manual_seed(0)
        model = LightGCN(size, 64, 3, normalize=name.endswith("example"))
        optimizer, taken, order = torch.optim.Adam(model.parameters(), 1e-3), [], torch.randperm(len(user))
        begin = time.perf_counter()
        for rows in order.split(2048)[: steps + 2]:
            source = torch.from_numpy(user[rows])
            positive = torch.from_numpy(item[rows]) + first
            negative = torch.randint(first + 1, size, (len(rows),))
            pairs = torch.stack([source.repeat(2), torch.cat([positive, negative])])
            optimizer.zero_grad()
            right, wrong = model(adjacency, pairs).chunk(2)
            model.recommendation_loss(right, wrong, node_id=pairs.unique()).backward()
            optimizer.step()
            taken.append(time.perf_counter() - begin)
            begin = time.perf_counter()
        emit(
            name,
            {"an epoch, BPR, batches of 2,048": quarters(taken, whole)},
            ("torch_geometric", "torch"),
            note=f"{steps} of {whole} steps, scaled; negatives by randint, which may be positives",
        )


if __name__ == "__main__":
    main()
