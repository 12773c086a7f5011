"""MSMRec: SASRec with a mixture of modality experts (the MSMRec paper, section 3).

Each modality text of an item is a frozen vector; an expert maps it to the model's space, a gate weighs the experts for
this user at this moment, and the weighted sum joins the item's ID vector (eq. 6), in the history and in scoring.

    history   e_i + sum_k a_k(u_t, i) z_ik              a = gate(mean of the user's items up to t, item's modalities)
    scoring   <h_t, e_i> + sum_k w_k(u_t) <h_t, z_ik>   w = gate(the same mean, the mean modalities of the history)

The gate on the scoring side depends on the user alone, so all scores are one matrix product of [h, w_1 h, ..., w_M h]
with [e, z_1, ..., z_M], and w can be read as the user's attention to modalities. It is causal: the published code
pools the padded whole sequence, future included.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msmrec.data.batches import EvalBatch
from msmrec.models.modality_gate import Compatibility, ModalityGate, causal_mean
from msmrec.models.sasrec import SASRec
from msmrec.text.item_text import ItemText


class MSMRec(SASRec):
    """SASRec whose items are their ID and a gated mixture of their modality texts.

    Args:
        text: where the modality vectors come from.
        num_items: N, linked from the data.
        compatibility: how user and modality vector meet in the gate: inner, bilinear, mlp, attention.
        top_k: modalities that keep weight; None for all.
        modality_dropout: chance that a modality is hidden from a sequence in training.
        text_dropout: dropout on the frozen vectors.
        id_dropout: chance that an item's ID vector is hidden in a training step, so that text learns to stand alone.
        score_dim: width in which modality k of an item meets the user's state in scoring, or None for the full width;
            the cost of scoring grows with M * score_dim.
        cold_items: score items that have text and no training interaction by text alone; without it they rank last.
        **sasrec: see SASRec.
    """

    vectors: Tensor
    present: Tensor
    warm: Tensor

    def __init__(
        self,
        text: ItemText,
        num_items: int,
        compatibility: Compatibility = "bilinear",
        top_k: int | None = None,
        modality_dropout: float = 0.0,
        text_dropout: float = 0.2,
        id_dropout: float = 0.0,
        score_dim: int | None = 16,
        cold_items: bool = True,
        **sasrec: Any,
    ) -> None:
        super().__init__(num_items, **sasrec)
        dim, modalities = self.item_embedding.embedding_dim, len(text.modalities)
        self.text, self.score_dim, self.cold_items = text, score_dim, cold_items
        self.text_dropout, self.id_dropout = text_dropout, id_dropout
        # In the checkpoint, so that a trained model needs neither texts nor encoder to recommend.
        self.register_buffer("vectors", torch.zeros(num_items + 1, modalities, text.dim))
        self.register_buffer("present", torch.zeros(num_items + 1, modalities, dtype=torch.bool))
        self.register_buffer("warm", torch.ones(num_items + 1, dtype=torch.bool))  # trained on at least once
        self.expert = nn.Parameter(torch.randn(modalities, text.dim, dim) * 0.02)
        self.gate = ModalityGate(dim, modalities, compatibility, top_k, modality_dropout)
        if score_dim is not None:
            self.score_state = nn.Parameter(torch.randn(modalities, dim, score_dim) * dim**-0.5)
            self.score_item = nn.Parameter(torch.randn(modalities, dim, score_dim) * dim**-0.5)

    # -- catalogue ----------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Fetches the modality vectors for the trainer's dataset, making them first if they are not there."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        made = self.text.vectors(data.dataset, data.root, data.cache)
        self.vectors.copy_(torch.from_numpy(made.vectors))
        self.present.copy_(torch.from_numpy(made.present))
        count = torch.from_numpy(data.dataset.items["count"].to_numpy())
        self.warm[1:] = count.to(self.warm.device) > 0

    def _ids(self) -> Tensor:
        """(N + 1, D) ID vectors; zero for items never trained on, whose vectors still are random."""
        ids = self.item_embedding.weight * self.warm[:, None]
        if self.training and self.id_dropout > 0:
            ids = ids * (torch.rand(len(ids), 1, device=ids.device) >= self.id_dropout)
        return ids

    def _experts(self) -> Tensor:
        """(N + 1, M, D) what each expert makes of each modality text; zero where there is none."""
        vectors = F.dropout(self.vectors, self.text_dropout, self.training)
        return torch.einsum("nmt,mtd->nmd", vectors, self.expert)

    # -- the two sides of the gate ------------------------------------------------------------------------------------

    def _fuse(self, item_seq: Tensor, ids: Tensor, experts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Fused item vectors and both gates.

        Returns:
            (B, L, D) e_i + sum_k a_k z_ik; (B, L, M) a, the gate of the item at t; (B, L, M) w, the gate of the user
            after t.
        """
        item_ids = F.embedding(item_seq, ids)  # (B, L, D)
        modality = F.embedding(item_seq, experts.flatten(1)).view(*item_seq.shape, *experts.shape[1:])  # (B, L, M, D)
        present = self.present[item_seq]  # (B, L, M)
        user = causal_mean(item_ids)  # (B, L, D) u_t
        item_gate = self.gate(user, modality, present)
        fused = item_ids + torch.einsum("blm,blmd->bld", item_gate.to(modality.dtype), modality)
        taste = causal_mean(modality, present[..., None].to(modality.dtype))  # (B, L, M, D)
        user_gate = self.gate(user, taste, present.cumsum(1) > 0)
        return fused, item_gate, user_gate

    def gate_weights(self, item_seq: Tensor, seq_len: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L, M) weights of the item at each position, and (B, L, M) of the user after it; padding is arbitrary."""
        _, item_gate, user_gate = self._fuse(item_seq, self._ids(), self._experts())
        return item_gate, user_gate

    # -- scoring ------------------------------------------------------------------------------------------------------

    def forward(self, item_seq: Tensor, seq_len: Tensor, positions: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """As SASRec.forward, with Dq = D + M * (score_dim or D)."""
        ids, experts = self._ids(), self._experts()
        fused, _, user_gate = self._fuse(item_seq, ids, experts)
        states = self._scaled(self.transformer(fused, seq_len)[positions])  # (T, D)
        weight = user_gate[positions].to(states.dtype)[..., None]  # (T, M, 1)
        if self.score_dim is None:
            asked = weight * states[:, None, :]
        else:
            asked = weight * torch.einsum("td,mde->tme", states, self.score_state)
        return torch.cat([states, asked.flatten(1)], 1), self._keys(ids, experts)

    def _keys(self, ids: Tensor, experts: Tensor) -> Tensor:
        if self.temperature is not None:
            ids = F.normalize(ids, dim=-1)
        if self.score_dim is not None:
            experts = torch.einsum("nmd,mde->nme", experts, self.score_item)
        return torch.cat([ids, experts.flatten(1)], 1)

    def item_embeddings(self) -> Tensor:
        """(N + 1, Dq) keys."""
        return self._keys(self._ids(), self._experts())

    def scores(self, batch: EvalBatch) -> Tensor:
        """(B, N + 1); items never trained on are scored by their text, or last where `cold_items` is off."""
        scores = super().scores(batch)
        return scores if self.cold_items else scores.masked_fill(~self.warm, -torch.inf)
