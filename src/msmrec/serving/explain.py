"""Why a run's model recommends what it does to a user: the score in parts, and what in the history is near."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from msmrec.artifacts import InputError
from msmrec.columns import RAW_USER_ID
from msmrec.models.base import exact_products
from msmrec.models.msmrec import MSMRec
from msmrec.models.rec_module import RecModule
from msmrec.run_folder import OpenRun
from msmrec.serving.rank import Histories, Recommender, dataset_histories, of_run

NEAREST = 3


class Explanation(NamedTuple):
    """One user's list and its reasons."""

    history: np.ndarray  # (T,) item_id, oldest first
    items: np.ndarray  # (k,) item_id, best first
    scores: np.ndarray  # (k,)
    parts: np.ndarray  # (k, 1 + M) ID and each modality, weighted; rows sum to the score; no column where M is unknown
    gate: np.ndarray  # (M,) weights of the modalities that were used
    near: np.ndarray  # (k, <= NEAREST) item_id of the history, nearest first
    nearness: np.ndarray  # the same shape: cosine of the item vectors


class Explainer:
    """A run's recommender that gives reasons.

    Args:
        run: of a ranking model.

    Raises:
        InputError: its model ranks no catalogue.
    """

    def __init__(self, run: OpenRun) -> None:
        self.recommender: Recommender = of_run(run)
        assert isinstance(run.model, RecModule)
        self.model, self.dataset = run.model, run.data.dataset
        self.modalities: list[str] = []
        if isinstance(run.model, MSMRec):
            self.modalities = run.model.text.names
        with torch.inference_mode():
            self.vectors = F.normalize(self.model.item_embeddings().float(), dim=-1)
        self.row_of = {str(raw): u for u, raw in enumerate(self.dataset.users[RAW_USER_ID].to_list(), 1)}

    def user(self, raw_user_id: str) -> Histories:
        """A user of the dataset and the whole history.

        Raises:
            InputError: there is no such user.
        """
        name = self.dataset.info["name"]
        if (user := self.row_of.get(raw_user_id.strip())) is None:
            raise InputError(f"no user {raw_user_id.strip()!r} in {name}; there is, for one, {next(iter(self.row_of))}")
        histories = dataset_histories(self.dataset, np.array([user]))
        if histories.end[0] == histories.start[0]:
            raise InputError(f"user {raw_user_id.strip()} has no history in {name}")
        return histories

    def liked(self, items: list[int]) -> Histories:
        """Somebody new who liked these items, oldest first.

        Raises:
            InputError: no item, or a model that knows the users of its training alone.
        """
        if not self.recommender.serves_new_users:
            raise InputError(f"{self.recommender.name} knows the users of its training alone: pick one of them")
        if not items:
            raise InputError("name at least one item that they liked")
        size = np.array([len(items)])
        return Histories(np.array(items, np.int64), np.zeros(1, np.int64), size * 0, size)

    def explain(
        self, histories: Histories, k: int, allowed: np.ndarray | None = None, gate: list[float] | None = None
    ) -> Explanation:
        """The best k items of one user and why.

        Args:
            histories: of one user. allowed: see `Recommender.rank`. gate: MSMRec: weights of the modalities in scoring,
                instead of the user's own; they are used as they are.
        """
        recommender, used, parts = self.recommender, torch.zeros(0), torch.zeros(self.vectors.shape[0], 0)
        history = histories.items[histories.start[0] : histories.end[0]]
        if isinstance(self.model, MSMRec):
            with torch.inference_mode(), exact_products():
                batch = next(iter(histories.loader(recommender.max_seq_len, 1, recommender.device)))
                by_id, by_modality, own = self.model.score_parts(batch)
                used = own[0] if gate is None else torch.tensor(gate, device=recommender.device)
                parts = torch.cat([by_id[0, :, None], by_modality[0] * used], 1)
                scores = parts.sum(1)[None]
                if not self.model.cold_items:
                    scores = scores.masked_fill(~self.model.warm, -torch.inf)
            recommender = replace(recommender, scores=lambda _: scores)
        ranked = recommender.rank(histories, k, allowed)
        items, best = ranked.items[0][ranked.items[0] > 0], ranked.scores[0][ranked.items[0] > 0]
        near = self.vectors[torch.from_numpy(items)] @ self.vectors[torch.from_numpy(history).long()].T
        nearness, place = near.topk(min(NEAREST, len(history)), 1)
        return Explanation(
            history, items, best, parts.cpu().numpy()[items], used.cpu().numpy(), history[place.cpu().numpy()],
            nearness.cpu().numpy(),
        )  # fmt: skip
