"""DIN (Zhou et al. 2018): the history is read with an eye on the item that is asked about."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from msmrec.data.samples import SampleBatch
from msmrec.models.field_base import FieldModel, mlp
from msmrec.models.fields import recency


class TargetAttention(nn.Module):
    """DIN's activation unit: sum_j a(k_j, q) k_j with a = MLP([k_j, q, k_j - q, k_j * q]), not normalised.

    Args:
        dim: width of keys and query. hidden: widths of the unit's layers.
    """

    def __init__(self, dim: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        # The first layer on [k, q, k - q, k * q], cut in its four parts: what q alone gives is not made L times.
        first = hidden[0]
        self.key, self.query = nn.Linear(dim, first, bias=False), nn.Linear(dim, first)
        self.difference, self.product = nn.Linear(dim, first, bias=False), nn.Linear(dim, first, bias=False)
        layers: list[nn.Module] = [nn.PReLU()]
        for a, b in pairwise(hidden):
            layers += [nn.Linear(a, b), nn.PReLU()]
        self.unit = nn.Sequential(*layers, nn.Linear(hidden[-1], 1))

    def weights(self, query: Tensor, keys: Tensor, real: Tensor) -> Tensor:
        """(B, D) targets, (B, L, D) history and (B, L) whether it is no padding to (B, L), 0 at padding."""
        asked = (self.query(query) - self.difference(query))[:, None]
        seen = nn.functional.linear(keys, self.key.weight + self.difference.weight)
        weight: Tensor = self.unit(asked + seen + self.product(keys * query[:, None])).squeeze(-1)
        return weight * real

    def forward(self, query: Tensor, keys: Tensor, real: Tensor) -> Tensor:
        """As `weights`, to (B, D)."""
        return (self.weights(query, keys, real)[:, None].to(keys.dtype) @ keys).squeeze(1)


class DIN(FieldModel):
    """Deep interest network (Zhou et al. 2018): logit = MLP([x_0, sum_j a(k_j, q) k_j]).

    q is the target item's vector, k_j the sum of the vectors of the history's j-th item, of its rating, and of how many
    ratings ago it was: what was rated just before says more than the same rating long ago. Activations are PReLU in
    the unit and ReLU behind it; the paper's Dice and its mini-batch aware regularisation are not offered.

    Args:
        max_history: latest ratings that are attended to.
        positions: give k_j the vector of how long ago it was; without it the paper's unordered history.
        attention: widths of the layers of the activation unit a.
        **fields: see FieldModel.
    """

    def __init__(
        self, max_history: int = 30, positions: bool = True, attention: tuple[int, ...] = (32, 16), **fields: Any
    ) -> None:
        super().__init__(**fields)
        self.attended, self.positions, self.attention_layers = max_history, positions, attention
        self.max_history = max(self.max_history, max_history)

    def build(self, num_fields: int) -> None:
        """Activation unit and deep part."""
        self.position = nn.Embedding(self.attended, self.embedding_dim) if self.positions else None
        if self.position is not None:
            nn.init.normal_(self.position.weight, std=0.02)
        self.attention = TargetAttention(self.embedding_dim, self.attention_layers)
        self.deep = mlp((num_fields + 1) * self.embedding_dim, self.hidden, self.dropout, 1)

    def logits(self, batch: SampleBatch) -> Tensor:
        """(B,)."""
        items, ratings = history = self.embedding.history(batch)
        target = self.embedding.items(batch.target_item)
        back = recency(batch)
        keys = items + ratings
        if self.position is not None:
            keys = keys + self.position(back.clamp(0, self.attended - 1))
        interest = self.attention(target, keys, (back >= 0) & (back < self.attended))
        vectors = self.features(batch, history)[0].flatten(1)
        logit: Tensor = self.deep(torch.cat([vectors, interest.to(vectors.dtype)], 1))
        return logit.squeeze(1)
