"""Losses over queries and keys: score(t, i) = queries[t] · keys[i].

A model chooses one by name: BCE with sampled negatives (SASRec's), gBCE (gSASRec,
Petrov & Macdonald 2023), softmax over sampled negatives, and softmax over the whole catalogue.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

LossName = Literal["softmax", "sampled_softmax", "bce", "gbce"]
Keys = Callable[[Tensor | None], Tensor]
"""(R,) rows of the catalogue to their (R, D) keys, None to the (N, D) keys of all: what is not drawn is not made."""


class _ChunkedSoftmax(torch.autograd.Function):
    """Cross-entropy of a positive against many keys, whose (T, K) logits exist only a chunk of rows at a time.

    Loss and gradients are made in one pass: with P = softmax over a chunk's positive and keys, d/d queries =
    P K + (p - 1) positive and d/d keys = P' Q. Three matrix products and one exponential an element; the chunk stays
    in the cache on a CPU. Products, logits and their exponentials are in autocast's type, or else in that of the
    queries; the score of the positive is in float32. (At cosine over 0.05 logits reach 20, where bfloat16 knows only
    every eighth: in training that averages out, see docs/results.md; in ranking it would not.)
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, positives: Tensor, keys: Tensor, target: Tensor, chunk: int) -> Tensor:
        """Sum of losses; `target` (T,) is the positive's row among the keys, which is not counted twice."""
        device = queries.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else queries.dtype
        rows = len(queries)
        # Equal chunks in sixteens of rows, the last filled up with zeros, which add nothing: few shapes, as a CPU takes
        # milliseconds to prepare a bfloat16 product of a new one.
        chunk = -(-rows // -(-rows // chunk) // 16) * 16
        short = -rows % chunk
        low_q, low_k = F.pad(queries.to(dtype), (0, 0, 0, short)), keys.to(dtype)
        low_k_t = low_k.t().contiguous()
        buffer = low_q.new_empty(chunk, len(low_k))  # fresh memory for each chunk costs page faults
        row = torch.arange(chunk, device=keys.device)
        nothing = buffer.new_full((), -torch.inf)
        # float16 ends at 65,504, which a sum over that many items passes, and knows nothing below 6e-8, where a query
        # over such a sum lies. A power of two rounds nothing.
        in_float32 = torch.float32 if dtype == torch.float16 else None
        scale = 2.0 ** round(math.log2(len(keys)) / 2)
        grad_q = queries.new_empty(rows + short, queries.shape[1], dtype=torch.float32)
        grad_k = torch.zeros_like(keys, dtype=torch.float32)
        positive = (queries.float() * positives.float()).sum(1, keepdim=True)  # (T, 1)
        surplus, losses = grad_q.new_empty(2, rows + short, 1)  # p - 1, -log p
        parts = (low_q, F.pad(positive, (0, 0, 0, short)), F.pad(target, (0, short)), grad_q, surplus, losses)
        for q, right, mine, out, rest, loss in zip(*(torch.split(x, chunk) for x in parts), strict=True):
            logits = torch.mm(q, low_k_t, out=buffer)  # (chunk, K)
            logits.index_put_((row, mine), nothing)
            top = torch.maximum(logits.amax(1, keepdim=True), right.to(dtype))  # in their type, or sub_ converts them
            exp = logits.sub_(top).exp_()
            exp_right = (right - top).exp()
            total = exp.sum(1, keepdim=True, dtype=in_float32) + exp_right
            torch.add(total.log(), top - right, out=loss)
            torch.div((exp @ low_k).float(), total, out=out)
            torch.sub(exp_right / total, 1, out=rest)
            grad_k += (exp.t() @ (q / (total / scale)).to(dtype)).float()
        grad_k /= scale
        grad_q, surplus = grad_q[:rows], surplus[:rows]
        grad_q.addcmul_(surplus, positives.float())
        ctx.save_for_backward(grad_q, surplus * queries, grad_k)
        total_loss: Tensor = losses[:rows].sum()
        return total_loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        grad_q, grad_p, grad_k = ctx.saved_tensors
        return grad_q * grad, grad_p * grad, grad_k * grad, None, None


SHARE_NEGATIVES = 128  # positions; see sampled_softmax_loss


def softmax_loss(queries: Tensor, keys: Tensor, target: Tensor, chunk: int | None = None) -> Tensor:
    """Mean cross-entropy of `target` under softmax(queries · keys'), without the whole (T, N) logits in memory.

    Equals `F.cross_entropy(queries @ keys.T, target)`, gradients included (a test holds that).

    Args:
        queries: (T, D). keys: (N, D). target: (T,) rows of `keys`.
        chunk: rows at a time, in sixteens; by default what fits a cache.

    Returns:
        () mean loss.
    """
    # Embedding, not keys[target]: the gradient of indexing adds in an order that depends on the threads.
    positives = F.embedding(target, keys)
    if chunk is None:
        chunk = max(1, (2**20 if queries.device.type == "cpu" else 2**28) // len(keys))
    loss: Tensor = _ChunkedSoftmax.apply(queries, positives, keys, target, chunk)  # type: ignore[no-untyped-call]
    return loss / len(queries)


def sampled_softmax_loss(
    queries: Tensor, keys: Keys, target: Tensor, num_keys: int, num_negatives: int, shared_by: int = SHARE_NEGATIVES
) -> Tensor:
    """Mean cross-entropy of `target` against a uniform sample of items, drawn anew for every `shared_by` positions.

    Each drawn item stands for N / num_negatives items, so its score is raised by the log of that (the logQ correction)
    and the loss estimates the full one; a draw of the target itself is left out.

    A sample is shared to make the products dense, but not by the whole batch: its error would then be the same at all
    positions, and the mean over the batch would not cancel it. benchmarks/NOTES.md has the difference, which is large.

    Args:
        queries: (T, D). keys: see `Keys`. target: (T,) rows from 0 to N - 1. num_keys: N.
        num_negatives: draws, with repetition.
    """
    groups = -(-len(queries) // shared_by)
    sample = torch.randint(num_keys, (groups, num_negatives), device=queries.device)
    # Asked for at once, so that there is one gradient of the size of the catalogue.
    gathered = keys(torch.cat([target, sample.flatten()])).float()
    positives, others = gathered[: len(target)], gathered[len(target) :]
    with torch.autocast(queries.device.type, enabled=False):  # at cosine over 0.05, bfloat16 knows every eighth
        exact = queries.float()
        right = (exact * positives).sum(1)
        padded = F.pad(exact, (0, 0, 0, groups * shared_by - len(queries))).view(groups, shared_by, -1)
        logits = torch.bmm(padded, others.view(groups, num_negatives, -1).mT).flatten(0, 1)[: len(queries)]
        hit = sample.repeat_interleave(shared_by, 0)[: len(queries)] == target[:, None]
        wrong = logits.masked_fill(hit, -torch.inf).logsumexp(1) + math.log(num_keys / num_negatives)
        return F.softplus(wrong - right).mean()


def bce_loss(
    queries: Tensor, keys: Keys, target: Tensor, num_keys: int, num_negatives: int, gbce_t: float | None
) -> Tensor:
    """Binary cross-entropy of the target against negatives of its own position (one in SASRec, more in gSASRec).

    gBCE raises the positive's probability to the power b = a (t (1 - 1/a) + 1/a), with a = num_negatives / (N - 1),
    which repairs the overconfidence that negative sampling causes; t = 0 is plain BCE, t = 1 is calibrated. Negatives
    come from the whole catalogue as in gSASRec, so some are items of the user (7% on ML-1M); SASRec's code avoids them.

    Args:
        queries: (T, D). keys: see `Keys`. target: (T,) rows from 0 to N - 1. num_keys: N. num_negatives: a position.
        gbce_t: t, or None for plain BCE.
    """
    negative = torch.randint(num_keys, (len(target), num_negatives), device=queries.device)
    gathered = keys(torch.cat([target, negative.flatten()]))
    positives, others = gathered[: len(target)], gathered[len(target) :].view(*negative.shape, -1)
    positive_score = (queries * positives).sum(-1).float()  # (T,)
    negative_score = torch.einsum("td,tkd->tk", queries, others).float()
    power = 1.0
    if gbce_t is not None:
        rate = num_negatives / (num_keys - 1)
        power = rate * (gbce_t * (1 - 1 / rate) + 1 / rate)
    # log(sigmoid(s) ** power) = power * logsigmoid(s): no need for the paper's float64 detour.
    loss = -power * F.logsigmoid(positive_score) - F.logsigmoid(-negative_score).sum(-1)
    return loss.mean()


def ranking_loss(
    name: LossName, queries: Tensor, keys: Keys, target: Tensor, num_keys: int, num_negatives: int, gbce_t: float = 0.0
) -> Tensor:
    """The loss called `name`; see the functions above. A sample as large as the catalogue is the catalogue.

    Args:
        queries: (T, D) one a position with a target. keys: see `Keys`. target: (T,) rows from 0 to N - 1.
        num_keys: N.
    """
    if name == "softmax" or (name == "sampled_softmax" and num_negatives >= num_keys):
        return softmax_loss(queries, keys(None), target)
    if name == "sampled_softmax":
        return sampled_softmax_loss(queries, keys, target, num_keys, num_negatives)
    return bce_loss(queries, keys, target, num_keys, num_negatives, gbce_t if name == "gbce" else None)
