"""Prompts for click prediction, as text and as tokens: profile, history with ratings, target, the yes/no question.

A prompt is a head (who the user is), one line for each earlier rating, and a tail (the question about the target). All
are strings made once: a head a user, a line for each (item, rating) that occurs, a tail an item. A prompt is then a
choice of pieces, so rendering is a join, and tokens are gathered from pieces that were tokenised once. Each piece ends
with a line break, where byte-level tokenisers (Llama 3's among them) never merge across.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from string import Formatter
from typing import NamedTuple

import numpy as np
import polars as pl

from msmrec.artifacts import InputError
from msmrec.columns import RATING
from msmrec.data.prepare import Dataset


@dataclass(frozen=True)
class PromptTemplate:
    """The words of a prompt. Braces name columns of the user's or the item's row, and what is said below.

    Write a title after a space everywhere ("Rated 4: {title}", "Likes {title}?"), or its first word is another token.
    """

    system: str = "You predict whether a user will like an item. You answer with Yes or No."
    """The system turn, where the language model has one."""
    profile: str = ""
    """First line; a user who lacks one of its fields has `no_profile` instead."""
    no_profile: str = "Nothing is known of the user but these ratings."
    """First line of users without a profile."""
    history: str = "The user rated:"
    """Line before the history."""
    entry: str = "{title} ({rating} stars)"
    """A line of the history; {rating} is the number, {soft} the place of the item's soft token."""
    no_history: str = "The user has rated nothing yet."
    """Instead of the history where there is none."""
    question: str = "Liked means rated above {label_above} stars. Will the user like {title}? Answer Yes or No."
    """Last line. {label_above} is the data's threshold."""
    yes: str = "Yes"
    """The answer that means a click. It and `no` must be one token each."""
    no: str = "No"
    """The answer that means none."""


MOVIE_TEMPLATE = PromptTemplate(
    system="You predict whether a user will like a movie. You answer with Yes or No.",
    profile="The user is {gender}, {age}, {occupation}.",
    history="The user rated these movies:",
    question="Liked means rated above {label_above} stars. Will the user like the movie {title}? Answer Yes or No.",
)


class Prompts:
    """Prompts of a dataset's samples.

    Args:
        dataset: a prepared dataset.
        template: the words.
        label_above: a rating above it is a click.
        soft_token: what stands where an item's soft token will be.
    """

    def __init__(
        self, dataset: Dataset, template: PromptTemplate, label_above: float = 3.0, soft_token: str = ""
    ) -> None:
        self.dataset, self.template = dataset, template
        self.label_above, self.soft_token = label_above, soft_token
        rating = dataset.column(RATING)
        self.values = np.unique(rating)  # the scale, ascending
        self.rating_code = np.searchsorted(self.values, rating).astype(np.int32)  # (T,)
        # A line of the history for every (item, rating) that occurs; which one each row of the interactions has.
        code = dataset.item_id.astype(np.int64) * len(self.values) + self.rating_code
        self.codes, line = np.unique(code, return_inverse=True)
        self.line = line.astype(np.int32)  # (T,) index into `entries`

    @cached_property
    def heads(self) -> list[str]:
        """U + 1 heads by user_id."""
        heads = [f"{self.template.no_profile}\n"]
        fields = _fields(self.template.profile, "profile", self.dataset.users, ())
        for row in self.dataset.users.iter_rows(named=True):
            known = self.template.profile and all(row[name] is not None for name in fields)
            heads.append(f"{self.template.profile.format_map(row) if known else self.template.no_profile}\n")
        return heads

    @cached_property
    def entries(self) -> list[str]:
        """Lines of the history, by `line`."""
        _fields(self.template.entry, "entry", self.dataset.items, ("rating", "soft"))
        rows = self._items()
        words = [f"{value:g}" for value in self.values]
        count = len(self.values)
        return [
            self.template.entry.format_map(
                {**rows[c // count - 1], "rating": words[c % count], "soft": self.soft_token}
            )
            + "\n"
            for c in self.codes.tolist()
        ]

    @cached_property
    def tails(self) -> list[str]:
        """N + 1 questions by item_id."""
        _fields(self.template.question, "question", self.dataset.items, ("label_above", "soft"))
        more = {"label_above": f"{self.label_above:g}", "soft": self.soft_token}
        return ["\n", *(f"{self.template.question.format_map({**row, **more})}\n" for row in self._items())]

    def _items(self) -> list[dict[str, object]]:
        """Rows of the catalogue; a list, such as the genres, is written with commas, what is missing as "unknown"."""
        lists = [name for name, kind in self.dataset.items.schema.items() if isinstance(kind, pl.List)]
        words = self.dataset.items.with_columns(pl.col(lists).list.join(", "))
        missing = [name for name in words.columns if words[name].null_count()]
        return words.with_columns(pl.col(missing).cast(pl.String).fill_null("unknown")).to_dicts()

    def texts(self, rows: np.ndarray, history: np.ndarray) -> Iterator[str]:
        """Renders prompts one by one.

        Args:
            rows: (S,) samples. history: (S, K) rows of earlier ratings in the order of the prompt, -1 anywhere: none.
        """
        heads, entries, tails = self.heads, self.entries, self.tails
        opening, nothing = self.template.history + "\n", self.template.no_history + "\n"
        user, item = self.dataset.user_id, self.dataset.item_id
        for begin in range(0, len(rows), 4096):  # so that lists of Python integers stay small
            block, past = rows[begin : begin + 4096], history[begin : begin + 4096]
            lines = np.where(past >= 0, self.line[past], -1)
            columns = (user[block], item[block], lines, (lines >= 0).all(1))
            for u, i, line, whole in zip(*(column.tolist() for column in columns), strict=True):
                told = [entries[k] for k in line] if whole else [entries[k] for k in line if k >= 0]
                yield heads[u] + (opening + "".join(told) if told else nothing) + tails[i]


def _fields(template: str, name: str, frame: pl.DataFrame, more: Sequence[str]) -> list[str]:
    """Fields that a template uses, checked against the columns that there are."""
    fields = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
    unknown = [field for field in fields if field not in (*frame.columns, *more)]
    if unknown:
        raise InputError(
            f"prompt.{name} names {{{unknown[0]}}}, which is no column; there are: {', '.join([*more, *frame.columns])}"
        )
    return fields


class Tokens(NamedTuple):
    """Token sequences one after the other, and where soft tokens stand for which item."""

    input_ids: np.ndarray  # (X,) int32
    soft_item: np.ndarray  # (X,) int32 item whose vector stands here, 0 for ordinary tokens
    length: np.ndarray  # (S,) tokens of each sequence


class PromptSizes(NamedTuple):
    """What is known of prompts before they are made."""

    length: np.ndarray  # (S,) tokens
    tail: np.ndarray  # (S,) tokens of the question about the target and what follows, part of them
    first: np.ndarray  # (S,) row of the first rating told, -1 for none


class PromptTokens:
    """Token sequences of prompts, gathered from pieces that were tokenised once.

    Args:
        prompts: the prompts.
        encode: text to token ids, without special tokens added (a tokenizer's `encode`, for many texts).
        before: tokens ahead of each prompt (begin of text, the system turn, the start of the user's).
        after: tokens behind each prompt, up to where the answer begins.
        soft_id: token id of the prompts' soft token, or None.
        max_tokens: longest sequence. Of a longer prompt the oldest ratings are left out, never head or question.
    """

    def __init__(
        self,
        prompts: Prompts,
        encode: Callable[[list[str]], list[list[int]]],
        before: list[int],
        after: list[int],
        soft_id: int | None,
        max_tokens: int,
    ) -> None:
        self.prompts, self.max_tokens = prompts, max_tokens
        opening, nothing = (f"{text}\n" for text in (prompts.template.history, prompts.template.no_history))
        heads = [[*before, *tokens] for tokens in encode(prompts.heads)]
        tails = [[*tokens, *after] for tokens in encode(prompts.tails)]
        pieces = [*heads, *encode(prompts.entries), *tails, *encode([opening, nothing])]
        self.first_entry = len(heads)
        self.first_tail = self.first_entry + len(prompts.codes)
        self.opening = self.first_tail + len(tails)
        self.size = np.array([len(piece) for piece in pieces], np.int64)
        self.start = np.cumsum(self.size) - self.size
        self.flat = np.concatenate([np.asarray(piece, np.int32) for piece in pieces])
        item = np.zeros(len(pieces), np.int32)
        item[self.first_entry : self.first_tail] = prompts.codes // len(prompts.values)
        item[self.first_tail : self.opening] = np.arange(len(tails))
        self.soft = np.where(self.flat == soft_id, np.repeat(item, self.size), 0).astype(np.int32)
        longest = int(self.size[: self.first_entry].max() + self.size[self.first_tail :].max())
        if longest + self.size[self.opening :].max() > max_tokens:
            raise InputError(f"max_tokens {max_tokens}: profile and question take up to {longest} tokens; raise it")

    def _pieces(self, rows: np.ndarray, history: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(S, K + 3) pieces of each prompt, -1 for none, and their sizes, 0 there."""
        data = self.prompts.dataset
        line = np.where(history >= 0, self.prompts.line[history] + self.first_entry, -1)
        head, tail = data.user_id[rows].astype(np.int64), data.item_id[rows] + self.first_tail
        size = np.where(line >= 0, self.size[line], 0)
        room = self.max_tokens - self.size[head] - self.size[tail] - self.size[self.opening]
        too_long = size.sum(1) > room
        if too_long.any():
            newest = np.argsort(-history[too_long], axis=1, kind="stable")
            used = np.cumsum(np.take_along_axis(size[too_long], newest, 1), axis=1)
            kept = np.empty_like(used, dtype=bool)
            np.put_along_axis(kept, newest, used <= room[too_long, None], 1)
            line[too_long] = np.where(kept, line[too_long], -1)
        opening = np.where((line >= 0).any(1), self.opening, self.opening + 1)
        piece = np.concatenate([head[:, None], opening[:, None], line, tail[:, None]], 1)
        return piece, np.where(piece >= 0, self.size[piece], 0)

    def sizes(self, rows: np.ndarray, history: np.ndarray) -> PromptSizes:
        """Of each prompt; arguments as in `Prompts.texts`."""
        piece, size = self._pieces(rows, history)
        told = piece[:, 2:-1] >= 0
        first = np.take_along_axis(history, told.argmax(1)[:, None], 1)[:, 0]
        return PromptSizes(size.sum(1), size[:, -1], np.where(told.any(1), first, -1))

    def __call__(self, rows: np.ndarray, history: np.ndarray, whole: np.ndarray | None = None) -> Tokens:
        """Sequences of samples; other arguments as in `Prompts.texts`.

        Args:
            whole: (S,) bool; of the others the tail alone is made. None: all are whole.
        """
        piece, size = self._pieces(rows, history)
        if whole is not None:
            piece[~whole, :-1], size[~whole, :-1] = -1, 0
        chosen, long = piece[piece >= 0], size[piece >= 0]
        ends = np.cumsum(long)
        index = np.repeat(self.start[chosen] - (ends - long), long) + np.arange(ends[-1] if len(ends) else 0)
        return Tokens(self.flat[index], self.soft[index], size.sum(1))
