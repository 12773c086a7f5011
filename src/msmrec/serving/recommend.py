"""`python -m msmrec recommend`: lists for many users at once, as a table."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from msmrec.artifacts import InputError, atomic_file
from msmrec.columns import COUNT, ITEM_ID, RAW_ITEM_ID, RAW_USER_ID, TITLE
from msmrec.serving.rank import Recommender
from msmrec.serving.requests import Requests

WRITERS = {".parquet": "write_parquet", ".csv": "write_csv", ".jsonl": "write_ndjson"}


def recommend(
    recommender: Recommender, requests: Requests, k: int, allowed: np.ndarray | None, popular: bool
) -> tuple[pl.DataFrame, list[str]]:
    """Lists of k items that the users have not seen.

    Args:
        requests: whom for. k: items a user. allowed: see `Recommender.rank`.
        popular: give users without a known item what most people have rated, with no score.

    Returns:
        raw_user_id, rank (from 1), raw_item_id, title, score (in the order of the request); what to tell the user.

    Raises:
        InputError: new users for a model that knows its training users alone, or k below 1.
    """
    if k < 1:
        raise InputError(f"--k {k}: at least 1")
    new = bool((requests.histories.user == 0).any())
    if new and not recommender.serves_new_users:
        raise InputError(
            f"{recommender.name} knows the users of its training alone: give --users; SASRec, MSMRec, KAR and"
            " Popularity take new users by --history"
        )
    notes = list(requests.notes) + ([recommender.note] if new and recommender.note else [])
    ranked = recommender.rank(requests.histories, k, allowed)
    table = _long(requests.raw_user_ids, ranked.items, ranked.scores)
    if short := int((ranked.items == 0).any(1).sum()):
        notes.append(f"{short:,} users have fewer than {k} items left to recommend: their lists are shorter")
    if count := len(requests.without_history):
        names = ", ".join(map(str, requests.without_history.head(5).to_list())) + (", ..." if count > 5 else "")
        told = "are given what is popular" if popular else "get no list (--fallback popular gives what is popular)"
        notes.append(f"{count:,} users without any known item {told}: {names}")
    if popular and count:
        best = recommender.items.sort(COUNT, descending=True, maintain_order=True)[ITEM_ID].to_numpy()
        best = best[allowed[best]][:k] if allowed is not None else best[:k]
        rows = np.broadcast_to(best, (count, len(best)))
        table = pl.concat([table, _long(requests.without_history, rows, np.full(rows.shape, np.nan, np.float32))])
    names_of = recommender.items.select(ITEM_ID, RAW_ITEM_ID, TITLE)
    table = table.join(names_of, on=ITEM_ID, how="left", maintain_order="left")
    return table.select(RAW_USER_ID, "rank", RAW_ITEM_ID, TITLE, pl.col("score").fill_nan(None)), notes


def _long(users: pl.Series, items: np.ndarray, scores: np.ndarray) -> pl.DataFrame:
    """A row for each item of each list."""
    place = np.tile(np.arange(1, items.shape[1] + 1, dtype=np.int32), len(users))
    owner = users.gather(np.repeat(np.arange(len(users)), items.shape[1])).alias(RAW_USER_ID)
    frame = pl.DataFrame(
        {RAW_USER_ID: owner, "rank": place, ITEM_ID: items.ravel().astype(np.int32), "score": scores.ravel()}
    )
    return frame.filter(pl.col(ITEM_ID) > 0)


def write_table(table: pl.DataFrame, path: Path) -> None:
    """Writes .parquet, .csv or .jsonl, whole or not at all."""
    try:
        with atomic_file(path) as temporary:
            getattr(table, WRITERS[checked(path).suffix])(temporary)
    except OSError as error:
        raise InputError(f"--out {path}: cannot be written ({error.strerror or error})") from None


def give(table: pl.DataFrame, notes: Sequence[str], out: Path | None, about: str) -> None:
    """Writes the table, or prints it as CSV; what is to be known of it goes to stderr, a line each.

    Args:
        about: what the file then holds, in a few words.
    """
    for note in notes:
        print(f"msmrec: {note}", file=sys.stderr)
    if out:
        write_table(table, out)
        print(f"{out}: {about}")
    else:
        print(table.write_csv(), end="")


def checked(path: Path) -> Path:
    """The path, if it can be written, in a format that is known.

    Raises:
        InputError: another ending, or a folder where nothing can be written.
    """
    if path.suffix not in WRITERS:
        raise InputError(f"--out {path}: give a name that ends in {', '.join(WRITERS)}")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"--out {path}: nothing can be written in {folder}")
    return path
