"""Losses over queries and keys: score(t, i) = queries[t] · keys[i].

All take the same form, so that a model chooses one by name: BCE with sampled negatives (SASRec's), gBCE (gSASRec,
Petrov & Macdonald 2023), softmax over sampled negatives shared by a batch, and softmax over the whole catalogue.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

LossName = Literal["softmax", "sampled_softmax", "bce", "gbce"]


class _ChunkedSoftmax(torch.autograd.Function):
    """Cross-entropy whose (T, N) logits exist only a chunk of rows at a time.

    Loss and gradients are made in one pass: with P = softmax of a chunk, d/d queries = P K - K[target] and
    d/d keys = P' Q - (Q added to the target rows). Three matrix products and one exponential an element; the chunk
    stays in the cache on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, target: Tensor, chunk: int) -> Tensor:
        device = queries.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else queries.dtype
        low_q, low_k = queries.to(dtype), keys.to(dtype)
        grad_q = torch.empty_like(queries, dtype=torch.float32)
        grad_k = torch.zeros_like(keys, dtype=torch.float32)
        low_k_t = low_k.t().contiguous()
        loss = torch.zeros((), device=queries.device)
        for q, out, y in zip(*(torch.split(x, chunk) for x in (low_q, grad_q, target)), strict=True):
            logits = (q @ low_k_t).float()  # (chunk, N)
            top = logits.amax(1, keepdim=True)
            positive = logits.gather(1, y[:, None])
            exp = logits.sub_(top).exp_()
            total = exp.sum(1, keepdim=True)
            loss += (total.log() + top - positive).sum()
            exp = exp.to(dtype)
            torch.div((exp @ low_k).float(), total, out=out)
            grad_k += (exp.t() @ (q / total).to(dtype)).float()
        grad_q -= keys[target]
        grad_k.index_add_(0, target, -queries.float())
        ctx.save_for_backward(grad_q, grad_k)
        ctx.count = len(queries)
        return loss / len(queries)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad_q, grad_k = ctx.saved_tensors
        return grad_q * (grad / ctx.count), grad_k * (grad / ctx.count), None, None


def softmax_loss(queries: Tensor, keys: Tensor, target: Tensor, chunk: int | None = None) -> Tensor:
    """Mean cross-entropy of `target` under softmax(queries · keys'), without the whole (T, N) logits in memory.

    Equals `F.cross_entropy(queries @ keys.T, target)`, gradients included (a test holds that).

    Args:
        queries: (T, D). keys: (N, D). target: (T,) rows of `keys`. chunk: rows at a time; by default what fits a cache.

    Returns:
        () mean loss.
    """
    if chunk is None:
        chunk = max(1, (2**20 if queries.device.type == "cpu" else 2**28) // len(keys))
    loss: Tensor = _ChunkedSoftmax.apply(queries, keys, target, chunk)  # type: ignore[no-untyped-call]
    return loss


def sampled_softmax_loss(queries: Tensor, keys: Tensor, target: Tensor, num_negatives: int) -> Tensor:
    """Softmax over the target and negatives that all positions of the batch share (one matrix product).

    Uniform sampling needs no logQ correction beyond a constant: every item has the same proposal probability. A
    negative that equals the target of a position is left out there.

    Args:
        queries: (T, D). keys: (N, D). target: (T,) rows of `keys`. num_negatives: shared negatives.
    """
    negative = torch.randint(0, len(keys), (num_negatives,), device=queries.device)
    positive = (queries * keys[target]).sum(-1, keepdim=True)  # (T, 1)
    others = (queries @ keys[negative].T).masked_fill(target[:, None] == negative, -torch.inf)  # (T, K)
    return F.cross_entropy(
        torch.cat([positive, others], 1).float(), torch.zeros(len(target), dtype=torch.long, device=target.device)
    )


def bce_loss(queries: Tensor, keys: Tensor, target: Tensor, num_negatives: int, gbce_t: float | None) -> Tensor:
    """Binary cross-entropy of the target against negatives of its own position (one in SASRec, more in gSASRec).

    gBCE raises the positive's probability to the power b = a (t (1 - 1/a) + 1/a), with a = num_negatives / (N - 1),
    which repairs the overconfidence that negative sampling causes; t = 0 is plain BCE, t = 1 is calibrated.

    Args:
        queries: (T, D). keys: (N, D). target: (T,). num_negatives: a position. gbce_t: t, or None for plain BCE.
    """
    negative = torch.randint(0, len(keys), (len(target), num_negatives), device=queries.device)
    positive_score = (queries * keys[target]).sum(-1).float()  # (T,)
    negative_score = torch.einsum("td,tkd->tk", queries, keys[negative]).float()
    power = 1.0
    if gbce_t is not None:
        rate = num_negatives / (len(keys) - 1)
        power = rate * (gbce_t * (1 - 1 / rate) + 1 / rate)
    # log(sigmoid(s) ** power) = power * logsigmoid(s): no need for the paper's float64 detour.
    loss = -power * F.logsigmoid(positive_score) - F.logsigmoid(-negative_score).sum(-1)
    return loss.mean()


def ranking_loss(
    name: LossName, queries: Tensor, keys: Tensor, target: Tensor, num_negatives: int, gbce_t: float
) -> Tensor:
    """The loss called `name`; see the functions above.

    Args:
        queries: (T, D) one a position with a target. keys: (N, D). target: (T,) rows of `keys`.
    """
    match name:
        case "softmax":
            return softmax_loss(queries, keys, target)
        case "sampled_softmax":
            return sampled_softmax_loss(queries, keys, target, num_negatives)
        case "bce":
            return bce_loss(queries, keys, target, num_negatives, None)
        case "gbce":
            return bce_loss(queries, keys, target, num_negatives, gbce_t)
