"""What a click model with a language model says of users and items that they have not rated."""

import copy
from typing import NamedTuple

import numpy as np
import polars as pl

from msmrec.artifacts import InputError
from msmrec.columns import ITEM_ID, RATING, RAW_ITEM_ID, RAW_USER_ID, SPLIT, TEST, TIMESTAMP, USER_ID
from msmrec.ctr.batches import PromptLoader
from msmrec.ctr.head import LlamaCTR
from msmrec.ctr.language_model import prompt_tokens
from msmrec.data.batches import flat_rows
from msmrec.data.datamodule import RecDataModule
from msmrec.data.prepare import Dataset
from msmrec.retrieval.prompts import Prompts
from msmrec.run_folder import OpenRun

# Rows of histories that are copied at once for `probabilities`, and pairs at most: a pair counts as 256 rows at least.
CELLS, PAIRS = 1 << 22, 1 << 14


class Answer(NamedTuple):
    """A prompt and what the model makes of it."""

    prompt: str
    click: float  # probability


class Asked(Dataset):
    """Other rows in place of a dataset's own: those that are asked about, and what stands before them.

    Args:
        whole: the dataset whose items these are.
        rows: user_id and those of item_id, rating, timestamp, split that will be read; by user, each in time order.
        users: as in the dataset; None: its own.
    """

    def __init__(self, whole: Dataset, rows: pl.DataFrame, users: pl.DataFrame | None = None) -> None:
        self.folder, self.info, self.num_items = whole.folder, whole.info, whole.num_items
        self.rows, self.num_users = rows, int(rows[USER_ID].to_numpy().max())
        self.__dict__ |= {"items": whole.items, "users": whole.users if users is None else users}

    def column(self, name: str) -> np.ndarray:
        """(T,) one column of the interactions."""
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
        self.ratings = run.data.dataset.column(RATING)
        model, rows = self.model, np.arange(1)
        assert model.histories is not None
        model.histories.for_evaluation(model, run.data, rows)  # makes the vectors that histories are retrieved with

    def probabilities(self, user: np.ndarray, item: np.ndarray, end: np.ndarray) -> np.ndarray:
        """(S,) float64 probabilities that users of the dataset like items.

        Args:
            user, item: (S,) ids. end: (S,) one past the last row of the user that a history may have.
        """
        # A history is that of one target, so each pair gets a copy of its user's rows, the target behind them.
        long = np.maximum(end - self.data.dataset.offsets[user] + 1, CELLS // PAIRS)
        blocks = np.flatnonzero(np.diff(np.cumsum(long) // CELLS)) + 1
        parts = (np.split(column, blocks) for column in (user, item, end))
        return np.concatenate([self._probabilities(*part) for part in zip(*parts, strict=True)])

    def _probabilities(self, user: np.ndarray, item: np.ndarray, end: np.ndarray) -> np.ndarray:
        dataset, model = self.data.dataset, self.model
        start = dataset.offsets[user]
        owner, row = flat_rows(start, end + 1)
        target = np.cumsum(end - start + 1) - 1
        row[target] = 0  # the last user's may lie past the end; nobody reads its rating
        items = dataset.item_id[row]
        items[target] = item
        copies = pl.DataFrame({USER_ID: (owner + 1).astype(np.int32), ITEM_ID: items, RATING: self.ratings[row]})
        history = model.retriever.arrange(model.retriever.choose(self._with(Asked(dataset, copies)), target))
        # From here on targets are rows 0 to S - 1, and histories the dataset's own rows, whose lines are tokenised.
        tokens = copy.copy(model.tokens)
        tokens.prompts = copy.copy(tokens.prompts)
        tokens.prompts.dataset = Asked(dataset, pl.DataFrame({USER_ID: user, ITEM_ID: item}))
        loader = PromptLoader(
            tokens, np.arange(len(user)), np.where(history >= 0, row[history], -1), np.zeros(len(user)),
            tokens_per_batch=4 * model.tokens_per_batch, device=model.answers.device, shuffle=False,
        )  # fmt: skip
        probability = np.empty(len(user))
        order = np.concatenate([group for group, _ in loader.groups()])
        probability[order] = model.probabilities(loader).cpu().numpy()
        return probability

    def _with(self, dataset: Dataset) -> RecDataModule:
        """The run's data with another dataset."""
        data = copy.copy(self.data)
        data.__dict__["dataset"] = dataset
        return data

    def ask(self, raw_user_id: object, raw_item_ids: list[object], raw_item_id: object) -> Answer:
        """The prompt about an item and the probability that the user likes it.

        Args:
            raw_user_id: whose ratings are read, all of them; None for somebody new.
            raw_item_ids: what somebody new liked, oldest first: each counts as rated best. raw_item_id: asked about.

        Raises:
            InputError: the click run does not know the item, or none of the history.
        """
        one, model = self._asked(raw_user_id, raw_item_ids, self._item(raw_item_id)), self.model
        data = self._with(one)
        prompts = Prompts(one, model.prompt, data.label_above, model.soft_token if model.uses_soft else "")
        row = np.array([len(one.item_id) - 1])
        history = model.retriever.arrange(model.retriever.choose(data, row))
        tokens = prompt_tokens(model.tokenizer, prompts, model.max_tokens)
        loader = PromptLoader(
            tokens, row, history, np.zeros(1), tokens_per_batch=model.tokens_per_batch, device=model.answers.device,
            shuffle=False,
        )  # fmt: skip
        prompt = f"{model.prompt.system}\n\n{next(prompts.texts(row, history))}"
        return Answer(prompt, float(model.probabilities(loader)))

    def _asked(self, raw_user_id: object, raw_item_ids: list[object], target: int) -> Asked:
        """The one user of `ask`, with the history and, as its last row, the target."""
        dataset, ratings = self.data.dataset, self.ratings
        mine = dataset.users.filter(pl.col(RAW_USER_ID).cast(pl.String) == str(raw_user_id))[USER_ID].to_list()
        if raw_user_id is not None and mine:
            rows = np.arange(dataset.offsets[mine[0]], dataset.offsets[mine[0] + 1])
            items, rating, time = dataset.item_id[rows], ratings[rows], dataset.column(TIMESTAMP)[rows]
            who = dataset.users.filter(pl.col(USER_ID) == mine[0])
        else:
            known = [self._item(raw, must=False) for raw in raw_item_ids]
            items = np.array([item for item in known if item], np.int32)
            rating, time = np.full(len(items), ratings.max(), ratings.dtype), np.arange(len(items))
            who = dataset.users.clear(1)
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
        return Asked(dataset, frame, who.with_columns(pl.lit(1, pl.Int32).alias(USER_ID)))

    def _item(self, raw: object, must: bool = True) -> int:
        items = self.data.dataset.items
        found = items.filter(pl.col(RAW_ITEM_ID).cast(pl.String) == str(raw))[ITEM_ID].to_list()
        if not found and must:
            raise InputError(f"{self.folder} does not know item {raw}")
        return int(found[0]) if found else 0
