"""What models that rank the whole catalogue share: their loaders, and one evaluation for all."""

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from msmrec.artifacts import InputError
from msmrec.columns import SPLITS, USER_ID
from msmrec.data.batches import EvalBatch, EvalLoader, TrainLoader
from msmrec.data.catalogue import catalogue_of, genre_tastes
from msmrec.data.datamodule import RecDataModule
from msmrec.data.prepare import Dataset
from msmrec.metrics.beyond_accuracy import TIERS, Catalogue, list_measures
from msmrec.metrics.ranking import cold_metrics, ranking_metrics, target_ranks
from msmrec.models.base import Module


class RecModule(Module):
    """A recommender that is ranked over the whole catalogue.

    A subclass says how to train (`training_step`) and how to score (`scores`); evaluation is the same for all.

    Args:
        cutoffs: k of the metrics; that of `monitor` is always added.
        **optimisation: see Module.
    """

    monitor = "val/ndcg@10"
    headline = ("hit_rate@10", "ndcg@10", "hit_rate@100")
    serves_new_users: ClassVar[bool] = True
    """Whether `scores` makes sense for a user of whom nothing but the history is known (user_id 0)."""
    serving_note: ClassVar[str] = ""
    """What to know of the lists of such users; empty where nothing is."""

    @property
    def ranks_cold_items(self) -> bool:
        """Whether `scores` says anything of items without a training rating."""
        return False

    def __init__(self, cutoffs: tuple[int, ...] = (5, 10, 20, 50, 100), **optimisation: Any) -> None:
        super().__init__(**optimisation)
        if not cutoffs or min(cutoffs) < 1:
            raise InputError(f"model.cutoffs {list(cutoffs)}: one number or more, each at least 1")
        asked = self.monitor.partition("@")[2]  # the best checkpoint is chosen by it, so it is computed in any case
        self.cutoffs = tuple(sorted({*cutoffs, int(asked)})) if asked else cutoffs
        self._catalogue: Catalogue | None = None
        self._taste: dict[str, Tensor] = {}  # (U + 1, G) genres of the histories before the part

    @abstractmethod
    def scores(self, batch: EvalBatch) -> Tensor:
        """(B, N + 1) scores of all items for each user of the batch; column 0, the padding, is ignored."""

    @abstractmethod
    def item_embeddings(self) -> Tensor:
        """(N + 1, D) item vectors; row 0 is the padding."""

    @abstractmethod
    def user_embeddings(self, batch: EvalBatch) -> Tensor:
        """(B, D) vectors of the batch's users, to go with `item_embeddings`."""

    def train_loader(self, data: RecDataModule) -> Any:
        """Shuffled sequences of like length."""
        device, rank, world_size = data.place()
        return TrainLoader(
            data.dataset, data.max_seq_len, data.tokens_per_batch, device, data.seed, data.all_windows, rank, world_size
        )

    def eval_loader(self, data: RecDataModule, split: int) -> EvalLoader:
        """Users that have items in the part."""
        device, rank, world_size = data.place()
        size = users_at_once(data.eval_batch_size, data.num_items)
        return EvalLoader(data.dataset, split, data.max_seq_len, size, device, rank, world_size)

    def vectors_to_export(self) -> dict[str, Tensor]:
        """Item vectors."""
        return {"item_embeddings": self.item_embeddings()}

    def protocol(self, data: RecDataModule) -> dict[str, Any]:
        """Full ranking; how many users have targets but no history, and so are left out."""
        ends = [data.dataset.offsets[:-1], *data.dataset.ends]
        left_out = {
            name: int(((ends[split] == ends[0]) & (ends[split + 1] > ends[split])).sum())
            for name, split in SPLITS.items()
        }
        return {
            **super().protocol(data),
            "candidates": "all items",
            "seen_filter": seen_filter(data.dataset),
            "target_time_is_input": False,
            "users_without_history": left_out,
        }

    # -- evaluation ---------------------------------------------------------------------------------------------------

    list_length: ClassVar[int] = 10
    """Places of the lists whose novelty, diversity, ... are measured."""

    @property
    def catalogue(self) -> Catalogue:
        """Popularity and genres of the dataset's items, on the model's device, which may have changed since `setup`."""
        if self._catalogue is None or self._catalogue.tier.device.type != self.device.type:
            self._catalogue = catalogue_of(self.data.dataset, self.device)
        return self._catalogue

    def evaluate(self, batch: EvalBatch) -> tuple[Tensor, ...]:
        """Ranks and the top of the list, of all items not seen by the user.

        Returns:
            (B,) users, (B, T) ranks of their targets, (B,) numbers of targets; the last two again for the targets that
            are cold items, and again for those in a list of cold items alone; (B, list_length) the top items.
        """
        scores = unseen_scores(self.scores(batch), batch)
        target = batch.target_item
        ranks = target_ranks(scores, target)
        cold = self.catalogue.tier == TIERS.index("cold")
        cold[0] = False
        is_cold = cold[target]
        column = cold.cumsum(0) * cold  # place of a cold item among the cold ones, which stand behind the padding
        cold_scores = scores[:, torch.cat([cold.new_zeros(1).long(), cold.nonzero()[:, 0]])]
        return (
            batch.user_id, ranks, (target > 0).sum(1),
            ranks.masked_fill(~is_cold, scores.shape[1]), target_ranks(cold_scores, column[target]), is_cold.sum(1),
            top_items(scores, min(self.list_length, scores.shape[1] - 1))[1],
        )  # fmt: skip

    def finish(self, prefix: str, columns: list[Tensor]) -> dict[str, float]:
        """Means over users; of the lists' measures over those for whom they are defined."""
        user, ranks, counts, cold_ranks, cold_list_ranks, cold_counts, lists = columns
        per_user = ranking_metrics(ranks, counts, self.cutoffs)
        result = {name: float(value.double().mean()) for name, value in per_user.items()}
        if prefix not in self._taste:
            self._taste[prefix] = genre_tastes(self.data.dataset, self.catalogue.genres, SPLITS[prefix])
        of_lists, overall = list_measures(lists, self.catalogue, self._taste[prefix][user])
        cold, cold_means = cold_metrics(cold_ranks, cold_list_ranks, cold_counts, self.list_length)
        self.results = {USER_ID: user, "rank": ranks.amin(1), **per_user, **of_lists, **cold}
        return result | overall | cold_means


def seen_filter(dataset: Dataset) -> str:
    """What is not recommended again, in words: low-rated validation rows that are no targets are no history either."""
    lowest = dataset.info["protocol"].get("min_target_rating")
    if lowest is None or not dataset.info["num_val"]:
        return "the whole history"
    return f"the whole history, but in the test without the validation's ratings below {lowest:g}"


def users_at_once(batch_size: int, num_items: int) -> int:
    """`batch_size`, or fewer users where their scores of all items would be more than 2^26 numbers (256 MB)."""
    return max(1, min(batch_size, 2**26 // (num_items + 1)))


def unseen_scores(scores: Tensor, batch: EvalBatch) -> Tensor:
    """(B, N + 1) float32 scores for ranking: -inf at the padding and at what the user has seen."""
    scores = scores.float()
    scores[:, 0] = -torch.inf
    scores[batch.seen_row, batch.seen_item] = -torch.inf
    return scores


def top_items(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(B, k) best scores and their items, 0 where only -inf is left."""
    best, top = torch.topk(scores, k)
    return best, top.masked_fill(best == -torch.inf, 0)
