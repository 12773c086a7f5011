"""TextSASRec: what SASRec needs to know of items that have a text and no training interaction."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from msmrec.data.batches import EvalBatch
from msmrec.models.sasrec import SASRec
from msmrec.text.item_text import ItemText


class TextSASRec(SASRec):
    """The base of SASRecs that read texts: it tells cold items, never trained on, from warm ones.

    Args:
        text: where the items' texts come from.
        num_items: N.
        cold_items: score items that have text and no training interaction by text alone; without it they rank last, as
            those without either always do.
        **sasrec: see SASRec.
    """

    warm: Tensor
    warm_items: Tensor

    def __init__(self, text: ItemText, num_items: int, cold_items: bool = True, **sasrec: Any) -> None:
        super().__init__(num_items, **sasrec)
        self.text, self.cold_items = text, cold_items
        self.register_buffer("warm", torch.ones(num_items + 1, dtype=torch.bool))  # trained on at least once
        self.register_buffer("warm_items", torch.arange(1, num_items + 1), persistent=False)  # as (C,) rows

    @property
    def ranks_cold_items(self) -> bool:
        """By their texts, where it is asked for."""
        return self.cold_items

    def set_warm(self, count: Tensor) -> None:
        """Takes in the (N,) training counts of the items."""
        self.warm[1:] = count.to(self.warm.device) > 0
        self.warm_items = self.warm[1:].nonzero()[:, 0] + 1

    def warm_ids(self) -> Tensor:
        """(N + 1, D) ID vectors; zero for cold items, whose vectors still are random."""
        weight = self.item_embedding.weight
        return weight * self.warm[:, None].to(weight.dtype)  # a bool here is more than torch 2.11 can write as ONNX

    def candidates(self) -> Tensor | None:
        """Without cold items: as wrong answers and nothing else, their texts would be pushed away."""
        return self.warm_items if self.cold_items and len(self.warm_items) < self.num_items else None

    def scores(self, batch: EvalBatch) -> Tensor:
        """(B, N + 1); cold items are scored by their text, or last where they have none or `cold_items` is off."""
        known = self.warm | self.has_text() if self.cold_items else self.warm
        return super().scores(batch).masked_fill(~known, -torch.inf)

    @abstractmethod
    def has_text(self) -> Tensor:
        """(N + 1,) bool: the items of which there is a text."""
