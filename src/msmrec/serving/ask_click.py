"""What a click model with a language model says of a user and an item that the user has not rated."""

import copy
from typing import NamedTuple

import numpy as np
import polars as pl
import torch

from msmrec.artifacts import InputError
from msmrec.columns import ITEM_ID, RATING, RAW_ITEM_ID, RAW_USER_ID, SPLIT, TEST, TIMESTAMP, USER_ID
from msmrec.ctr.batches import PromptLoader
from msmrec.ctr.head import LlamaCTR
from msmrec.ctr.language_model import prompt_tokens
from msmrec.data.prepare import Dataset
from msmrec.retrieval.prompts import Prompts
from msmrec.run_folder import OpenRun


class Answer(NamedTuple):
    """A prompt and what the model makes of it."""

    prompt: str
    click: float  # probability


class OneUser(Dataset):
    """A dataset of one user, numbered 1, whose last row is the item that is asked about.

    Args:
        whole: the dataset whose items these are. user: its user_id, 0 for somebody new.
        rows: user_id, item_id, rating, timestamp, split; in time order.
    """

    def __init__(self, whole: Dataset, user: int, rows: pl.DataFrame) -> None:
        self.folder, self.info, self.num_users, self.num_items = whole.folder, whole.info, 1, whole.num_items
        self.rows = rows
        known = whole.users.filter(pl.col(USER_ID) == user) if user else whole.users.clear(1)
        self.__dict__ |= {"items": whole.items, "users": known.with_columns(pl.lit(1, pl.Int32).alias(USER_ID))}

    def column(self, name: str) -> np.ndarray:
        """(T + 1,) one column of the interactions."""
        return self.rows[name].to_numpy(writable=True)


class ClickAnswers:
    """Asks a finished LlamaCTR.

    Args:
        run: its run.

    Raises:
        InputError: the run's model is another.
    """

    def __init__(self, run: OpenRun) -> None:
        if not isinstance(run.model, LlamaCTR):
            name = type(run.model).__name__
            raise InputError(f"{run.folder}: {name} writes no prompt; --click wants a run of LlamaCTR")
        self.model, self.data, self.folder = run.model, run.data, run.folder
        model, rows = self.model, np.arange(1)
        assert model.histories is not None
        model.histories.for_evaluation(model, run.data, rows)  # makes the vectors that histories are retrieved with

    def ask(self, raw_user_id: object, raw_item_ids: list[object], raw_item_id: object) -> Answer:
        """The prompt about an item and the probability that the user likes it.

        Args:
            raw_user_id: whose ratings are read, all of them; None for somebody new.
            raw_item_ids: what somebody new liked, oldest first: each counts as rated best. raw_item_id: asked about.

        Raises:
            InputError: the click run does not know the item, or none of the history.
        """
        dataset, model = self.data.dataset, self.model
        target = self._item(raw_item_id)
        mine = dataset.users.filter(pl.col(RAW_USER_ID).cast(pl.String) == str(raw_user_id))[USER_ID].to_list()
        ratings, times = dataset.column(RATING), dataset.column(TIMESTAMP)
        if raw_user_id is not None and mine:
            user, rows = mine[0], np.arange(dataset.offsets[mine[0]], dataset.offsets[mine[0] + 1])
            items, rating, time = dataset.item_id[rows], ratings[rows], times[rows]
        else:
            known = [self._item(raw, must=False) for raw in raw_item_ids]
            items, user = np.array([item for item in known if item], np.int32), 0
            rating, time = np.full(len(items), ratings.max(), ratings.dtype), np.arange(len(items))
        if not len(items):
            raise InputError(f"{self.folder} knows nothing of this history")
        frame = pl.DataFrame(
            {
                USER_ID: np.ones(len(items) + 1, np.int32),
                ITEM_ID: np.append(items, target).astype(np.int32),
                RATING: np.append(rating, rating[-1]),
                TIMESTAMP: np.append(time, time[-1]).astype(np.int64),
                SPLIT: np.full(len(items) + 1, TEST, np.int8),
            }
        )
        data = copy.copy(self.data)
        data.__dict__["dataset"] = one = OneUser(dataset, user, frame)
        prompts = Prompts(one, model.prompt, data.label_above, model.soft_token if model.uses_soft else "")
        row = np.array([len(items)])
        history = model.retriever.arrange(model.retriever.choose(data, row))
        tokens = prompt_tokens(model.tokenizer, prompts, model.max_tokens)
        loader = PromptLoader(
            tokens, row, history, np.zeros(1), tokens_per_batch=model.tokens_per_batch, device=model.answers.device,
            shuffle=False,
        )  # fmt: skip
        with torch.inference_mode():
            click = float(torch.sigmoid(model.logits(next(iter(loader))).float()))
        return Answer(f"{model.prompt.system}\n\n{next(prompts.texts(row, history))}", click)

    def _item(self, raw: object, must: bool = True) -> int:
        items = self.data.dataset.items
        found = items.filter(pl.col(RAW_ITEM_ID).cast(pl.String) == str(raw))[ITEM_ID].to_list()
        if not found and must:
            raise InputError(f"{self.folder} does not know item {raw}")
        return int(found[0]) if found else 0
