"""`python -m msmrec score`: a click model's probabilities for pairs of a user and an item."""

import numpy as np
import polars as pl

from msmrec.artifacts import InputError
from msmrec.ctr.head import LlamaCTR
from msmrec.data.prepare import Dataset
from msmrec.data.samples import PairLoader
from msmrec.models.click import EVAL_SAMPLES, ClickModule
from msmrec.run_folder import OpenRun
from msmrec.serving.ask_click import ClickAnswers
from msmrec.serving.rank import dataset_histories
from msmrec.serving.requests import Pairs


def click_model(run: OpenRun) -> ClickModule:
    """The run's model.

    Raises:
        InputError: it is no click model.
    """
    if not isinstance(run.model, ClickModule):
        raise InputError(
            f"{run.folder}: {type(run.model).__name__} gives no probability of a click; what it ranks best for users is"
            " told by python -m msmrec recommend"
        )
    return run.model


def score(run: OpenRun, pairs: Pairs, before: int | None = None) -> tuple[pl.DataFrame, list[str]]:
    """Probabilities that users like items.

    Args:
        run: of a click model. pairs: of its dataset.
        before: VAL or TEST: the history is what comes before that part; None: all that the dataset holds.

    Returns:
        raw_user_id, raw_item_id, probability, in the order of the pairs; what to tell the user.

    Raises:
        InputError: the run's model is no click model.
    """
    model, data = click_model(run), run.data
    end = dataset_histories(data.dataset, pairs.user, before).end
    if isinstance(model, LlamaCTR):
        probability = ClickAnswers(run).probabilities(pairs.user, pairs.item, end)
    else:
        loader = PairLoader(
            data.dataset, pairs.user, pairs.item, end, model.max_history, data.eval_batch_size * EVAL_SAMPLES,
            data.place()[0],
        )  # fmt: skip
        probability = model.probabilities(loader).cpu().numpy()
    notes = list(pairs.notes)
    if rated := int(_rated(data.dataset, pairs, before).sum()):
        notes.append(f"{rated:,} pairs are of an item that the user has rated already, which the model reads")
    return pairs.raw.with_columns(probability=pl.Series(probability)), notes


def _rated(dataset: Dataset, pairs: Pairs, before: int | None) -> np.ndarray:
    """(S,) whether the history has the item."""
    users = np.unique(pairs.user)
    ends = np.zeros(dataset.num_users + 1, np.int64)
    ends[users] = dataset_histories(dataset, users, before).end
    row = np.flatnonzero(np.arange(len(dataset.item_id)) < ends[dataset.user_id])
    wide = dataset.num_items + 1
    return np.isin(pairs.user * wide + pairs.item, dataset.user_id[row].astype(np.int64) * wide + dataset.item_id[row])
