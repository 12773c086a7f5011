"""How far the texts of one or more configs rest on what is known about the items.

Other arguments go to every config, as for describe.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from msmrec.arguments import config_words
from msmrec.artifacts import InputError, atomic_file
from msmrec.columns import DOC_ID, ITEM_ID, MODALITY
from msmrec.markdown import frame_markdown
from msmrec.text.faithfulness import DIGITS, Evidence, compare_faithfulness, faithfulness
from msmrec.text.raters import blind_sheet, write_sheet
from msmrec.verbs.describe import texts_of


def main(args: Sequence[str]) -> None:
    """Prints the table of the configs' texts, and a judge's grades; writes scores and a sheet for people."""
    parser = argparse.ArgumentParser(prog="msmrec faithfulness", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "config", nargs="+", help="config whose model reads texts, such as msmrec_ml1m or msmrec_ml1m+text/gpt4o_mini"
    )
    parser.add_argument("--out", type=Path, help="Parquet file to write: a row a config, item and modality")
    parser.add_argument("--sheet", type=Path, help="CSV file to write: texts of every config for people to rate")
    parser.add_argument("--sheet_rows", type=int, default=50, help="items and modalities in the sheet (default: 50)")
    parser.add_argument("--sheet_seed", type=int, default=0, help="seed of the sheet's draw and order (default: 0)")
    parser.add_argument("--judge", help="model on the server (OPENAI_BASE_URL, OPENAI_API_KEY) that grades texts, 0-2")
    parser.add_argument("--judge_items", type=int, default=200, help="items that it grades (default: 200)")
    given, overrides = parser.parse_known_args(args)
    tables: dict[str, pl.DataFrame] = {}
    documents, items = [], {}
    for config in dict.fromkeys(given.config):
        data, text = texts_of([*config_words(config), *overrides])
        tables[config] = text.texts(data.dataset, data.root, data.cache)
        documents.append(text.documents(data.dataset, data.root, data.cache))
        items[data.dataset.info["fingerprint"]] = data.dataset.items
        if len(items) > 1:
            raise InputError(f"{config} is on another dataset than the configs before it; compare texts of one dataset")
    (of_all,) = items.values()
    evidence = Evidence.of(of_all, pl.concat(documents, how="diagonal"))
    print(frame_markdown(compare_faithfulness(tables, evidence), DIGITS))
    if given.judge:
        some = of_all.sample(min(given.judge_items, len(of_all)), seed=given.sheet_seed)
        known = pl.concat(documents, how="diagonal").unique([ITEM_ID, DOC_ID], maintain_order=True)
        for config, table in tables.items():
            mine = table.filter(pl.col(ITEM_ID).is_in(some[ITEM_ID].implode()))
            print(f"\n{given.judge} on {config}: 0 not supported, 1 in part, 2 in full")
            print(frame_markdown(_judged(given.judge, mine, of_all, known, data.cache / "answers.sqlite")))
    if given.out:
        scores = [faithfulness(t, evidence).insert_column(0, pl.lit(c).alias("config")) for c, t in tables.items()]
        with atomic_file(given.out) as path:
            pl.concat(scores).write_parquet(path)
    if given.sheet:
        sheet, key = blind_sheet(tables, of_all, evidence.fields, given.sheet_rows, given.sheet_seed)
        print(f"{given.sheet}: {len(sheet)} texts to rate; {write_sheet(given.sheet, sheet, key)}: whose they are")


def _judged(model: str, texts: pl.DataFrame, items: pl.DataFrame, known: pl.DataFrame, answers: Path) -> pl.DataFrame:
    """A modality's mean grade a row."""
    from msmrec.llm.server import OpenAIServer  # the client is an extra
    from msmrec.text.judge import judge

    return (
        judge(texts, items, known, OpenAIServer(model), answers)
        .group_by(MODALITY, maintain_order=True)
        .agg(texts=pl.len(), judged=pl.col("judged").mean(), not_judged=pl.col("judged").null_count())
    )
