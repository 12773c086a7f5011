"""Fusion that is learned: gated, or with cross-attention between modalities.

The network is trained so that the fused vectors of two items that the same user liked are near, by InfoNCE with the
other items of a batch as negatives. It sees no ids, so it fuses items that nobody has rated, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

BATCH_PAIRS = 512
TEMPERATURE = 0.1
HIDE = 0.2  # share of modalities hidden in training, so that items that lack one are fused well
ROWS = 8192  # items in one forward pass


class FusionNetwork(nn.Module):
    """M standardised modalities to one vector of length 1.

    Each modality is projected to h_m = tanh(W_m x_m + b_m). With `attention`, h_m first reads the other modalities
    that the item has: h_m + sum over n != m of softmax(q_m . k_n / sqrt(d)) v_n. Then z = sum g_m h_m, where the gate
    g is a softmax over the modalities that the item has, of one linear layer on all h and on which are there.

    Args:
        widths: D_m of each modality.
        dim: d.
        attention: whether modalities read each other.
    """

    def __init__(self, widths: Sequence[int], dim: int, attention: bool) -> None:
        super().__init__()
        count = len(widths)
        self.dim = dim
        self.project = nn.ModuleList(nn.Linear(width, dim) for width in widths)
        self.gate = nn.Linear(count * dim + count, count)
        self.query_key_value = nn.ModuleList(nn.Linear(dim, 3 * dim) for _ in range(count if attention else 0))

    def forward(self, modalities: Sequence[Tensor], present: Tensor) -> Tensor:
        """(B, d) of M tensors (B, D_m) and (B, M) bool: which modality an item has; at least one."""
        hidden = torch.stack([torch.tanh(layer(x)) for layer, x in zip(self.project, modalities, strict=True)], 1)
        hidden = hidden * present[..., None]  # (B, M, d)
        if len(self.query_key_value):
            mixed = torch.stack([layer(hidden[:, m]) for m, layer in enumerate(self.query_key_value)], 1)
            query, key, value = mixed.chunk(3, -1)
            scores = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5  # (B, M, M)
            others = present[:, None, :] & ~torch.eye(present.shape[1], dtype=torch.bool)  # (B, M, M)
            # an item with one modality has no other to read: its row of weights is all 0
            weights = torch.softmax(scores.masked_fill(~others, -1e9), -1) * others
            hidden = (hidden + weights @ value) * present[..., None]
        gates = self.gate(torch.cat([hidden.flatten(1), present.to(hidden.dtype)], 1))
        gates = torch.softmax(gates.masked_fill(~present, -torch.inf), -1)  # (B, M)
        return nn.functional.normalize((gates[..., None] * hidden).sum(1), dim=-1)

    @torch.no_grad()
    def fuse(self, modalities: Sequence[NDArray[np.float32]], present: NDArray[np.bool_]) -> NDArray[np.float32]:
        """(N + 1, d) of all items, zero for those without any modality."""
        self.eval()
        fused = np.zeros((len(present), self.dim), np.float32)
        rows = np.flatnonzero(present.any(1))
        for start in range(0, len(rows), ROWS):
            some = rows[start : start + ROWS]
            inputs = [torch.from_numpy(x[some]) for x in modalities]
            fused[some] = self(inputs, torch.from_numpy(present[some])).numpy()
        return fused


def info_nce(first: Tensor, second: Tensor, items: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """InfoNCE in both directions: -log of exp(a_i . b_i / t) over the sum of exp(a_i . b_j / t), and a, b exchanged.

    Args:
        first, second: (B, d) unit vectors of the pairs' items.
        items: (B, 2) their ids: a negative that is the anchor or its partner is no negative, and is left out.
        temperature: t.
    """
    scores = first @ second.T / temperature  # (B, B)
    other = ~torch.eye(len(items), dtype=torch.bool)
    loss = scores.new_zeros(())
    for anchor, candidate, logits in ((0, 1, scores), (1, 0, scores.T)):
        known = (items[:, candidate] == items[:, candidate, None]) | (items[:, candidate] == items[:, anchor, None])
        labels = torch.arange(len(items))
        loss = loss + nn.functional.cross_entropy(logits.masked_fill(known & other, -torch.inf), labels)
    return loss / 2


@torch.inference_mode(False)
@torch.enable_grad()
def train_fusion(
    make: Callable[[], FusionNetwork],
    modalities: Sequence[NDArray[np.float32]],
    present: NDArray[np.bool_],
    pairs: NDArray[np.int64],
    steps: int,
    seed: int,
) -> FusionNetwork:
    """Trains a new network on pairs of items; the same seed gives the same network. Evaluation loops may call it.

    Args:
        make: builds the network.
        modalities: M arrays (N + 1, D_m), standardised. present: (N + 1, M).
        pairs: (P, 2) items that are each to be near the other; all have a modality.
        steps: of AdamW at 1e-3, each with up to 512 pairs.
        seed: of weights, batches and hidden modalities.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=1e-2)
    inputs, has, chosen = [torch.from_numpy(x) for x in modalities], torch.from_numpy(present), torch.from_numpy(pairs)
    size = min(BATCH_PAIRS, len(chosen))
    for _ in range(steps):
        batch = chosen[torch.randint(len(chosen), (size,), generator=generator)]  # (B, 2)
        items = batch.T.reshape(-1)  # firsts, then seconds
        shown = has[items] & (torch.rand(has[items].shape, generator=generator) >= HIDE)
        shown = torch.where(shown.any(1, keepdim=True), shown, has[items])
        first, second = network([x[items] for x in inputs], shown).chunk(2)
        loss = info_nce(first, second, batch)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return network.eval()


def liked_pairs(
    user_id: NDArray[np.integer[Any]], item_id: NDArray[np.integer[Any]], seed: int = 0
) -> NDArray[np.int64]:
    """Pairs of items that the same user liked: each row beside another one of its user, drawn at random.

    Args:
        user_id, item_id: (T,) training interactions that count as likes, in any order.
        seed: of the draw.

    Returns:
        (P, 2) items; users with one row give none, and a row drawn beside the same item again is left out.
    """
    order = np.argsort(user_id, kind="stable")
    item = np.asarray(item_id)[order].astype(np.int64)
    _, first, count = np.unique(np.asarray(user_id)[order], return_index=True, return_counts=True)
    first, count = np.repeat(first, count), np.repeat(count, count)  # of each row's user
    place = np.arange(len(item)) - first
    away = 1 + (np.random.default_rng(seed).random(len(item)) * (count - 1)).astype(np.int64)  # 1 to count - 1
    partner = item[first + (place + away) % count]
    pairs: NDArray[np.int64] = np.stack([item, partner], 1)[(count > 1) & (item != partner)]
    return pairs
