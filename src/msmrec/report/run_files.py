"""A run folder as the sections of its report read it: whatever is there, and a sentence for what is not."""

import re
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import polars as pl

from msmrec.artifacts import InputError
from msmrec.columns import USER_ID
from msmrec.data.prepare import Dataset
from msmrec.evaluation.compare import Cell, compare
from msmrec.report.page import Missing
from msmrec.run_folder import dataset_of, find_runs, read_keys, read_run

RESAMPLES = 2_000  # of the test users


class RunFiles:
    """One run, finished or not.

    Args:
        folder: the run's.

    Raises:
        InputError: there is no run, or its record is broken.
    """

    def __init__(self, folder: Path) -> None:
        if (first := find_runs([folder])[0].folder) != folder:
            raise InputError(f"{folder} holds runs but is none; name one of them, such as {first}")
        self.folder, self.run = folder, read_run(folder)
        path = folder / "config.yaml"
        self.config: dict[str, Any] = read_keys(path) if path.is_file() else {}

    @property
    def record(self) -> dict[str, Any]:
        """metrics.json."""
        if self.run.metrics is None:
            raise Missing("The run has no metrics.json: its training did not end.")
        return self.run.metrics

    @property
    def name(self) -> str:
        """As the page is called."""
        return self.run.name

    @property
    def test(self) -> dict[str, float]:
        """The test metrics."""
        return dict(self.record["test"])

    @property
    def has_variants(self) -> bool:
        """Whether the run compares recommenders, as two stages do."""
        return any("/" in name for name in self.test)

    @cached_property
    def cells(self) -> dict[str, Cell]:
        """Every test metric of a run without variants, with its interval where there are results by user."""
        names = list(self.test)
        table = compare([self.folder], names, resamples=RESAMPLES)
        return {name: cell for name, cell in zip(names, table.rows[0].cells, strict=True) if cell}

    @cached_property
    def dataset(self) -> Dataset:
        """The prepared dataset."""
        if "data" not in self.config:
            raise Missing("The run has no config.yaml, which says where its dataset is.")
        try:
            return dataset_of(self.folder)
        except InputError as error:
            raise Missing(f"{error}.") from None

    @property
    def reads_texts(self) -> bool:
        """Whether the run's model describes items by texts."""
        return any(f"{key}.".startswith("model.init_args.text.") for key in self.run.config)

    def table(self, name: str, what: str) -> pl.DataFrame:
        """A Parquet file of the run; `what` ends the sentence "The run has no NAME: ...", should it be missing."""
        path = self.folder / name
        if not path.is_file():
            raise Missing(f"The run has no {name}: {what}.")
        return pl.read_parquet(path)

    @cached_property
    def per_user(self) -> pl.DataFrame:
        """per_user.parquet, ordered by user."""
        return self.table("per_user.parquet", "it was made by a model without results by user").sort(USER_ID)

    @cached_property
    def curves(self) -> pl.DataFrame:
        """What the CSV logger wrote while training, in the order of steps; of a resumed run all parts.

        A step that was done twice, because a run was killed after it was logged and before it was saved, counts as it
        was done last. Rows of the evaluation after training are left out.
        """
        folder = self.folder / "csv"
        number = {
            path: int(found[1]) for path in folder.glob("*.csv") if (found := re.fullmatch(r"metrics-(\d+)", path.stem))
        }
        files = [*sorted(number, key=number.__getitem__), *(p for p in [folder / "metrics.csv"] if p.is_file())]
        if not files:
            raise Missing(
                "The run has no csv/metrics.csv: its config turned the CSV logger off, or nothing was trained."
            )
        read = partial(pl.read_csv, infer_schema_length=None, null_values=["nan"])  # nan would make text of numbers
        parts = [read(path).with_columns(part=pl.lit(k)) for k, path in enumerate(files)]
        logged = pl.concat(parts, how="diagonal_relaxed")
        if tests := [name for name in logged.columns if name.startswith("test/")]:
            last = logged.filter(pl.any_horizontal(pl.col(tests).is_not_null()))["step"].min()
            logged = logged if last is None else logged.filter(pl.col("step") < last)
        begins = logged.group_by("part").agg(begin=pl.col("step").min())  # a part overwrites what came after its start
        for part, begin in begins.sort("part").iter_rows():
            logged = logged.filter((pl.col("part") >= part) | (pl.col("step") < begin))
        return logged.sort("part", "step", maintain_order=True).drop("part")
