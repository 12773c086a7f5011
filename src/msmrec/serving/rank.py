"""From histories to ranked items: the one function behind `recommend`, `explore` and an exported model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor

from msmrec.artifacts import InputError
from msmrec.columns import GENRES, ITEM_ID, TEST, TIER, YEAR
from msmrec.data.batches import EvalBatch, HistoryLoader
from msmrec.data.prepare import Dataset
from msmrec.data.sources.base import FileColumns
from msmrec.models.base import exact_products
from msmrec.models.rec_module import RecModule, top_items, unseen_scores
from msmrec.run_folder import OpenRun


class Histories(NamedTuple):
    """What S users have seen, oldest first; none is empty."""

    items: np.ndarray  # (T,) item_id
    user: np.ndarray  # (S,) user_id; 0 for a user whom the dataset does not know
    start: np.ndarray  # (S,) first place in `items`
    end: np.ndarray  # (S,) one past the last place

    def loader(self, max_seq_len: int, batch_size: int, device: torch.device) -> HistoryLoader:
        """Batches without targets."""
        return HistoryLoader(
            self.items, self.user, self.start, self.end, self.end, max_seq_len, batch_size, device
        )  # fmt: skip


class Ranked(NamedTuple):
    """The best items of S users, best first."""

    items: np.ndarray  # (S, k) item_id; 0 where a list is shorter
    scores: np.ndarray  # (S, k) float32; -inf there


def dataset_histories(dataset: Dataset, users: np.ndarray, before: int | None = None) -> Histories:
    """Histories of users of the dataset.

    Args:
        users: (S,) user_id. before: VAL or TEST: what comes before that part, as an evaluation of it has; None: all.
    """
    end = dataset.ends[TEST if before is None else before - 1]
    return Histories(dataset.item_id, users, dataset.offsets[users], end[users])


@dataclass(frozen=True)
class Recommender:
    """A model that ranks a catalogue for histories: a run's or an exported one.

    Args:
        name: the model's class.
        scores: (B, N + 1) scores for a batch, as `RecModule.scores`.
        items: one row an item, ordered by item_id: raw_item_id, title, year, genres, count, tier.
        max_seq_len, batch_size, device: of the batches.
        serves_new_users: whether a history is enough.
        ranks_cold_items: whether the scores say anything of items without a training rating.
        note: what to know of the lists of new users; empty where nothing is.
        columns: column names of the source's files, which requests may use.
    """

    name: str
    scores: Callable[[EvalBatch], Tensor]
    items: pl.DataFrame
    max_seq_len: int
    batch_size: int
    device: torch.device
    serves_new_users: bool = True
    ranks_cold_items: bool = False
    note: str = ""
    columns: FileColumns = field(default_factory=FileColumns)

    def rank(self, histories: Histories, k: int, allowed: np.ndarray | None = None) -> Ranked:
        """The k best items that a user has not seen; the order of equal scores is the device's.

        Args:
            histories: of S users. k: length of the lists. allowed: (N + 1,) bool, items that may be recommended.
        """
        k = min(k, len(self.items))
        loader = histories.loader(self.max_seq_len, self.batch_size, self.device)
        barred = None if allowed is None else torch.from_numpy(~allowed).to(self.device)
        items, scores = np.zeros((len(histories.user), k), np.int64), np.full((len(histories.user), k), -np.inf, "f4")
        parts = []
        with torch.inference_mode(), exact_products():
            for batch in loader:
                value = unseen_scores(self.scores(batch), batch)
                parts.append(top_items(value if barred is None else value.masked_fill_(barred, -torch.inf), k))
        if parts:
            best, top = (torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True))
            items[loader.order], scores[loader.order] = top, best
        return Ranked(items, scores)

    def allowed(
        self, genres: Sequence[str] = (), year_from: int | None = None, year_to: int | None = None,
        tiers: Sequence[str] = (),
    ) -> np.ndarray | None:  # fmt: skip
        """(N + 1,) items of one of the genres, of these years, of one of the tiers; None where nothing is asked.

        Items without a year pass no bound on it.

        Raises:
            InputError: a genre that no item has, cold items of a model that cannot rank them, or nothing passes.
        """
        if not genres and year_from is None and year_to is None and not tiers:
            return None
        if unknown := sorted(set(genres) - set(known := self.genres())):
            raise InputError(f"--genre {unknown[0]}: no item has it; there are: {', '.join(known) or 'none'}")
        if "cold" in tiers and not self.ranks_cold_items:
            raise InputError(
                f"--tier cold: {self.name} has learned nothing of items without a training rating; MSMRec and KAR"
                " rank them by their texts"
            )
        passes = pl.lit(True)
        if genres:
            passes = passes & pl.col(GENRES).list.eval(pl.element().is_in(genres)).list.any()
        passes = passes & (pl.lit(True) if year_from is None else pl.col(YEAR) >= year_from)
        passes = passes & (pl.lit(True) if year_to is None else pl.col(YEAR) <= year_to)
        passes = passes & (pl.col(TIER).is_in(tiers) if tiers else pl.lit(True))
        chosen = self.items.filter(passes)[ITEM_ID].to_numpy()
        if not len(chosen):
            raise InputError("no item passes the genres, years and tiers that are asked for; widen them")
        mask = np.zeros(len(self.items) + 1, bool)
        mask[chosen] = True
        return mask

    def genres(self) -> list[str]:
        """All genres of the catalogue, in alphabetical order."""
        return self.items[GENRES].explode().drop_nulls().unique().sort().to_list()


def of_run(run: OpenRun) -> Recommender:
    """The recommender of a finished run.

    Raises:
        InputError: its model ranks no catalogue.
    """
    model, data = run.model, run.data
    name = type(model).__name__
    if not isinstance(model, RecModule):
        raise InputError(
            f"{run.folder}: {name} ranks no catalogue by itself (a click model answers for given pairs: python -m"
            " msmrec score; TwoStage leaves lists.parquet); name a run of a ranking model, such as sasrec_ml1m or"
            " msmrec_ml1m"
        )
    return Recommender(
        name, model.scores, data.dataset.items, data.max_seq_len, data.eval_batch_size, data.place()[0],
        model.serves_new_users, model.ranks_cold_items, model.serving_note, data.source.file_columns,
    )  # fmt: skip
