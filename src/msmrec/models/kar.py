"""SASRec with KAR: knowledge in words, brought into a recommender by a hybrid-expert adaptor (Xi et al. 2023).

Two kinds of knowledge, each a text in a frozen encoder's space: what is known of an item (its description, x_i) and
what a user likes (a preference text of an earlier part of the history, x_ut). The adaptor maps both to the
recommender's space; experts are two-layer MLPs, some shared by both kinds and some for one kind alone, mixed by a gate
of each kind (their eq. 6-9):

    a_k(x) = sum_j softmax(G_k x)_j expert_kj(x),   j over shared experts and those of kind k

    history, keys   E_i = e_i + a_item(x_i)
    scoring         <h_t + a_user(x_ut), E_i>       h_t: SASRec's state, having read E up to t

KAR leaves open how a backbone takes the two vectors in; its networks concatenate them with other features before an
MLP. SASRec has none behind its state, and joining by a linear layer would be absorbed by the experts' last one: so they
are added, the item's in the history and in scoring as in MSMRec. For the same reason the published ReLU after an
expert's second layer is left out: what is added to signed vectors must have both signs.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msmrec.columns import COUNT
from msmrec.data.batches import EvalBatch, TrainBatch
from msmrec.models.text_sasrec import TextSASRec
from msmrec.text.item_text import ItemText
from msmrec.text.user_text import UserText

ITEM, USER = 0, 1  # the two kinds of knowledge


class HybridExpertAdaptor(nn.Module):
    """Experts shared by all kinds of knowledge and experts of one kind, mixed by a gate of each kind.

    Args:
        text_dim: width T of texts. out_dim: width D of what comes out. expert_dim: width H between an expert's layers.
        num_shared: experts that all kinds use. num_own: experts of each kind alone.
        dropout: after an expert's first layer.
    """

    def __init__(
        self, text_dim: int, out_dim: int, expert_dim: int, num_shared: int, num_own: tuple[int, ...], dropout: float
    ) -> None:
        super().__init__()
        self.expert_dim, self.dropout = expert_dim, dropout
        groups = (num_shared, *num_own)
        # A text has length 1, and so has, at first, what an expert makes of it in its hidden layer; the second layer
        # starts small, so that a run begins close to SASRec.
        std = (2 / expert_dim) ** 0.5
        self.up = nn.ParameterList(torch.randn(text_dim, n * expert_dim) * std for n in groups)
        self.up_bias = nn.ParameterList(torch.zeros(n * expert_dim) for n in groups)
        self.down = nn.ParameterList(torch.randn(n * expert_dim, out_dim) * 0.02 for n in groups)
        self.down_bias = nn.ParameterList(torch.zeros(n, out_dim) for n in groups)
        self.gate = nn.ModuleList(nn.Linear(text_dim, num_shared + n) for n in num_own)

    def forward(self, text: Tensor, kind: int) -> Tensor:
        """(n, T) texts of a kind to (n, D); zero where a text is missing, that is zero."""
        up, up_bias, down, down_bias = (
            torch.cat([part[0], part[1 + kind]], -1 if part is self.up else 0)
            for part in (self.up, self.up_bias, self.down, self.down_bias)
        )
        weight = F.softmax(self.gate[kind](text), -1)  # (n, J)
        hidden = F.dropout(F.relu(text @ up + up_bias), self.dropout, self.training)  # (n, J * H)
        weight = weight.to(hidden.dtype)
        # A weighted sum of linear maps is one linear map of what is weighted.
        mixed = (hidden.view(*weight.shape, self.expert_dim) * weight[..., None]).flatten(-2)
        adapted: Tensor = mixed @ down + weight @ down_bias
        return adapted * text.any(-1, keepdim=True)


class KAR(TextSASRec):
    """SASRec whose items are their ID and their adapted description, and whose users have an adapted preference text.

    Args:
        text: where items' descriptions come from (all modality texts joined), and the encoder of both kinds of text.
        num_items: N, linked from the data.
        num_users: U, linked from the data.
        user_text: preference texts: at which points of a history, and who writes.
        num_shared_experts: used by both kinds of knowledge.
        num_item_experts: used by items alone.
        num_user_experts: used by users alone.
        expert_dim: width between the two layers of an expert.
        adaptor_dropout: after an expert's first layer.
        cold_items: score items that have text and no training interaction by text alone; without it they rank last, as
            those without either always do.
        **sasrec: see SASRec.
    """

    serving_note = "KAR's preference texts exist for the dataset's users alone; new users are ranked without one"

    item_text: Tensor
    preferences: Tensor
    offsets: Tensor
    sizes: Tensor

    def __init__(
        self,
        text: ItemText,
        num_items: int,
        num_users: int,
        user_text: UserText | None = None,
        num_shared_experts: int = 2,
        num_item_experts: int = 5,
        num_user_experts: int = 5,
        expert_dim: int = 128,
        adaptor_dropout: float = 0.0,
        cold_items: bool = True,
        **sasrec: Any,
    ) -> None:
        super().__init__(text, num_items, cold_items, **sasrec)
        self.user_text = user_text or UserText()
        # In the checkpoint, so that a trained model needs neither texts nor encoder to recommend.
        self.register_buffer("item_text", torch.zeros(num_items + 1, text.dim))
        # Snapshots of user u are rows offsets[u] + 1 to offsets[u + 1], short prefixes first; row 0 is "none yet".
        self.register_buffer("preferences", torch.zeros(1, text.dim))
        self.register_buffer("offsets", torch.zeros(num_users + 2, dtype=torch.long))
        self.register_buffer("sizes", self.user_text.first * 2 ** torch.arange(32), persistent=False)
        own = (num_item_experts, num_user_experts)
        dim = self.item_embedding.embedding_dim
        self.adaptor = HybridExpertAdaptor(text.dim, dim, expert_dim, num_shared_experts, own, adaptor_dropout)

    # -- knowledge ----------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Makes room for the snapshots; before training, fetches all vectors, made first if they are not there.

        Evaluation finds them in the checkpoint.
        """
        data = self.data
        offsets = self.user_text.snapshots(data.dataset).offsets
        if len(self.preferences) != offsets[-1] + 1:
            self.preferences = self.preferences.new_zeros(int(offsets[-1]) + 1, self.text.dim)
        if stage != "fit":
            return
        items = self.text.title_and_description(data.dataset, data.root, data.cache)[:, 1]
        users = self.user_text.vectors(data.dataset, data.cache, self.text.encoder, self.text.dim)
        count = data.dataset.items[COUNT].to_numpy()
        self.load_knowledge(items, users, offsets, count)

    def load_knowledge(self, items: np.ndarray, users: np.ndarray, offsets: np.ndarray, count: np.ndarray) -> None:
        """Takes in (N + 1, T) item vectors, (S, T) snapshots with (U + 2,) offsets, (N,) training counts of items."""
        self.preferences = self.preferences.new_zeros(len(users) + 1, self.text.dim)
        self.preferences[1:] = torch.from_numpy(users)
        self.item_text.copy_(torch.from_numpy(items))
        self.offsets.copy_(torch.from_numpy(offsets))
        self.set_warm(torch.tensor(count))

    def has_text(self) -> Tensor:
        """(N + 1,) bool: the items with a description."""
        return self.item_text.any(1)

    def snapshot(self, user_id: Tensor, seen: Tensor) -> Tensor:
        """(T,) rows of `preferences`: the last snapshot of each user within the first `seen` (T,) items; 0 for none."""
        first = self.offsets[user_id]
        made = torch.bucketize(seen, self.sizes, right=True).minimum(self.offsets[user_id + 1] - first)
        return (first + made) * (made > 0)

    # -- scoring ------------------------------------------------------------------------------------------------------

    def _items(self) -> Tensor:
        """(N + 1, D) E; of items never trained on, whose ID vectors still are random, the text alone."""
        items: Tensor = self.warm_ids() + self.adaptor(self.item_text, ITEM)
        return items

    def forward(
        self, item_seq: Tensor, seq_len: Tensor, positions: tuple[Tensor, Tensor], snapshot: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """As SASRec.forward; `snapshot` (T,) are rows of `preferences`, None where nobody's are known."""
        items = self._items()
        states = self.transformer.at(F.embedding(item_seq, items), seq_len, positions)  # (T, D)
        if snapshot is not None:
            rows, which = torch.unique(snapshot, return_inverse=True)  # a snapshot serves many positions
            states = states + F.embedding(which, self.adaptor(self.preferences[rows], USER))
        return self._scaled(states), items

    def ask(self, batch: TrainBatch | EvalBatch, positions: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """As `forward`, each position with its last snapshot."""
        row, column = positions
        snapshot = self.snapshot(batch.user_id[row], batch.start[row] + column + 1)
        queries, items = self(batch.item_seq, batch.seq_len, positions, snapshot)
        return queries, items

    def item_embeddings(self) -> Tensor:
        """(N + 1, D) keys."""
        return self.keys(self._items())
