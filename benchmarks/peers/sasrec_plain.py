"""A plain PyTorch loop, as a careful user would write it: sequences padded to 200, logits of the whole catalogue."""

import time

import numpy as np
import torch
import torch.nn.functional as F
from common import arguments, emit, quarters, seconds
from peers.sequences import histories, load, ndcg_at_10
from torch import nn

LENGTH, DIM, BATCH = 200, 64, 128


class SASRec(nn.Module):
    def __init__(self, items):
        super().__init__()
        self.item, self.position = nn.Embedding(items + 1, DIM, padding_idx=0), nn.Embedding(LENGTH, DIM)
        layer = nn.TransformerEncoderLayer(DIM, 1, DIM, 0.1, "gelu", batch_first=True, norm_first=True)
        self.blocks, self.norm = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.LayerNorm(DIM)
        nn.init.normal_(self.item.weight[1:], std=0.02)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(LENGTH))

    def forward(self, seq):
        x = F.dropout(self.item(seq) + self.position.weight, 0.1, self.training)
        return self.norm(self.blocks(x, self.mask, is_causal=True))


def padded(items, length=LENGTH):
    out = np.zeros(length, np.int64)
    out[length - len(items[-length:]) :] = items[-length:]
    return out


def main():
    given = arguments(__doc__, epochs=1)
    data = load(given.work)
    train, known, all_items = (histories(data, parts) for parts in ([0], [0, 1], [0, 1, 2]))
    users = list(train)
    inputs = torch.from_numpy(np.stack([padded(train[u][:-1]) for u in users]))
    targets = torch.from_numpy(np.stack([padded(train[u][1:]) for u in users]))
    torch.manual_seed(0)
    model = SASRec(int(data["item"].max()))
    optimizer, taken = torch.optim.Adam(model.parameters(), 1e-3), []
    for _ in range(given.epochs):
        taken.append([])
        for rows in torch.randperm(len(users)).split(BATCH):
            begin = time.perf_counter()
            logits = model(inputs[rows]) @ model.item.weight.T
            loss = F.cross_entropy(logits.flatten(0, 1), targets[rows].flatten(), ignore_index=0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            taken[-1].append(time.perf_counter() - begin)
    model.eval()
    past = torch.from_numpy(np.stack([padded(known[u]) for u in users]))
    target, lists = np.array([all_items[u][-1] for u in users]), []

    @torch.no_grad()
    def rank():
        lists.clear()
        for rows in torch.arange(len(users)).split(BATCH):
            scores = model(past[rows])[:, -1] @ model.item.weight.T
            scores[:, 0] = -torch.inf
            for k, row in enumerate(rows.tolist()):
                scores[k, torch.from_numpy(known[users[row]]).long()] = -torch.inf
            lists.append(scores.topk(10).indices)

    ranking = seconds(rank, 5)
    quality = ndcg_at_10(torch.cat(lists).numpy(), target)
    emit(
        "plain PyTorch",
        {"training, an epoch": quarters(taken[-1]), "full ranking of all users": ranking},
        quality={f"NDCG@10 after {given.epochs} epochs": round(quality, 4)},
        note="float32, lr .001, 128 users a batch; spread over the quarters of the last epoch",
    )


if __name__ == "__main__":
    main()
