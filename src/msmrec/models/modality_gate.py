"""The gate: how much each modality of an item counts for a user, position by position (MSMRec paper, eq. 4-6).

A compatibility score between the user so far and each modality vector goes through a softmax over the modalities that
the item has. The same gate weighs an item in the history (vectors of that item) and the user's whole taste (mean
vectors of the history), so its weights can be read as "which modality does this user attend to".
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Compatibility = Literal["inner", "bilinear", "mlp", "attention"]
Profile = Literal["id", "modality"]


def causal_mean(x: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean over positions up to each one: out[:, t] = mean of x[:, :t + 1].

    Args:
        x: (B, L, ...). weight: broadcastable to x; positions with weight 0 do not count, and where none counts yet
        the mean is 0.
    """
    if weight is None:
        count = torch.arange(1, x.shape[1] + 1, device=x.device, dtype=x.dtype)
        return x.cumsum(1) / count.view(1, -1, *[1] * (x.dim() - 2))
    return (x * weight).cumsum(1) / weight.cumsum(1).clamp(min=1)


class ModalityGate(nn.Module):
    """Weights over modalities from a user profile and an item's modality vectors.

    Args:
        item_dim: width D of item vectors. modality_dim: width E of modality vectors. num_modalities: M.
        profile: who the user is to the gate: "id", the mean of the item vectors so far (the paper's u_t), or
            "modality", each modality's mean of its own vectors so far: how far do the user's choices agree in it?
        compatibility: inner (the paper's product; the profile is mapped to E first where it is wider), bilinear (a
            matrix for each modality), mlp (of both, concatenated), attention (a query and keys, shared by modalities).
            To each score comes a learned prior of the modality, and products are divided by sqrt(E); eq. 4 has neither.
        top_k: keep the k largest weights and renormalise (the paper's section 7.1); None keeps all.
        modality_dropout: chance that a modality is hidden from a sequence in training.
    """

    def __init__(
        self,
        item_dim: int,
        modality_dim: int,
        num_modalities: int,
        profile: Profile = "id",
        compatibility: Compatibility = "bilinear",
        top_k: int | None = None,
        modality_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.profile, self.compatibility = profile, compatibility
        self.top_k, self.modality_dropout = top_k, modality_dropout
        width = item_dim if profile == "id" else modality_dim
        self.scale = modality_dim**-0.5
        # A prior over modalities: what all users attend to; the rest of the score is about this user.
        self.bias = nn.Parameter(torch.zeros(num_modalities))
        if compatibility == "bilinear":
            # Unrelated spaces start at random; a modality and itself start as the inner product.
            start = torch.randn(num_modalities, width, modality_dim) * width**-0.5
            same = torch.eye(modality_dim).repeat(num_modalities, 1, 1)
            self.matrix = nn.Parameter(start if profile == "id" else same)
        elif compatibility == "mlp":
            both = width + modality_dim
            self.mlp = nn.Sequential(nn.Linear(both, modality_dim), nn.GELU(), nn.Linear(modality_dim, 1))
        elif compatibility == "attention" or width != modality_dim:
            self.query = nn.Linear(width, modality_dim, bias=False)
            if compatibility == "attention":
                self.key = nn.Linear(modality_dim, modality_dim, bias=False)

    def scores(self, user: Tensor, vectors: Tensor) -> Tensor:
        """(..., 1 or M, width) profile and (..., M, E) modality vectors to (..., M) compatibility (eq. 4)."""
        if self.compatibility == "mlp":
            pair = torch.cat([user.expand(*vectors.shape[:-1], -1), vectors], -1)
            mixed: Tensor = self.mlp(pair).squeeze(-1) + self.bias
            return mixed
        if self.compatibility == "bilinear":
            each = user.expand(*vectors.shape[:-1], -1)
            queries = torch.einsum("...md,mde->...me", each, self.matrix)  # the user as each modality sees it
        else:
            queries = self.query(user) if hasattr(self, "query") else user
        if self.compatibility == "attention":
            vectors = self.key(vectors)
        scores: Tensor = (queries * vectors).sum(-1) * self.scale + self.bias
        return scores

    def forward(self, items: Tensor, vectors: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of the item at each position, and of the user after it.

        Args:
            items: (B, L, D) item vectors. vectors: (B, L, M, E) of the same items. present: (B, L, M) bool, False where
                a modality is missing.

        Returns:
            (B, L, M) softmax of the item's scores (eq. 5), and (B, L, M) softmax of the mean scores of the items so
            far. Both sum to 1 over present modalities, and to 0 where none is present.
        """
        if self.training and self.modality_dropout > 0:
            hidden = torch.rand(len(present), 1, present.shape[-1], device=present.device) < self.modality_dropout
            present = present & ~hidden
        if self.profile == "id":
            user = causal_mean(items).unsqueeze(-2)
        else:
            user = causal_mean(vectors, present.to(vectors.dtype).unsqueeze(-1))
        scores = self.scores(user, vectors)
        so_far = causal_mean(scores, present.to(scores.dtype))
        return masked_softmax(scores, present, self.top_k), masked_softmax(so_far, present.cumsum(1) > 0, self.top_k)

    def hindsight_scores(self, items: Tensor, vectors: Tensor, present: Tensor, seq_len: Tensor) -> Tensor:
        """Scores as in `forward`, but of a user who is known from all other items of the history, later ones included.

        For looking back at a history that is over: early items meet a profile that has been learned from all of it, and
        none meets itself in it, which would look like agreement.

        Args:
            items: (B, L, D), 0 at padding. vectors: (B, L, M, E). present: (B, L, M), False at padding. seq_len: (B,).

        Returns:
            (B, L, M); arbitrary where not present.
        """
        if self.profile == "id":
            others = (seq_len - 1).clamp(min=1)[:, None, None]
            user = ((items.sum(1, keepdim=True) - items) / others).unsqueeze(-2)
        else:
            shown = vectors * present.unsqueeze(-1)
            others = (present.sum(1, keepdim=True) - present.long()).clamp(min=1).unsqueeze(-1)
            user = (shown.sum(1, keepdim=True) - shown) / others
        return self.scores(user, vectors)


def masked_softmax(scores: Tensor, present: Tensor, top_k: int | None = None) -> Tensor:
    """(..., M) softmax over the present entries, or over the k best of them; zeros where none is present."""
    scores = scores.float().masked_fill(~present, -torch.inf)
    if top_k is not None and top_k < scores.shape[-1]:
        least = scores.topk(top_k, -1).values[..., -1:]
        scores = scores.masked_fill(scores < least, -torch.inf)
    return F.softmax(scores, -1).masked_fill(~present.any(-1, keepdim=True), 0.0)
