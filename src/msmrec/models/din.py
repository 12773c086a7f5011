"""DIN (Zhou et al. 2018): the history is read with an eye on the item that is asked about."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from msmrec.data.samples import SampleBatch
from msmrec.models.field_base import FieldModel, mlp


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

    q is the target item's vector, k_j the vector of the history's j-th item plus that of its rating.

    Args:
        attention: widths of the layers of the activation unit a.
        **fields: see FieldModel.
    """

    def __init__(self, attention: tuple[int, ...] = (32, 16), **fields: Any) -> None:
        super().__init__(**fields)
        self.attention_layers = attention

    def build(self, num_fields: int) -> None:
        """Activation unit and deep part."""
        self.attention = TargetAttention(self.embedding_dim, self.attention_layers)
        self.deep = mlp((num_fields + 1) * self.embedding_dim, self.hidden, self.dropout, 1)

    def logits(self, batch: SampleBatch) -> Tensor:
        """(B,)."""
        real = batch.item_seq > 0
        keys = self.embedding.items(batch.item_seq) + self.embedding.rated(batch.rating_seq, real)
        interest = self.attention(self.embedding.items(batch.target_item), keys, real)
        vectors = self.features(batch)[0].flatten(1)
        logit: Tensor = self.deep(torch.cat([vectors, interest.to(vectors.dtype)], 1))
        return logit.squeeze(1)
