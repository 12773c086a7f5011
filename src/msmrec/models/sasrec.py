"""SASRec (Kang and McAuley 2018) as a LightningModule.

What differs from the paper: a choice of losses (the softmax over the whole catalogue is the largest single gain known
on MovieLens), cosine scores with a temperature as an option, and pre-norm blocks with GELU, whose keys and values are
normed as the queries are. Item vectors are not multiplied by sqrt(D), dropout is on the input and after each half of a
block only, and negatives of BCE may be items of the user (losses.py).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msmrec.artifacts import InputError
from msmrec.data.batches import EvalBatch, TrainBatch
from msmrec.models.layers import CausalTransformer
from msmrec.models.losses import LossName, ranking_loss
from msmrec.models.rec_module import RecModule


class SASRec(RecModule):
    """Self-attentive sequential recommendation: a causal transformer whose state at t scores what comes next.

    Args:
        num_items: N, linked from the data.
        max_seq_len: L, linked from the data.
        embedding_dim: width D of item vectors and states.
        num_layers: blocks.
        num_heads: attention heads.
        dropout: on the input and after attention and feed-forward.
        loss: softmax (whole catalogue), sampled_softmax, bce (the paper's) or gbce.
        num_negatives: for sampled_softmax shared by 128 positions, for bce and gbce each position's own.
        gbce_t: calibration of gbce, 0 (plain BCE) to 1.
        temperature: None scores by inner product; a number scores by cosine over this temperature.
        **optimisation: see RecModule.
    """

    def __init__(
        self,
        num_items: int,
        max_seq_len: int = 200,
        embedding_dim: int = 64,
        num_layers: int = 2,
        num_heads: int = 1,
        dropout: float = 0.2,
        loss: LossName = "softmax",
        num_negatives: int = 1,
        gbce_t: float = 0.75,
        temperature: float | None = None,
        **optimisation: Any,
    ) -> None:
        super().__init__(**optimisation)
        if min(embedding_dim, num_heads) < 1 or embedding_dim % num_heads:
            raise InputError(f"model.embedding_dim {embedding_dim} must be a multiple of model.num_heads {num_heads}")
        if not 0 <= dropout < 1:
            raise InputError(f"model.dropout {dropout}: from 0 to below 1")
        if temperature is not None and temperature <= 0:
            raise InputError(f"model.temperature {temperature}: above 0, or null")
        if num_negatives < 1:
            raise InputError(f"model.num_negatives {num_negatives}: at least 1")
        self.num_items, self.max_seq_len = num_items, max_seq_len
        self.loss, self.num_negatives, self.gbce_t, self.temperature = loss, num_negatives, gbce_t, temperature
        self.item_embedding = nn.Embedding(num_items + 1, embedding_dim, padding_idx=0)
        nn.init.normal_(self.item_embedding.weight[1:], std=0.02)  # row 0, the padding, stays 0
        self.transformer = CausalTransformer(embedding_dim, max_seq_len, num_layers, num_heads, dropout)

    def forward(self, item_seq: Tensor, seq_len: Tensor, positions: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Queries and items, whose `keys` they are multiplied with.

        Args:
            item_seq: (B, L), padded on the right. seq_len: (B,). positions: (T,) rows and (T,) columns of item_seq.

        Returns:
            (T, Dq) what the state at each position asks, having seen items up to it; (N + 1, Dq) the catalogue.
        """
        states = self.transformer.at(self.item_embedding(item_seq), seq_len, positions)
        return self._scaled(states), self.item_embedding.weight

    def _scaled(self, states: Tensor) -> Tensor:
        return states if self.temperature is None else F.normalize(states, dim=-1) / self.temperature

    def keys(self, items: Tensor) -> Tensor:
        """(R, Dq) rows of the catalogue to (R, Dq) what these items answer; each row for itself."""
        return items if self.temperature is None else F.normalize(items, dim=-1)

    def item_embeddings(self) -> Tensor:
        """(N + 1, Dq) keys."""
        return self.keys(self.item_embedding.weight)

    def ask(self, batch: TrainBatch | EvalBatch, positions: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """As `forward`, of a batch; for models that read more of it than the items."""
        queries, items = self(batch.item_seq, batch.seq_len, positions)
        return queries, items

    def candidates(self) -> Tensor | None:
        """(C,) rows of the keys, in order, that the loss compares with; None for all but the padding."""
        return None

    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:
        """Mean loss over the batch's real positions."""
        positions = batch.row, batch.column
        queries, items = self.ask(batch, positions)
        target = batch.target_item[positions]
        if (candidates := self.candidates()) is None:
            num_keys, target = self.num_items, target - 1
        else:
            num_keys, target = len(candidates), torch.searchsorted(candidates, target)

        def keys(rows: Tensor | None) -> Tensor:
            if candidates is None:
                return self.keys(items[1:] if rows is None else F.embedding(rows + 1, items))
            return self.keys(F.embedding(candidates if rows is None else candidates[rows], items))

        loss = ranking_loss(self.loss, queries, keys, target, num_keys, self.num_negatives, self.gbce_t)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(target))
        return loss

    def _at_the_end(self, batch: EvalBatch) -> tuple[Tensor, Tensor]:
        rows = torch.arange(batch.seq_len.shape[0], device=batch.seq_len.device)  # len() would fix an exported batch
        return self.ask(batch, (rows, batch.seq_len - 1))

    def user_embeddings(self, batch: EvalBatch) -> Tensor:
        """(B, Dq) queries at the end of each history."""
        return self._at_the_end(batch)[0]

    def scores(self, batch: EvalBatch) -> Tensor:
        """(B, N + 1) one matrix product."""
        queries, items = self._at_the_end(batch)
        return queries @ self.keys(items).T
