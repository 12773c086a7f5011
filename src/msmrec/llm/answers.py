"""Answers of language models, kept one by one: what was paid for is not lost by a kill, and not asked again."""

import sqlite3
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from msmrec.artifacts import InputError


class Answer(NamedTuple):
    """One kept answer."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    repaired: bool  # the second answer, after the first was of no use


class Answers:
    """A SQLite file of answers, keyed by model, messages, schema and max_tokens (Request.key).

    Each answer is its own transaction, so a killed process loses none; look-ups read from disk, so memory does not
    grow; several processes may share a file.

    Args:
        path: the file, made if it is not there.

    Raises:
        InputError: the file is no such store.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=60)
            self._db.execute("PRAGMA journal_mode=WAL")  # writes go to a log: a kill leaves all or nothing of one
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, text TEXT, prompt_tokens INTEGER,"
                " completion_tokens INTEGER, repaired INTEGER) WITHOUT ROWID"
            )
        except sqlite3.DatabaseError as error:
            raise InputError(f"{path} is no store of answers ({error}); move it away, or name another cache") from None

    def get(self, key: str) -> Answer | None:
        """The answer kept under a key."""
        query = "SELECT text, prompt_tokens, completion_tokens, repaired FROM answers WHERE key = ?"
        row = self._db.execute(query, (key,)).fetchone()
        return None if row is None else Answer(row[0], row[1], row[2], bool(row[3]))

    def add(self, key: str, answer: Answer) -> None:
        """Keeps an answer; it is on disk when this returns."""
        self._db.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)", (key, *answer))

    def __len__(self) -> int:
        return int(self._db.execute("SELECT COUNT(*) FROM answers").fetchone()[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()
