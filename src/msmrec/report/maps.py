"""Maps of the items by modality, before and after the expert, with the numbers that say how far genres lie together."""

import polars as pl

from msmrec.analysis.analyse import Analysis
from msmrec.columns import ITEM_ID, MODALITY, TITLE
from msmrec.report.figures import axis, number, points
from msmrec.report.page import Block, Figure, Prose, Row, Table

MAP_POINTS = 4_000  # of a map; more are thinned
MAP_GENRES = 7  # that have a colour of their own


def maps(found: Analysis) -> list[Block]:
    """The table of scores, and the pictures where they were made."""
    blocks: list[Block] = [_score_table(found.map_scores)] if len(found.map_scores) else []
    if not len(found.map_points):
        return blocks
    genres = found.map_points["genre"].fill_null("none").value_counts()
    genres = genres.sort("count", "genre", descending=[True, False])
    coloured = genres["genre"].to_list()[:MAP_GENRES]
    kept = pl.when(pl.col("genre").is_in(coloured)).then("genre").otherwise(pl.lit("other"))
    table = found.map_points.with_columns(genre=kept)
    stages = table.partition_by("stage", maintain_order=True)
    shared: dict[str, list[str]] = {}
    figures = [_map(stage, coloured, shared) for stage in stages]
    note = "A point a film, coloured by its rarest genre; axes have no unit, and only neighbourhoods mean something."
    return [*blocks, Prose(note), Row(figures, ("Modality", "Method"))]


def _score_table(scores: pl.DataFrame) -> Table:
    columns = [c for c in scores.columns if c not in (MODALITY, "stage")]
    rows = [
        [m, s, *(number(v, 3) if isinstance(v, float) else number(v) for v in rest)]
        for m, s, *rest in scores.select(MODALITY, "stage", *columns).iter_rows()
    ]
    return Table(
        "How far films of one genre lie together, in the texts' vectors (before) and in the expert's (after)",
        ["modality", "vectors", *(c.replace("_", " ") for c in columns)],
        rows,
        frozenset(range(2, 2 + len(columns))),
    )


def _map(table: pl.DataFrame, coloured: list[str], shared: dict[str, list[str]]) -> Figure:
    """The map of one stage, to be looked at by modality and method.

    Args:
        coloured: genres with a colour of their own. shared: texts of points by name, which maps of the same items have
            in common; new ones are added.
    """
    stage = table["stage"][0]
    choices: dict[str, dict[str, list[dict[str, object]]]] = {}
    for (modality, method), part in table.group_by(MODALITY, "method", maintain_order=True):
        part = part.sort(ITEM_ID)
        part = part.gather_every(-(-len(part) // MAP_POINTS))
        marks = []
        for k, genre in enumerate([*(g for g in ["other"] if g in part["genre"]), *coloured]):
            mine = part.filter(pl.col("genre") == genre)
            hovers = [f"{t}\n{genre}" for t in mine[TITLE]]
            name = next((n for n, texts in shared.items() if texts == hovers), f"t{len(shared)}")
            shared[name] = hovers
            series = -1 if genre == "other" else k - ("other" in part["genre"])
            x, y = (_scaled(mine[column], part[column]) for column in ("x", "y"))
            marks.append(points(x, y, genre, series, f"#{name}", 5, 0.45 if series < 0 else 0.85))
        choices.setdefault(str(modality), {})[{"tsne": "t-SNE", "umap": "UMAP"}.get(str(method), str(method))] = marks
    return Figure(
        f"{str(stage).capitalize()} the expert",
        [],
        axis("", hidden=True),
        axis("", hidden=True),
        f"Map of the vectors {stage} the expert, genres as colours; see the table above",
        None,
        height=400,
        choices=choices,
        shared=shared,
    )


def _scaled(values: pl.Series, whole: pl.Series) -> list[int]:
    """Coordinates as whole numbers from 0 to 1,000: they have no unit, and are short to write."""
    low, high = float(whole.to_numpy().min()), float(whole.to_numpy().max())
    return ((values.cast(pl.Float64) - low) / max(high - low, 1e-9) * 1000).round().cast(pl.Int32).to_list()
