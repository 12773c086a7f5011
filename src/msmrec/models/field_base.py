"""FieldModel, the base of click models that let embedded fields interact, and the layers they share."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from msmrec.data.samples import SampleBatch
from msmrec.models.click import ClickModule
from msmrec.models.fields import FieldEmbedding, Fields, encode_fields


def mlp(width: int, hidden: Sequence[int], dropout: float, out: int | None = None) -> nn.Sequential:
    """Linear, ReLU, dropout for each hidden width, and a last linear layer of `out` where it is given."""
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(width, size), nn.ReLU(), nn.Dropout(dropout)]
        width = size
    return nn.Sequential(*layers, *([] if out is None else [nn.Linear(width, out)]))


class FieldModel(ClickModule):
    """A click model over F fields of user, item and history, each a vector of width D.

    The table and all that depends on the number of fields are made when the data is known: before training from the
    dataset, for evaluation from the checkpoint, which is enough.

    Args:
        user_fields: columns of the users, e.g. [user_id, gender]; None: the id and all columns whose values repeat.
        item_fields: columns of the items, likewise.
        history: for each number n three fields: over the user's latest n ratings the mean of the items liked, of those
            not liked, and of the ratings' vectors. Empty for a model that does not read the history.
        embedding_dim: D.
        hidden: widths of the deep part.
        dropout: in the deep part.
        id_dropout: chance that in training a user's or an item's id is read as unknown.
        embedding_l2: weight of the squared norm of the embedding table in the loss.
        **optimisation: see Module.
    """

    first_order: ClassVar[bool] = False
    """Whether every value has a weight of its own beside its vector, as a logistic regression has."""

    def __init__(
        self,
        user_fields: list[str] | None = None,
        item_fields: list[str] | None = None,
        history: tuple[int, ...] = (3, 10, 30),
        embedding_dim: int = 16,
        hidden: tuple[int, ...] = (128, 64),
        dropout: float = 0.2,
        id_dropout: float = 0.0,
        embedding_l2: float = 0.0,
        **optimisation: Any,
    ) -> None:
        super().__init__(**optimisation)
        self.user_fields, self.item_fields, self.history = user_fields, item_fields, history
        self.max_history, self.embedding_dim = max([1, *history]), embedding_dim
        self.hidden, self.dropout = hidden, dropout
        self.id_dropout, self.embedding_l2 = id_dropout, embedding_l2
        self.fields: Fields | None = None

    # -- made when the data is known ----------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Before training, encodes the dataset's fields. Evaluation finds them in the checkpoint."""
        if stage == "fit" and self.fields is None:
            data = self.data
            self.make(encode_fields(data.dataset, data.label_above, self.user_fields, self.item_fields))

    def make(self, fields: Fields) -> None:
        """Makes the table and the network for these fields."""
        self.fields = fields
        self.embedding = FieldEmbedding(fields, self.embedding_dim + self.first_order, self.id_dropout)
        self.build(self.embedding.num_fields + 3 * len(self.history))
        self.to(self.device)

    @abstractmethod
    def build(self, num_fields: int) -> None:
        """Makes the network for F fields."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the fields, so that the checkpoint alone tells the shapes."""
        super().on_save_checkpoint(checkpoint)
        assert self.fields is not None
        checkpoint["fields"] = self.fields._asdict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Makes the table and the network where there are none yet."""
        super().on_load_checkpoint(checkpoint)
        if self.fields is None and "fields" in checkpoint:
            self.make(Fields(**checkpoint["fields"]))

    def vectors_to_export(self) -> dict[str, Tensor]:
        """The items' own vectors, (N + 1, D): they know what is liked, which a language model may be told."""
        if self.fields is None or self.embedding.item_column is None:
            return {}
        vectors = self.embedding.items(torch.arange(len(self.fields.item_codes), device=self.device))
        return {"item_embeddings": vectors[:, : self.embedding_dim]}

    # -- what is learned ----------------------------------------------------------------------------------------------

    def features(self, batch: SampleBatch, history: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """(B, F, D) field vectors, and (B,) the sum of first-order weights, 0 where the model has none.

        `history` is what `embedding.history` gives, where it is at hand.
        """
        fields = self.embedding(batch.user_id, batch.target_item)
        if self.history:
            pooled = self.embedding.pooled(batch, *(history or self.embedding.history(batch)), self.history)
            fields = torch.cat([fields, pooled.to(fields.dtype)], 1)
        vectors = fields[..., : self.embedding_dim]
        return vectors, fields[..., self.embedding_dim :].sum((1, 2))

    def training_step(self, batch: SampleBatch, batch_idx: int) -> Tensor:
        """Cross-entropy, and the norm of the table where it has a weight."""
        loss = super().training_step(batch, batch_idx)
        if self.embedding_l2 > 0:
            loss = loss + self.embedding_l2 * self.embedding.table.weight.square().sum()
        return loss
