"""The sections on prompts: what retrieval chose before and after training, and what the model was asked and said."""

import re
from pathlib import Path

import numpy as np
import polars as pl

from msmrec.columns import ITEM_ID, RATING, TITLE, USER_ID
from msmrec.report.figures import axis, line, number, shorten
from msmrec.report.page import Block, Code, Figure, Group, Missing, Prose, Row, Table
from msmrec.report.run_files import RunFiles

SAMPLES = 6


def _builds(run: RunFiles) -> dict[int, Path]:
    """Epoch -> file of the prompts built before it."""
    found = {
        int(m[1]): p for p in (run.folder / "prompts").glob("epoch=*.parquet") if (m := re.search(r"=(\d+)", p.stem))
    }
    if not found:
        raise Missing("The run has no prompts/epoch=N.parquet: its model reads no prompts with retrieved histories.")
    return dict(sorted(found.items()))


def retrieval(run: RunFiles) -> list[Block]:
    """How retrieved histories changed from the first build to the last."""
    builds = _builds(run)
    blocks = [*_at_last_build(run), *_over_builds(run), _by_build(builds)]
    first, last = min(builds), max(builds)
    if first == last:
        return [*blocks, Prose("Histories were built once, before the first epoch: there is no after to compare with.")]
    before, after = pl.read_parquet(builds[first]), pl.read_parquet(builds[last])
    both = before.join(after.select("row", after="history"), on="row").rename({"history": "before"})
    if not len(both):
        return [*blocks, Prose(f"Epochs {first} and {last} trained on different samples: no history to compare.")]
    return [*blocks, *_before_and_after(run, both, first, last)]


def _at_last_build(run: RunFiles) -> list[Block]:
    """What the callback measured of the last build."""
    logged = run.record["protocol"].get("retrieval") or {}
    rows = []
    for name, value in logged.items():
        short, about = name.removeprefix("retrieval/"), ""
        if short == "hit":
            about = "share of samples that have, among the target's nearest items of the catalogue, one the user rated"
        elif "overlap" in short:
            about = "share of a history that the build before had chosen too"
        rows.append([short, number(float(value)), about])
    return [Table("Retrieval at the last build", ["", "", "what it is"], rows, frozenset({1}))] if rows else []


def _over_builds(run: RunFiles) -> list[Block]:
    """The same over all builds; without it where nothing was logged, which the section on curves says."""
    try:
        curves = run.curves
    except Missing:
        return []
    figures = []
    for name in (n for n in curves.columns if n.startswith("retrieval/")):
        at = curves.select("step", name).drop_nulls()
        if len(at) > 1:
            rows = [[number(s), number(v)] for s, v in at.iter_rows()]
            marks = [line(at["step"].to_list(), at[name].to_list(), "")]
            figures.append(
                Figure(
                    name,
                    marks,
                    axis("optimiser step"),
                    axis(name.removeprefix("retrieval/"), range=[0, 1.05]),
                    f"{name} over builds",
                    Table(name, ["step", name], rows, frozenset({0, 1})),
                    height=240,
                )
            )
    return [Row(figures)] if figures else []


def _before_and_after(run: RunFiles, both: pl.DataFrame, first: int, last: int) -> list[Block]:
    """How much of the samples' histories stayed, and those that changed most.

    Args:
        both: row, user_id, item_id, and the histories before and after, of samples that both epochs trained on.
    """
    old, new = both["before"].to_numpy(), both["after"].to_numpy()
    kept = ((new[:, :, None] == old[:, None, :]) & (new[:, :, None] >= 0)).any(2).sum(1)
    share = kept / np.maximum((new >= 0).sum(1), 1)
    blocks: list[Block] = [
        Prose(
            f"Of the {len(both):,} samples that epochs {first} and {last} both trained on, {share.mean():.1%} of the"
            f" retrieved ratings are the same; {(share == 1).mean():.1%} of the samples have the same history."
            + (" Nothing that retrieval reads is trained in this run, so nothing moves." if (share == 1).all() else "")
        )
    ]
    title = _titles(run)
    item, rating = run.dataset.item_id, run.dataset.column(RATING)
    changed = np.argsort(share, kind="stable")[:3]
    for row in changed if (share < 1).any() else changed[:1]:
        target = both[ITEM_ID][int(row)]
        lines = [
            [
                str(place + 1),
                _rated(old[row, place], item, rating, title, new[row]),
                _rated(new[row, place], item, rating, title, old[row]),
            ]
            for place in range(old.shape[1])
        ]
        caption = f"Retrieved for {title[target]} (user {both[USER_ID][int(row)]}); * only on this side"
        blocks.append(Table(caption, ["", f"before epoch {first}", f"before epoch {last}"], lines))
    return blocks


def _by_build(builds: dict[int, Path]) -> Table:
    """What kind of ratings each build chose: rows of a user lie in time order, so a difference of rows is an age."""
    rows = []
    for epoch, path in builds.items():
        table = pl.read_parquet(path, columns=["row", "history"])
        chosen = table["history"].to_numpy()
        age = (table["row"].to_numpy()[:, None] - chosen)[chosen >= 0]
        k = chosen.shape[1]
        rows.append(
            [
                str(epoch),
                number(len(table)),
                number(float((chosen >= 0).sum(1).mean()), 1),
                number(float(np.median(age)), 0) if len(age) else "",
                f"{(age <= k).mean():.1%}" if len(age) else "",
            ]
        )
    columns = [
        "built before epoch",
        "samples",
        "ratings in a history",
        "median age (ratings back)",
        "among the K latest",
    ]
    return Table("The histories of each build", columns, rows, frozenset(range(5)))


def _rated(row: int, item: np.ndarray, rating: np.ndarray, title: list[str], other: np.ndarray) -> str:
    """A row of a history in words; with a star where the `other` history lacks it."""
    if row < 0:
        return ""
    return f"{shorten(title[item[row]])} ({rating[row]:g}){'' if row in other else ' *'}"


def _titles(run: RunFiles) -> list[str]:
    return ["", *run.dataset.items[TITLE].fill_null("").to_list()]


def sample_prompts(run: RunFiles) -> list[Block]:
    """Some prompts, what was true and what the model said."""
    tested = run.folder / "prompts" / "test.parquet"
    if not tested.is_file():
        return _training_prompts(run)
    prompts = pl.read_parquet(tested)
    said = run.table("predictions.parquet", "it was not made by a click model")
    both = prompts.join(said, on=[USER_ID, ITEM_ID], how="left", maintain_order="left")
    # From the surest and right to the surest and wrong.
    both = both.sort((pl.col("prob") - pl.col("label")).abs())
    chosen = both.gather(np.unique(np.linspace(0, len(both) - 1, SAMPLES).round().astype(int)))
    blocks: list[Block] = [
        Prose("Prompts of test samples, from the surest and right answer to the surest and wrong one.")
    ]
    shown = enumerate(chosen.iter_rows(named=True))
    return blocks + [
        _prompt(run, row["prompt"], row[ITEM_ID], bool(row["label"]), row["prob"], k == 0) for k, row in shown
    ]


def _training_prompts(run: RunFiles) -> list[Block]:
    _, path = list(_builds(run).items())[-1]
    prompts = pl.read_parquet(path).drop_nulls("prompt").head(200)
    if not len(prompts):
        raise Missing("The prompts of this run were not kept as text (RetrievalCallback.texts is 0).")
    above = float(run.run.config.get("data.label_above", 3.0))
    label = run.dataset.column(RATING)[prompts["row"].to_numpy()] > above
    chosen = [*np.flatnonzero(label)[: SAMPLES // 2], *np.flatnonzero(~label)[: SAMPLES // 2]]
    blocks: list[Block] = [
        Prose(
            "Prompts of training samples with the true answer. The model's probabilities are missing: this run kept no"
            " prompts of test samples (prompts/test.parquet), which a run trained now does."
        )
    ]
    return blocks + [
        _prompt(run, prompts["prompt"][int(k)], prompts[ITEM_ID][int(k)], bool(label[k]), None, place == 0)
        for place, k in enumerate(chosen)
    ]


def _prompt(run: RunFiles, text: str, item: int, liked: bool, prob: float | None, unfolded: bool) -> Group:
    title = f"{_titles(run)[item]}: {'liked' if liked else 'not liked'}"
    title += "" if prob is None else f", the model says {prob:.1%}"
    return Group(title, [Code("The prompt", text, open=unfolded)])
