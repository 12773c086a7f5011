"""MSMRec: SASRec with a mixture of modality experts (the MSMRec paper, section 3).

Each modality text of an item is a frozen vector x_ik; an expert maps it to a small vector y_ik = A_k x_ik, a gate
weighs the modalities for this user at this moment, and the weighted sum joins the item's ID vector (eq. 6), in the
history and in scoring:

    history   e_i + sum_k a_tk V_k y_ik                   a_t: gate of the item at t, given u_t
    scoring   <h_t, E_i> + sum_k w_tk <R_k h_t, y_ik>     w_t: gate of the user, from the mean scores up to t
              E_i = e_i + sum_k p_ik V_k y_ik             p_i: gate of the item for nobody in particular (u = 0)

u_t is the mean of the ID vectors up to t. The gate on the scoring side depends on the user alone, so all scores are
one matrix product of [h, w_1 R_1 h, ..., w_M R_M h] with [E, y_1, ..., y_M], and w_t can be read as the user's
attention to modalities. Everything is causal: the published code pools the padded whole sequence, future included.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msmrec.columns import COUNT
from msmrec.data.batches import EvalBatch
from msmrec.models.modality_gate import Compatibility, ModalityGate, Profile, masked_softmax
from msmrec.models.text_sasrec import TextSASRec
from msmrec.text.item_text import ItemText


class MSMRec(TextSASRec):
    """SASRec whose items are their ID and a gated mixture of their modality texts.

    Args:
        text: where the modality vectors come from.
        num_items: N, linked from the data.
        profile: what the gate knows of the user: "id", the mean of the ID vectors so far (the paper's u_t), or
            "modality", the mean of each modality's own vectors.
        compatibility: how user and modality vector meet in the gate: inner, bilinear, mlp, attention.
        top_k: modalities that keep weight; None for all.
        modality_dropout: chance that a modality is hidden from a sequence in training.
        text_dropout: chance that a dimension of the frozen vectors is hidden in a training step.
        id_dropout: chance that an item's ID vector is hidden in a training step, so that text learns to stand alone.
        expert_dim: width E of what an expert makes of a text; the cost of scoring grows with M * E.
        cold_items: score items that have text and no training interaction by text alone; without it they rank last, as
            those without either always do.
        **sasrec: see SASRec.
    """

    vectors: Tensor
    present: Tensor

    def __init__(
        self,
        text: ItemText,
        num_items: int,
        profile: Profile = "id",
        compatibility: Compatibility = "bilinear",
        top_k: int | None = None,
        modality_dropout: float = 0.0,
        text_dropout: float = 0.0,
        id_dropout: float = 0.0,
        expert_dim: int = 16,
        cold_items: bool = True,
        **sasrec: Any,
    ) -> None:
        super().__init__(text, num_items, cold_items, **sasrec)
        dim, modalities = self.item_embedding.embedding_dim, len(text.modalities)
        self.text_dropout, self.id_dropout = text_dropout, id_dropout
        # In the checkpoint, so that a trained model needs neither texts nor encoder to recommend.
        self.register_buffer("vectors", torch.zeros(num_items + 1, modalities, text.dim))
        self.register_buffer("present", torch.zeros(num_items + 1, modalities, dtype=torch.bool))
        # Texts are whitened to length 1 on average, experts keep that; V and R start small, so that a run begins close
        # to SASRec and takes from the texts what helps.
        self.expert = nn.Parameter(torch.randn(modalities, text.dim, expert_dim) * expert_dim**-0.5)
        self.gate = ModalityGate(dim, expert_dim, modalities, profile, compatibility, top_k, modality_dropout)
        self.fuse_item = nn.Parameter(torch.randn(modalities * expert_dim, dim) * 0.02)
        self.fuse_score = nn.Parameter(torch.randn(dim, modalities * expert_dim) * 0.02)

    # -- catalogue ----------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Before training, fetches the dataset's modality vectors, made first if they are not there.

        Evaluation finds them in the checkpoint.
        """
        if stage != "fit":
            return
        data = self.data
        made = self.text.vectors(data.dataset, data.root, data.cache)
        self.vectors.copy_(torch.from_numpy(made.vectors))
        self.present.copy_(torch.from_numpy(made.present))
        self.set_warm(torch.tensor(data.dataset.items[COUNT].to_list()))

    def has_text(self) -> Tensor:
        """(N + 1,) bool: the items with a modality."""
        return self.present.any(1)

    def _ids(self) -> Tensor:
        """(N + 1, D) ID vectors; zero for items never trained on, and for some in a training step (`id_dropout`)."""
        ids = self.warm_ids()
        if self.training and self.id_dropout > 0:
            ids = ids * (torch.rand(len(ids), 1, device=ids.device) >= self.id_dropout)
        return ids

    def _experts(self) -> Tensor:
        """(N + 1, M, E) what each expert makes of each modality text; zero where there is none."""
        # One mask for all items, so it can lie on the experts: no random numbers over the catalogue.
        kept = F.dropout(torch.ones_like(self.expert[..., :1]), self.text_dropout, self.training)  # (M, T, 1)
        return torch.einsum("nmt,mte->nme", self.vectors, self.expert * kept)

    # -- the two sides of the gate ------------------------------------------------------------------------------------

    def _fuse(self, item_seq: Tensor, ids: Tensor, experts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Fused item vectors (B, L, D), gate of the item at t (B, L, M), gate of the user after t (B, L, M)."""
        item_ids = F.embedding(item_seq, ids)  # (B, L, D)
        modality = F.embedding(item_seq, experts.flatten(1)).view(*item_seq.shape, *experts.shape[1:])  # (B, L, M, E)
        item_gate, user_gate = self.gate(item_ids, modality, self.present[item_seq])
        mixture = (item_gate.to(modality.dtype)[..., None] * modality).flatten(2)  # (B, L, M * E)
        return item_ids + mixture @ self.fuse_item, item_gate, user_gate

    def gate_weights(self, item_seq: Tensor, seq_len: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L, M) weights of the item at each position, and (B, L, M) of the user after it; padding is arbitrary."""
        _, item_gate, user_gate = self._fuse(item_seq, self._ids(), self._experts())
        return item_gate, user_gate

    def hindsight_scores(self, item_seq: Tensor, seq_len: Tensor) -> Tensor:
        """(B, L, M) the gate's scores of the items, had the user been known from all others; see `ModalityGate`."""
        item_ids, vectors = F.embedding(item_seq, self._ids()), self._experts()[item_seq]
        return self.gate.hindsight_scores(item_ids, vectors, self.present[item_seq], seq_len)

    # -- scoring ------------------------------------------------------------------------------------------------------

    def forward(self, item_seq: Tensor, seq_len: Tensor, positions: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """As SASRec.forward, with Dq = D + M * E."""
        ids, experts = self._ids(), self._experts()
        fused, _, user_gate = self._fuse(item_seq, ids, experts)
        states = self._scaled(self.transformer.at(fused, seq_len, positions))  # (T, D)
        weight = user_gate[positions].to(states.dtype)  # (T, M)
        asked = (states @ self.fuse_score).view(*weight.shape, -1) * weight[..., None]  # (T, M, E)
        return torch.cat([states, asked.flatten(1)], 1), self._items(ids, experts)

    def score_parts(self, batch: EvalBatch) -> tuple[Tensor, Tensor, Tensor]:
        """The summands of `scores`: <h, E_i>, <R_k h, y_ik>, and the user's gate w_k.

        Returns:
            (B, N + 1), (B, N + 1, M) and (B, M); the first plus the second weighted by the third is the score.
        """
        ids, experts = self._ids(), self._experts()
        fused, _, user_gate = self._fuse(batch.item_seq, ids, experts)
        at = torch.arange(batch.seq_len.shape[0], device=batch.seq_len.device), batch.seq_len - 1
        states = self._scaled(self.transformer(fused, batch.seq_len)[at])
        asked = (states @ self.fuse_score).view(len(states), *experts.shape[1:])  # (B, M, E)
        by_id = states @ self.keys(self._items(ids, experts))[:, : states.shape[1]].T
        return by_id, torch.einsum("bme,nme->bnm", asked, experts), user_gate[at].to(states.dtype)

    def _items(self, ids: Tensor, experts: Tensor) -> Tensor:
        """(N + 1, D + M * E) E and y."""
        prior = masked_softmax(self.gate.bias.expand(self.present.shape), self.present, self.gate.top_k)  # (N + 1, M)
        fused = ids + (prior.to(experts.dtype)[..., None] * experts).flatten(1) @ self.fuse_item
        return torch.cat([fused, experts.flatten(1)], 1)

    def keys(self, items: Tensor) -> Tensor:
        """As SASRec.keys: cosine is that of E, not of y."""
        if self.temperature is None:
            return items
        fused, experts = torch.split(items, list(self.fuse_score.shape), 1)
        return torch.cat([F.normalize(fused, dim=-1), experts], 1)

    def item_embeddings(self) -> Tensor:
        """(N + 1, Dq) keys."""
        return self.keys(self._items(self._ids(), self._experts()))
