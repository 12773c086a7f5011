"""What most people have rated, for everybody: the baseline that a recommender has to beat."""

from typing import Any

import torch
from torch import Tensor

from msmrec.data.batches import EvalBatch
from msmrec.models.rec_module import RecModule


class Popularity(RecModule):
    """Scores every item by its number of training interactions. Nothing is trained.

    Args:
        num_items: N, linked from the data.
        **optimisation: see RecModule; only the cutoffs matter.
    """

    trains = False

    count: Tensor  # (N + 1,) training interactions

    def __init__(self, num_items: int, **optimisation: Any) -> None:
        super().__init__(**optimisation)
        self.register_buffer("count", torch.zeros(num_items + 1))

    def setup(self, stage: str) -> None:
        """Counts."""
        self.count.copy_(self.catalogue.popularity)

    def item_embeddings(self) -> Tensor:
        """(N + 1, 1) the counts."""
        return self.count[:, None]

    def user_embeddings(self, batch: EvalBatch) -> Tensor:
        """(B, 1) ones."""
        return torch.ones(len(batch.user_id), 1, device=self.count.device)

    def scores(self, batch: EvalBatch) -> Tensor:
        """(B, N + 1) the counts, for each user."""
        return self.count.repeat(batch.user_id.shape[0], 1)
