"""The click models of the literature over embedded fields: DeepFM, xDeepFM, DCN, DCNv2 and AutoInt. DIN is in din.py.

In the formulas e_1 .. e_F are the (D,) vectors of the fields, x_0 = [e_1, .., e_F] is their concatenation, and *
between vectors is elementwise.
"""

from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msmrec.artifacts import InputError
from msmrec.data.samples import SampleBatch
from msmrec.models.field_base import FieldModel, mlp


def pairwise_sum(vectors: Tensor) -> Tensor:
    """(B, F, D) to (B,): the sum over all pairs i < j of <e_i, e_j>, from the square of the sum."""
    return 0.5 * (vectors.sum(1).square() - vectors.square().sum(1)).sum(1)


class DeepFM(FieldModel):
    """DeepFM (Guo et al. 2017): logit = w_0 + sum_i w_i + sum_{i<j} <e_i, e_j> + MLP(x_0).

    Args:
        **fields: see FieldModel.
    """

    first_order = True

    def build(self, num_fields: int) -> None:
        """The deep part; its last bias is w_0."""
        self.deep = mlp(num_fields * self.embedding_dim, self.hidden, self.dropout, 1)

    def logits(self, batch: SampleBatch) -> Tensor:
        """(B,)."""
        vectors, linear = self.features(batch)
        deep: Tensor = self.deep(vectors.flatten(1))
        return linear + pairwise_sum(vectors) + deep.squeeze(1)


class CIN(nn.Module):
    """Compressed interaction network: row h of layer k is x^k_h = sum_ij W^{k,h}_ij x^{k-1}_i * x^0_j.

    Args:
        num_fields: F, rows of x^0. layers: rows of x^1, x^2, ...
    """

    def __init__(self, num_fields: int, layers: tuple[int, ...]) -> None:
        super().__init__()
        before = [num_fields, *layers[:-1]]
        self.mix = nn.ModuleList(nn.Linear(b * num_fields, h, bias=False) for b, h in zip(before, layers, strict=True))

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, F, D) to (B, sum of layers): every row of every layer, summed over D."""
        fields, depth = vectors.shape[1:]
        first = vectors.transpose(1, 2)  # (B, D, F)
        rows, sums = first, []
        for mix in self.mix:
            # First over i, which is a matrix product, then over j: all pairs (i, j) at once are several times slower.
            assert isinstance(mix, nn.Linear)
            weight = mix.weight.view(-1, rows.shape[2], fields).transpose(1, 2).flatten(0, 1)  # (H F, rows)
            mixed = F.linear(rows, weight).view(len(rows) * depth, -1, fields)  # (B D, H, F)
            rows = (mixed @ first.reshape(-1, fields, 1).to(mixed.dtype)).view(len(rows), depth, -1)
            sums.append(rows.sum(1))
        return torch.cat(sums, 1)


class xDeepFM(FieldModel):
    """xDeepFM (Lian et al. 2018): logit = w_0 + sum_i w_i + <w, CIN(e_1 .. e_F)> + MLP(x_0).

    Args:
        cin: rows of the layers of the compressed interaction network.
        **fields: see FieldModel.
    """

    first_order = True

    def __init__(self, cin: tuple[int, ...] = (32, 32), **fields: Any) -> None:
        super().__init__(**fields)
        self.cin_layers = cin

    def build(self, num_fields: int) -> None:
        """CIN and deep part."""
        self.cin = CIN(num_fields, self.cin_layers)
        self.cin_out = nn.Linear(sum(self.cin_layers), 1, bias=False)
        self.deep = mlp(num_fields * self.embedding_dim, self.hidden, self.dropout, 1)

    def logits(self, batch: SampleBatch) -> Tensor:
        """(B,)."""
        vectors, linear = self.features(batch)
        explicit: Tensor = self.cin_out(self.cin(vectors)) + self.deep(vectors.flatten(1))
        return linear + explicit.squeeze(1)


class CrossVector(nn.Module):
    """DCN's cross layers: x_{l+1} = x_0 <x_l, w_l> + b_l + x_l.

    Args:
        width: of x_0. layers: how many.
    """

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(layers, width) * width**-0.5)
        self.bias = nn.Parameter(torch.zeros(layers, width))

    def forward(self, start: Tensor) -> Tensor:
        """(B, width) x_0 to (B, width)."""
        x = start
        for weight, bias in zip(self.weight, self.bias, strict=True):
            x = start * (x @ weight)[:, None] + bias + x
        return x


class CrossMatrix(nn.Module):
    """DCNv2's cross layers: x_{l+1} = x_0 * (W_l x_l + b_l) + x_l, with W_l = U_l V_l^T where a rank is given.

    Args:
        width: of x_0. layers: how many. rank: of W_l; None for any.
    """

    def __init__(self, width: int, layers: int, rank: int | None = None) -> None:
        super().__init__()

        def matrix() -> nn.Module:
            if rank is None:
                return nn.Linear(width, width)
            return nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, width))

        self.layers = nn.ModuleList(matrix() for _ in range(layers))

    def forward(self, start: Tensor) -> Tensor:
        """(B, width) x_0 to (B, width)."""
        x = start
        for layer in self.layers:
            x = start * layer(x) + x
        return x


class DCN(FieldModel):
    """Deep & Cross (Wang et al. 2017): logit = <w, [x_L, MLP(x_0)]> + b, x_{l+1} = x_0 <x_l, w_l> + b_l + x_l.

    Args:
        cross_layers: L.
        **fields: see FieldModel.
    """

    def __init__(self, cross_layers: int = 3, **fields: Any) -> None:
        super().__init__(**fields)
        self.cross_layers = cross_layers

    def build(self, num_fields: int) -> None:
        """Cross and deep part beside each other."""
        width = num_fields * self.embedding_dim
        self.cross = CrossVector(width, self.cross_layers)
        self.deep = mlp(width, self.hidden, self.dropout)
        self.out = nn.Linear(width + (self.hidden[-1] if self.hidden else width), 1)

    def logits(self, batch: SampleBatch) -> Tensor:
        """(B,)."""
        start = self.features(batch)[0].flatten(1)
        logit: Tensor = self.out(torch.cat([self.cross(start), self.deep(start)], 1))
        return logit.squeeze(1)


class DCNv2(FieldModel):
    """DCN-V2 (Wang et al. 2021): x_{l+1} = x_0 * (W_l x_l + b_l) + x_l; parallel: logit = <w, [x_L, MLP(x_0)]> + b.

    Args:
        cross_layers: L.
        structure: parallel as above, or stacked: logit = <w, MLP(x_L)> + b.
        rank: of W_l = U_l V_l^T; None for full matrices.
        **fields: see FieldModel.
    """

    def __init__(
        self,
        cross_layers: int = 3,
        structure: Literal["parallel", "stacked"] = "parallel",
        rank: int | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(**fields)
        self.cross_layers, self.structure, self.rank = cross_layers, structure, rank

    def build(self, num_fields: int) -> None:
        """Cross and deep part, beside each other or one after the other."""
        width = num_fields * self.embedding_dim
        self.cross = CrossMatrix(width, self.cross_layers, self.rank)
        self.deep = mlp(width, self.hidden, self.dropout)
        deep = self.hidden[-1] if self.hidden else width
        self.out = nn.Linear(deep + (width if self.structure == "parallel" else 0), 1)

    def logits(self, batch: SampleBatch) -> Tensor:
        """(B,)."""
        start = self.features(batch)[0].flatten(1)
        crossed = self.cross(start)
        both = [crossed, self.deep(start)] if self.structure == "parallel" else [self.deep(crossed)]
        logit: Tensor = self.out(torch.cat(both, 1))
        return logit.squeeze(1)


class FieldAttention(nn.Module):
    """AutoInt's layer: e'_m = ReLU([sum_k a^h_mk V^h e_k over heads h] + R e_m), a^h_m = softmax_k <Q^h e_m, K^h e_k>.

    Args:
        width: of the vectors that come in. out: of those that go out, over all heads. num_heads: h.
    """

    def __init__(self, width: int, out: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key, self.value, self.residual = (nn.Linear(width, out, bias=False) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, width) to (B, F, out)."""
        query, key, value = (  # (B, H, F, out / H)
            layer(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        weight = torch.softmax(query @ key.transpose(-1, -2), -1)  # not scaled, as in the paper
        return torch.relu((weight @ value).transpose(1, 2).flatten(2) + self.residual(x))


class AutoInt(FieldModel):
    """AutoInt (Song et al. 2019): logit = <w, layers of attention over e_1 .. e_F> + b, and with `hidden` (the
    default: the paper's AutoInt+) + MLP(x_0).

    Args:
        attention_layers: interacting layers.
        attention_dim: width of their vectors, over all heads.
        num_heads: heads.
        **fields: see FieldModel.
    """

    def __init__(self, attention_layers: int = 2, attention_dim: int = 32, num_heads: int = 2, **fields: Any) -> None:
        super().__init__(**fields)
        if attention_dim % num_heads:
            raise InputError(f"model.attention_dim {attention_dim} must be a multiple of model.num_heads {num_heads}")
        self.attention_layers, self.attention_dim, self.num_heads = attention_layers, attention_dim, num_heads

    def build(self, num_fields: int) -> None:
        """Interacting layers and deep part."""
        widths = [self.embedding_dim] + [self.attention_dim] * self.attention_layers
        self.attention = nn.Sequential(*(FieldAttention(a, b, self.num_heads) for a, b in pairwise(widths)))
        self.out = nn.Linear(num_fields * widths[-1], 1)
        self.deep = mlp(num_fields * self.embedding_dim, self.hidden, self.dropout, 1) if self.hidden else None

    def logits(self, batch: SampleBatch) -> Tensor:
        """(B,)."""
        vectors = self.features(batch)[0]
        logit: Tensor = self.out(self.attention(vectors).flatten(1))
        return (logit if self.deep is None else logit + self.deep(vectors.flatten(1))).squeeze(1)
