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
    blocks: list[Block] = []
    if len(found.map_scores):
        columns = [c for c in found.map_scores.columns if c not in (MODALITY, "stage")]
        rows = [
            [m, s, *(number(v, 3) if isinstance(v, float) else number(v) for v in rest)]
            for m, s, *rest in found.map_scores.select(MODALITY, "stage", *columns).iter_rows()
        ]
        blocks.append(
            Table(
                "How far films of one genre lie together, in the texts' vectors (before) and in the expert's (after)",
                ["modality", "vectors", *(c.replace("_", " ") for c in columns)],
                rows,
                frozenset(range(2, 2 + len(columns))),
            )
        )
    table = found.map_points
    if not len(table):
        return blocks
    genres = (
        table["genre"]
        .fill_null("none")
        .value_counts()
        .sort("count", "genre", descending=[True, False])["genre"]
        .to_list()
    )
    coloured = genres[:MAP_GENRES]
    table = table.with_columns(genre=pl.when(pl.col("genre").is_in(coloured)).then("genre").otherwise(pl.lit("other")))
    shared: dict[str, list[str]] = {}
    figures = []
    for stage in table["stage"].unique(maintain_order=True):
        choices: dict[str, dict[str, list[dict[str, object]]]] = {}
        for (modality, method), part in table.filter(pl.col("stage") == stage).group_by(
            MODALITY, "method", maintain_order=True
        ):
            part = part.sort(ITEM_ID)
            part = part.gather_every(-(-len(part) // MAP_POINTS))
            marks = []
            for k, genre in enumerate([*(g for g in ["other"] if g in part["genre"]), *coloured]):
                mine = part.filter(pl.col("genre") == genre)
                hovers = [f"{t}\n{genre}" for t in mine[TITLE]]
                name = next((n for n, texts in shared.items() if texts == hovers), f"t{len(shared)}")
                shared[name] = hovers
                series = -1 if genre == "other" else k - ("other" in part["genre"])
                marks.append(
                    points(
                        _scaled(mine["x"], part["x"]),
                        _scaled(mine["y"], part["y"]),
                        genre,
                        series,
                        f"#{name}",
                        5,
                        0.45 if series < 0 else 0.85,
                    )
                )
            choices.setdefault(str(modality), {})[{"tsne": "t-SNE", "umap": "UMAP"}.get(str(method), str(method))] = (
                marks
            )
        figures.append(
            Figure(
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
        )
    note = "A point a film, coloured by its rarest genre; axes have no unit, and only neighbourhoods mean something."
    return [*blocks, Prose(note), Row(figures, ("Modality", "Method"))]


def _scaled(values: pl.Series, whole: pl.Series) -> list[int]:
    """Coordinates as whole numbers from 0 to 1,000: they have no unit, and are short to write."""
    low, high = float(whole.to_numpy().min()), float(whole.to_numpy().max())
    return ((values.cast(pl.Float64) - low) / max(high - low, 1e-9) * 1000).round().cast(pl.Int32).to_list()
