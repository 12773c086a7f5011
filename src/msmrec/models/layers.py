"""Causal transformer blocks for sequences padded on the right."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)  # torch 2.6 has the second only


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """`F.dropout`; on a CPU in a third of its time, with p to the nearest 65,536th.

    PyTorch draws one number an element there, on one thread, which is a tenth of a training step. Here a 64-bit number
    is drawn for four elements, 16 bits for each.
    """
    if not training or not 0 < p < 1 or x.device.type != "cpu":
        return F.dropout(x, p, training)
    draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    kept = draws.view(torch.int16)[: x.numel()].view(x.shape) >= round(p * 2**16) - 2**15
    return x * kept.to(x.dtype).mul_(1 / (1 - p))


def causal_attention(query: Tensor, key: Tensor, value: Tensor, scale: float | None = None) -> Tensor:
    """`F.scaled_dot_product_attention` with is_causal; (B, H, L, D/H) each, and what it gives.

    Written out for bfloat16 on a CPU, where the backward pass of PyTorch's kernel is slow: a fifth of SASRec's step.
    The softmax computes in float32 and rounds what it gives, which is what the next product reads anyway.

    Args:
        scale: of the scores; by default 1 / sqrt(D/H).
    """
    if query.device.type != "cpu" or query.dtype != torch.bfloat16 or torch.compiler.is_compiling():
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale)
    queries, keys, values = (each.flatten(0, 1) for each in (query, key, value))  # (B H, L, D/H)
    length, width = query.shape[2:]
    later = queries.new_full((length, length), -torch.inf).triu(1).expand(len(queries), -1, -1)
    with torch.autocast("cpu", enabled=False):  # which would make softmax read, keep and return float32
        shares = torch.baddbmm(later, queries, keys.mT, alpha=scale or width**-0.5).softmax(-1)
        return (shares @ values).view_as(query)


class CausalBlock(nn.Module):
    """Pre-norm block: x + attention(norm(x)), then x + feed-forward(norm(x)).

    Args:
        dim: width D. num_heads: heads. dropout: after attention and feed-forward (width D, as SASRec).
    """

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.norm_attention, self.norm_feed = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) to (B, L, D); position t sees positions up to t only."""
        batch, length, dim = x.shape
        heads = self.qkv(self.norm_attention(x)).view(batch, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = heads.unbind(0)  # (B, H, L, D/H) each
        mixed = causal_attention(query, key, value)
        return self._after(x, mixed.transpose(1, 2).reshape(batch, length, dim))

    def at(self, x: Tensor, column: Tensor) -> Tensor:
        """(B, L, D) and (B,) columns to (B, D): what `forward` gives there, without the work for the other positions.

        Keys and values are not made either. A query meets the key W x + b of every position: q·(W x + b) is (W'q)·x and
        a number that is the same for all of them, which a softmax does not see. And as its weights sum to 1, the mean
        of values is the value of the mean. So one query a row reads the states as they are.
        """
        batch, _, dim = x.shape
        normed, rows = self.norm_attention(x), torch.arange(batch, device=x.device)
        weight, bias = self.qkv.weight.view(3, self.num_heads, -1, dim), self.qkv.bias.view(3, self.num_heads, -1)
        query = torch.einsum("hed,bd->bhe", weight[0], normed[rows, column]) + bias[0]
        asked = torch.einsum("hed,bhe->bhd", weight[1], query) * weight.shape[2] ** -0.5  # (B, H, D)
        unseen = torch.arange(x.shape[1], device=x.device) > column[:, None]  # (B, L)
        shares = (asked @ normed.mT).masked_fill(unseen[:, None], -torch.inf).softmax(-1)  # (B, H, L)
        mixed = torch.einsum("hed,bhd->bhe", weight[2], shares @ normed) + bias[2]
        return self._after(x[rows, column], mixed.reshape(batch, dim))

    def _after(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Adds what attention mixed, and the feed-forward layer."""
        x = x + dropout(self.out(mixed), self.dropout, self.training)
        feed = self.down(F.gelu(self.up(self.norm_feed(x))))
        return x + dropout(feed, self.dropout, self.training)


class CausalTransformer(nn.Module):
    """Learned positions, dropout, blocks and a last norm.

    Positions count back from the end of the sequence (0 is the latest), so "the last item" means the same in a history
    of 5 and of 200. In training the end is the end of the window.
    """

    def __init__(self, dim: int, max_seq_len: int, num_layers: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.position = nn.Embedding(max_seq_len, dim)
        self.blocks = nn.ModuleList([CausalBlock(dim, num_heads, dropout) for _ in range(num_layers)])
        self.norm = nn.LayerNorm(dim)
        self.dropout = dropout
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, seq_len: Tensor) -> Tensor:
        """(B, L, D) item vectors and (B,) lengths to (B, L, D) states."""
        x = self._placed(x, seq_len)
        for block in self.blocks:
            x = block(x)
        normed: Tensor = self.norm(x)
        return normed

    def at(self, x: Tensor, seq_len: Tensor, positions: tuple[Tensor, Tensor]) -> Tensor:
        """(T, D) states at (T,) rows and (T,) columns.

        In evaluation, which asks for one position of each row, the last block is computed there alone: a third less
        time for a network of two blocks. An exported graph can compare nothing and asks for nothing else; training
        compares nothing either, as that waits for the device.
        """
        row, column = positions
        rows = torch.arange(x.shape[0], device=x.device)  # len() would fix an exported batch
        if self.training or not len(self.blocks) or not (exporting() or torch.equal(row, rows)):
            states: Tensor = self(x, seq_len)[positions]
            return states
        x = self._placed(x, seq_len)
        *first, last = self.blocks
        for block in first:
            x = block(x)
        normed: Tensor = self.norm(last.at(x, column))  # type: ignore[operator]
        return normed

    def _placed(self, x: Tensor, seq_len: Tensor) -> Tensor:
        back = (seq_len[:, None] - 1 - torch.arange(x.shape[1], device=x.device)).clamp(min=0)
        return dropout(x + self.position(back), self.dropout, self.training)
