"""Knowledge bases: JSON Lines files of documents about items, read with care and searched by `retrieve`."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from msmrec.artifacts import InputError, one_line
from msmrec.columns import DOC_ID, ITEM_ID
from msmrec.text.encoder import TextEncoder
from msmrec.text.retrieve import retrieve

TEXT_FIELDS = ("plot", "overview", "text")
"""Fields that hold prose; a document's other fields hold names, dates and lists."""


@dataclass(frozen=True)
class KnowledgeBase:
    """Documents of one or more files.

    Attributes:
        documents: one row a document: `doc_id`, `source` (the file's stem) and every field that any document has,
            all strings, null where a document lacks the field.
        fingerprint: hash of the files' names and contents and of the length limit.
    """

    documents: pl.DataFrame
    fingerprint: str

    @classmethod
    def none(cls) -> "KnowledgeBase":
        """No documents: items are described from their own metadata alone."""
        return cls(pl.DataFrame(schema={DOC_ID: pl.String, "source": pl.String}), "none")

    @classmethod
    def read(cls, paths: Sequence[str | Path], max_chars: int = 20_000) -> "KnowledgeBase":
        """Read JSON Lines files of documents.

        Args:
            paths: files; each line an object with a unique string `doc_id`, and optionally `title`, `year`, `released`,
                `plot` / `overview` / `text` and other fields (strings, numbers, or lists of strings).
            max_chars: a longer field is cut at the last space before this many characters.

        Raises:
            InputError: a file is missing.
            InputError: a line is not such an object, a `doc_id` comes twice, or a file holds no document; the
                message names file and line.
        """
        if not paths:
            raise InputError("no knowledge base given: name at least one JSON Lines file")
        digest = hashlib.sha256(str(max_chars).encode())
        rows: list[dict[str, str]] = []
        first_seen: dict[str, str] = {}
        for path in map(Path, paths):
            if not path.is_file():
                raise InputError(f"{path}: no such knowledge base file; check the path or leave it out")
            content = path.read_bytes()
            digest.update(path.stem.encode() + b"\0" + hashlib.sha256(content).digest())
            before = len(rows)
            for number, line in enumerate(content.split(b"\n"), start=1):
                if not line.strip():
                    continue
                row = _document(line, f"{path}:{number}", max_chars)
                doc_id = row[DOC_ID]
                if doc_id in first_seen:
                    raise InputError(
                        f"{path}:{number}: doc_id {doc_id!r} already stands at {first_seen[doc_id]}; make it unique"
                    )
                first_seen[doc_id] = f"{path}:{number}"
                rows.append({**row, "source": path.stem})
            if len(rows) == before:
                raise InputError(f"{path}:1: the file holds no document; fill it or leave it out")
        columns = dict.fromkeys([DOC_ID, "source", *(key for row in rows for key in row)])
        documents = pl.DataFrame(rows, schema={name: pl.String() for name in columns})
        return cls(documents, digest.hexdigest())

    def retrieve(self, items: pl.DataFrame, encoder: TextEncoder | None = None, top_k: int = 1) -> pl.DataFrame:
        """Find each item's documents; see `msmrec.text.retrieve.retrieve`."""
        if self.documents.is_empty():
            kinds = {ITEM_ID: items[ITEM_ID].dtype, DOC_ID: pl.String(), "source": pl.String(), "score": pl.Float32()}
            return pl.DataFrame(schema=kinds)
        return retrieve(items, self.documents, encoder, top_k)


def _document(line: bytes, where: str, max_chars: int) -> dict[str, str]:
    """One line as a flat row of strings."""
    try:
        parsed = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not a JSON object in UTF-8 ({one_line(error)}); mend or delete the line") from None
    if not isinstance(parsed, dict):
        raise InputError(f"{where}: a {type(parsed).__name__}, not a JSON object; write one document a line")
    doc_id = parsed.get(DOC_ID)
    if not isinstance(doc_id, str) or not doc_id.strip():
        raise InputError(f"{where}: no doc_id; give every document a unique, non-empty string doc_id")
    row = {DOC_ID: doc_id}
    for key, value in parsed.items():
        if key == "source":
            key = "source_field"  # `source` is the file a document came from
        if key != DOC_ID and value is not None and value == value:  # NaN, as pandas has what is missing, is not
            row[key] = _clip(_string(value, f"{where}: field {key!r}"), max_chars)
    try:
        "".join([*row, *row.values()]).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: half a letter ({one_line(error)}); mend or delete the line") from None
    return {key: value for key, value in row.items() if value}


def _string(value: Any, where: str) -> str:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return ", ".join(value)
    raise InputError(f"{where} is a {type(value).__name__}; write a string, a number or a list of strings")


def _clip(text: str, max_chars: int) -> str:
    return text if len(text) <= max_chars else (text[:max_chars].rsplit(" ", 1)[0] or text[:max_chars])
