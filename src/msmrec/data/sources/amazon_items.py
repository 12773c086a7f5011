"""Metadata of Amazon's products, whichever release: what a text model and a field model can use, cleaned.

No average rating and no number of ratings, which 2023's metadata has: they know the test part.
"""

import re
from collections.abc import Set
from typing import Any

import polars as pl

from msmrec.columns import BRAND, DESCRIPTION, FEATURES, GENRES, RAW_ITEM_ID, TITLE, YEAR
from msmrec.data.plain_text import plain
from msmrec.data.sources.border import Border
from msmrec.data.sources.json_lines import blocks, parse

_ID = re.compile(rb"""['"](parent_asin|asin)['"]: ?u?['"]([^'"]+)['"]""")
_SCRIPT = re.compile(r"getTime\(\)|^\s*(var |function\b|\$\(|if \()")
_YEAR = re.compile(r"\b(?:19|20)\d\d\b")
_LISTS = (GENRES, FEATURES, "actors", "directors")
_NO_NAME = ("", "unknown", "n/a", "none", "null")
_LONG = 60  # characters; a longer category is a sentence that got there by mistake


def read_items(border: Border, wanted: Set[str]) -> pl.DataFrame:
    """Reads metadata, one JSON object or Python dict a line; of an item that comes twice, the first.

    Args:
        border: stands at the file and counts. wanted: ids of the items to keep; the others' lines are not parsed.

    Returns:
        raw_item_id, title, year, genres (its categories) and those of brand, description, features, actors, directors,
        studio and released (a year) that any item has; missing ones are null.
    """
    rows: dict[str, dict[str, Any]] = {}
    number = 0
    for block in blocks(border.path):
        for line in block.splitlines():
            number += 1
            ids: dict[bytes, bytes] = dict(_ID.findall(line))
            found = (ids.get(b"parent_asin") or ids.get(b"asin", b"")).decode("utf-8", "replace")
            if (found and found not in wanted) or found in rows or not line.strip():
                continue
            record = parse(line)
            item = None if record is None else record.get("parent_asin", record.get("asin"))
            if record is None:
                border.refuse("neither a JSON object nor a Python dict", [number])
            elif not item or not isinstance(item, str):
                border.refuse("no asin", [number])
            elif item in wanted and item not in rows:
                rows[item] = _item(record)
                if rows[item][TITLE] is None:
                    border.note("no title", [number])
    border.close(number)
    names = [TITLE, YEAR, GENRES, BRAND, DESCRIPTION, FEATURES, "actors", "directors", "studio", "released"]
    schema = {name: pl.List(pl.String) if name in _LISTS else pl.String() for name in names} | {YEAR: pl.Int32()}
    frame = pl.DataFrame(list(rows.values()), schema=schema).with_columns(pl.Series(RAW_ITEM_ID, list(rows), pl.String))
    always = (RAW_ITEM_ID, TITLE, YEAR, GENRES)
    return frame.select(always[0], *(n for n in names if n in always or frame[n].null_count() < len(frame)))


def _item(record: dict[str, Any]) -> dict[str, Any]:
    title = _name(record.get("title"))
    in_title = re.search(r"\(((?:19|20)\d\d)\)", title or "")
    released = _YEAR.search(str(record.get("release_date") or record.get("publication_date") or ""))
    return {
        TITLE: title,
        YEAR: int(in_title.group(1)) if in_title else None,  # of the work; the disc's own is below
        GENRES: _categories(record),
        BRAND: _name(record.get("brand") or record.get("store")),
        DESCRIPTION: " ".join(_texts(record.get("description"))) or None,
        FEATURES: _texts(record.get("feature") or record.get("features")) or None,
        "actors": _names(record.get("actors")),
        "directors": _names(record.get("directors")),
        "studio": _name(record.get("studio")),
        "released": released.group() if released else None,
    }


def _name(value: Any) -> str | None:
    """A short text; None where it is missing, or a page's script that was taken for one."""
    if not isinstance(value, str) or _SCRIPT.search(value):
        return None
    text = plain(value)
    return None if text.lower() in _NO_NAME else text


def _texts(value: Any) -> list[str]:
    """The texts of a string or of a list, however deep, in which there may be other things."""
    if isinstance(value, str):
        name = _name(value)
        return [name] if name else []
    return [text for part in value for text in _texts(part)] if isinstance(value, list) else []


def _names(value: Any) -> list[str] | None:
    """Names from a list, or from a string '[A B, C D]'."""
    if isinstance(value, str):
        value = value.strip().strip("[]").split(", ")
    return list(dict.fromkeys(_texts(value))) or None


def _categories(record: dict[str, Any]) -> list[str]:
    """Names of the categories without the root, which all items of a file share, and without scraps of pages."""
    paths = record.get("categories") or record.get("category") or record.get("genre") or []
    if isinstance(paths, str):
        paths = [[paths]]
    elif paths and not isinstance(paths[0], list):
        paths = [paths]
    found = [name for path in paths for name in (path[1:] if len(path) > 1 else path)]
    return [name for name in dict.fromkeys(_texts(found)) if len(name) <= _LONG]
