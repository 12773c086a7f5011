"""JSON Lines files of any size, gzipped or not, block by block; loose lines (Python literals) and broken ones too.

A block goes through polars' parser, which is exact and takes a quarter of the time of unpacking. Where it stops at a
line, the block is halved until the line is found, so a few bad lines cost little. A file of Python literals is read by
regular expressions, and by Python itself where a field's name occurs more than once in a line.
"""

import ast
import gzip
import io
import json
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import polars as pl

from msmrec.artifacts import InputError
from msmrec.columns import LINE
from msmrec.data.sources.border import Border

BLOCK = 1 << 24  # bytes in memory at once, beside what was read from them
_FEW = 64  # lines that are parsed one by one


def blocks(path: Path, size: int = BLOCK) -> Iterator[bytes]:
    """Whole lines of a file, about `size` bytes at a time.

    Raises:
        InputError: the file is cut off or no gzip.
    """
    with cast(BinaryIO, gzip.open(path) if path.suffix == ".gz" else path.open("rb")) as file:
        rest = b""
        while True:
            try:
                block = file.read(size)
            except (EOFError, OSError, zlib.error) as error:
                raise InputError(f"{path}: cannot be unpacked ({error}); fetch it again") from None
            if not block:
                break
            rest += block
            end = rest.rfind(b"\n") + 1
            if end:
                yield rest[:end]
                rest = rest[end:]
        if rest:
            yield rest


def read_fields(path: Path, names: Sequence[str], border: Border) -> Iterator[pl.DataFrame]:
    """Some top-level fields of each line, as strings, null where a line lacks one; and `line`.

    Args:
        path: a file of JSON objects or Python dicts, one a line. names: the fields.
        border: counts the lines that are neither.
    """
    first = 1
    for block in blocks(path):
        lines = block.count(b"\n") + (not block.endswith(b"\n"))
        yield from _fields(block, list(names), first, lines, border)
        first += lines


def _fields(block: bytes, names: list[str], first: int, lines: int, border: Border) -> Iterator[pl.DataFrame]:
    if block.lstrip()[:2] in (b"{'", b"{u") and lines > _FEW:
        yield _loose(block, names, first, border)
        return
    try:
        frame = pl.read_ndjson(io.BytesIO(block), schema={name: pl.String() for name in names})
        if len(frame) == lines:
            yield frame.with_columns(pl.int_range(first, first + lines, dtype=pl.Int64).alias(LINE))
            return
    except pl.exceptions.PolarsError:
        pass
    if lines <= _FEW:
        yield _one_by_one(enumerate(block.splitlines(), first), names, border)
        return
    middle = block.find(b"\n", len(block) // 2) + 1
    if middle in (0, len(block)):  # one huge last line
        middle = block.rfind(b"\n", 0, len(block) - 1) + 1
    above = block.count(b"\n", 0, middle)
    yield from _fields(block[:middle], names, first, above, border)
    yield from _fields(block[middle:], names, first + above, lines - above, border)


def _loose(block: bytes, names: list[str], first: int, border: Border) -> pl.DataFrame:
    """Fields of lines that are Python literals."""
    lines = pl.DataFrame({"text": block.decode("utf-8", "replace").rstrip("\n").split("\n")})
    lines = lines.with_row_index(LINE, first).with_columns(pl.col(LINE).cast(pl.Int64))
    text, once, values = pl.col("text"), [], []
    for name in names:
        key = rf"""[{{,] ?u?['"]{name}['"]: ?"""
        value = pl.coalesce(text.str.extract(key + r"u?'([^'\\]*)'[,}]"), text.str.extract(key + r"([-+.0-9eE]+)[,}]"))
        # A name that occurs twice may stand inside a text. That, escapes and double quotes are left to Python.
        once.append((text.str.count_matches(rf"""['"]{name}['"]:""") == 1) & value.is_not_null())
        values.append(value.alias(name))
    sure = lines.select(LINE, "text", *values, sure=pl.all_horizontal(once) & text.str.ends_with("}"))
    others = sure.filter(~pl.col("sure")).select(LINE, "text")
    slow = _one_by_one(((n, text.encode()) for n, text in others.iter_rows()), names, border)
    return pl.concat([sure.filter("sure").select(*names, LINE), slow]).sort(LINE)


def _one_by_one(lines: Any, names: list[str], border: Border) -> pl.DataFrame:
    rows: list[list[Any]] = []
    for number, line in lines:
        if not line.strip():
            continue
        record = parse(line)
        if record is None:
            border.refuse("neither a JSON object nor a Python dict", [number])
        else:
            found = [record.get(name) for name in names]
            rows.append([*(None if value is None else str(value) for value in found), number])
    return pl.DataFrame(rows, schema={**{name: pl.String() for name in names}, LINE: pl.Int64()}, orient="row")


def parse(line: bytes) -> dict[str, Any] | None:
    """One line as a dict, whether it is JSON or a Python literal; None if it is neither."""
    try:
        text = line.decode("utf-8", "replace").strip()
        try:
            record = json.loads(text)
        except json.JSONDecodeError:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)  # unknown escapes
                record = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    return record if isinstance(record, dict) else None
