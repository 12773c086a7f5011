"""What people say of modality texts: a blind sheet to fill in, its key, and how far raters agree (MSMRec, 4.3 and 7.3).

The sheet names no generator. A rater fills the columns of SCALES with whole numbers from 1 to 5, or leaves them empty.
Filled sheets come back as one file a rater (its name is the rater's), or as one file with a column `rater`.
"""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from msmrec.artifacts import InputError, atomic_file
from msmrec.columns import DOC_ID, ITEM_ID, MODALITY, TEXT, TITLE

SCALES = ("factual", "useful")
"""What is rated: whether the evidence bears the text out, and whether it tells something about the modality."""

ROW_ID, RATER, GENERATOR = "row_id", "rater", "generator"
_LOWEST, _HIGHEST = 1, 5
_MAX_EVIDENCE = 8_000  # characters in a cell: spreadsheets cut cells at 32,767


def blind_sheet(
    tables: Mapping[str, pl.DataFrame], items: pl.DataFrame, fields: pl.DataFrame, count: int = 50, seed: int = 0
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Texts of several generators for people to rate, in an order that tells nothing.

    Args:
        tables: texts (item_id, modality, text) by generator.
        items: item_id, title.
        fields: item_id, doc_id, field, value: the evidence to show (`Evidence.fields`).
        count: how many pairs of item and modality; drawn from those that every generator has a text for.
        seed: of the draw and of the order.

    Returns:
        The sheet (row_id, title, modality, text, evidence, then the empty SCALES) and its key (row_id, generator,
        item_id, modality), each with count x generators rows. The same arguments give the same sheet.

    Raises:
        InputError: fewer than `count` pairs have a text from every generator.
    """
    texts = [table.select(ITEM_ID, MODALITY, TEXT, pl.lit(name).alias(GENERATOR)) for name, table in tables.items()]
    rows = pl.concat(texts).filter(pl.col(TEXT).fill_null("").str.contains(r"\S"))
    pairs = rows.group_by(ITEM_ID, MODALITY).len().filter(pl.col("len") == len(tables)).sort(ITEM_ID, MODALITY)
    if count < 1 or len(pairs) < count:
        raise InputError(f"a sheet of {count} items and modalities: {len(pairs)} have a text from every generator")
    rng = np.random.default_rng(seed)
    pairs = pairs[np.sort(rng.choice(len(pairs), count, replace=False))]
    rows = rows.join(pairs, on=[ITEM_ID, MODALITY], how="semi").sort(ITEM_ID, MODALITY, GENERATOR)
    rows = rows[rng.permutation(len(rows))].with_row_index(ROW_ID, offset=1)
    rows = rows.with_columns(pl.format("r{}", pl.col(ROW_ID).cast(pl.String).str.zfill(4)).alias(ROW_ID))
    shown = fields.filter(pl.col(DOC_ID) != "item").group_by(ITEM_ID, maintain_order=True).agg(
        evidence=pl.format("{}: {}", "field", "value").unique(maintain_order=True).str.join("\n")
    )  # fmt: skip
    long = pl.col("evidence").str.len_chars() > _MAX_EVIDENCE
    cut = pl.when(long).then(pl.col("evidence").str.head(_MAX_EVIDENCE) + " […]").otherwise("evidence")
    sheet = rows.join(shown.with_columns(evidence=cut), on=ITEM_ID, how="left", maintain_order="left")
    sheet = sheet.join(items.select(ITEM_ID, TITLE), on=ITEM_ID, how="left", maintain_order="left")
    empty = [pl.lit(None, pl.String).alias(scale) for scale in SCALES]
    sheet = sheet.select(ROW_ID, TITLE, MODALITY, TEXT, pl.col("evidence").fill_null(""), *empty)
    return sheet, rows.select(ROW_ID, GENERATOR, ITEM_ID, MODALITY)


def write_sheet(path: Path, sheet: pl.DataFrame, key: pl.DataFrame) -> Path:
    """Write the sheet, and the key beside it as NAME.key.csv, which raters must not see; returns the key's path."""
    key_path = path.with_suffix(".key.csv")
    for table, target in ((sheet, path), (key, key_path)):
        with atomic_file(target) as temporary:
            table.write_csv(temporary, include_bom=True)  # spreadsheets take a file without one for a local encoding
    return key_path


def read_key(path: Path) -> pl.DataFrame:
    """Read a key: row_id, generator (strings)."""
    rows = _read(path, [ROW_ID, GENERATOR])
    return pl.DataFrame([(row[ROW_ID], row[GENERATOR]) for _, row in rows], [ROW_ID, GENERATOR], orient="row")


def read_ratings(paths: Sequence[Path], key: pl.DataFrame) -> pl.DataFrame:
    """Read filled sheets.

    Args:
        paths: CSV files, separated by commas or semicolons.
        key: of the sheet they were filled from, as `read_key` returns it.

    Returns:
        row_id, rater, generator and the SCALES (Int64, null where left empty); rows without any rating are left out.

    Raises:
        InputError: a column is missing, a row id is not in the key, a rating is no whole number from 1 to 5, a rater
            rates a row twice, or nobody rated anything; the message names file and line.
    """
    generators = dict(key.select(ROW_ID, GENERATOR).iter_rows())
    seen: dict[tuple[str, str], str] = {}
    ratings = []
    for path in paths:
        for line, row in _read(path, [ROW_ID, *SCALES]):
            where, row_id, rater = f"{path}:{line}", row[ROW_ID], row.get(RATER, path.stem)
            if row_id not in generators:
                raise InputError(f"{where}: row id {row_id!r} is not in the key; give the sheet's own key")
            if not rater:
                raise InputError(f"{where}: no rater; fill the column {RATER!r} or take it out")
            values = [_rating(row[scale], scale, where) for scale in SCALES]
            if (row_id, rater) in seen:
                raise InputError(f"{where}: {rater} has rated {row_id} at {seen[row_id, rater]} already; keep one")
            seen[row_id, rater] = where
            if any(value is not None for value in values):
                ratings.append((row_id, rater, generators[row_id], *values))
    if not ratings:
        raise InputError(f"{', '.join(map(str, paths))}: no row is rated; fill {' and '.join(SCALES)} with 1 to 5")
    types = {ROW_ID: pl.String, RATER: pl.String, GENERATOR: pl.String, **dict.fromkeys(SCALES, pl.Int64)}
    return pl.DataFrame(ratings, schema=types, orient="row")


def agreement(ratings: pl.DataFrame) -> pl.DataFrame:
    """How far raters agree.

    Args:
        ratings: as `read_ratings` returns them.

    Returns:
        scale; alpha: Krippendorff's alpha for ordinal ratings, 1 for full agreement and 0 for chance, null where it is
        not defined (nothing is rated by two raters, or all ratings are the same); raters; shared: rows rated by two
        or more.
    """
    rows = []
    for scale in SCALES:
        rated = ratings.drop_nulls(scale)
        table = rated.pivot(RATER, index=ROW_ID, values=scale).drop(ROW_ID)
        values = table.cast(pl.Float64).fill_null(np.nan).to_numpy().T  # (raters, rows)
        shared = int(((~np.isnan(values)).sum(0) >= 2).sum()) if len(rated) else 0
        rows.append((scale, krippendorff_alpha(values) if shared else None, rated[RATER].n_unique(), shared))
    types = {"scale": pl.String, "alpha": pl.Float64, "raters": pl.Int64, "shared": pl.Int64}
    return pl.DataFrame(rows, schema=types, orient="row")


def krippendorff_alpha(values: np.ndarray) -> float | None:
    """Ordinal alpha of (raters, units) ratings, NaN where missing; None where the shared ratings are all the same."""
    import krippendorff

    shared = values[:, (~np.isnan(values)).sum(0) >= 2]
    if len(np.unique(shared[~np.isnan(shared)])) < 2:
        return None
    return float(krippendorff.alpha(reliability_data=shared, level_of_measurement="ordinal"))


def mean_ratings(ratings: pl.DataFrame) -> pl.DataFrame:
    """Each generator's mean ratings: generator, raters, ratings (rows rated), then the SCALES' means."""
    means = ratings.group_by(GENERATOR).agg(
        pl.col(RATER).n_unique().alias("raters"), pl.len().alias("ratings"), pl.col(*SCALES).mean()
    )
    return means.sort(GENERATOR)


def _read(path: Path, needed: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """(line, row) of a CSV file, values stripped; the line is where the row begins, as cells may hold line breaks."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a sheet that was filled in, or its key")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise InputError(f"{path}:{line}: not UTF-8; save the sheet as 'CSV UTF-8'") from None
    header = text.split("\n", 1)[0]
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    separator = ";" if header.count(";") > header.count(",") else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    names: list[str] = []
    rows = []
    begin = 1
    while True:
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            break
        except csv.Error as error:
            raise InputError(f"{path}:{begin}: not a row of a CSV file ({error}); mend the row") from None
        if not names:
            names = cells
            if missing := [name for name in needed if name not in names]:
                raise InputError(f"{path}:{begin}: no column {missing[0]!r}; keep the sheet's columns as they were")
        elif any(cells):
            if len(cells) != len(names):
                raise InputError(f"{path}:{begin}: {len(cells)} cells under {len(names)} columns; mend the row")
            rows.append((begin, dict(zip(names, cells, strict=True))))
        begin = reader.line_num + 1
    if not names:
        raise InputError(f"{path}:1: the file is empty; give a sheet that was filled in, or its key")
    return rows


def _rating(cell: str, scale: str, where: str) -> int | None:
    """A rating; spreadsheets may write 4 as '4.0' or '4,0'."""
    if not cell:
        return None
    if not (found := re.fullmatch(rf"([{_LOWEST}-{_HIGHEST}])(?:[.,]0*)?", cell)):
        raise InputError(f"{where}: {scale} {cell!r}; ratings are whole numbers from {_LOWEST} to {_HIGHEST}")
    return int(found[1])
