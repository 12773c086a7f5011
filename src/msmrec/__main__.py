"""python -m msmrec VERB: the steps before and beside a training.

    prepare   --config C   writes the dataset folder of a config and prints its counts
    describe  --config C   writes the modality texts of its items and prints their coverage; --dry-run prints what a
                           language model would be asked and what that would cost, --retry asks again where it failed
    embed     --config C   encodes those texts and prints the shape of the vectors
    compare   RUN [RUN ..] prints one table over runs and seeds, with intervals and tests; folders of runs count too
    slices    RUN [RUN ..] prints the runs' test metrics by popularity of the target and activity of the user
    faithfulness C [C ..]  prints how far the texts of one or more configs rest on what is known about the items
    agreement SHEET ..     prints how far people who filled in sheets of texts agree, and what they think of them
    recommend --run R      writes the best unseen items of users (--users FILE) or of new ones (--history FILE)
    export    --run R      writes a run's model as a folder that recommends without dataset and texts
    explore   --run R      opens a local page: a user's history, recommendations, and why
    demo                   trains SASRec and MSMRec on a generated dataset and shows what the gate learned

prepare, describe and embed take the same overrides as train.py and do only what is not done yet.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from msmrec.artifacts import InputError, atomic_file
from msmrec.columns import DOC_ID, ITEM_ID, MODALITY, TEXT

if TYPE_CHECKING:  # verbs import what they need, so that --help is quick
    from msmrec.data.datamodule import RecDataModule
    from msmrec.text.item_text import ItemText


def prepare(args: Sequence[str]) -> None:
    """Writes the dataset folder."""
    from msmrec.cli import build

    dataset = build([*args, "--trainer.logger", "false"], save=False).datamodule.dataset
    print(json.dumps(dataset.info, indent=2))
    print(dataset.folder)


def describe(args: Sequence[str]) -> None:
    """Writes the modality texts.

    --dry-run prints what would be asked and what it would cost, and stops; --retry asks again for the items that an
    earlier run described without the language model, because the server failed.
    """
    from msmrec.text.item_text import how_described

    flags = {"--dry-run", "--retry"} & set(args)
    data, text = _text_of([arg for arg in args if arg not in flags])
    if "--dry-run" in flags:
        print(text.plan(data.dataset, data.root, data.cache))
        return
    texts = text.texts(data.dataset, data.root, data.cache, retry="--retry" in flags)
    share = texts.group_by(MODALITY, maintain_order=True).agg(present=(pl.col(TEXT) != "").mean())
    for name, present in share.iter_rows():
        print(f"{name:12} {present:6.1%} of {data.num_items:,} items")
    for what, items in how_described(texts).iter_rows():
        print(f"{items:,} items: {what}")


def embed(args: Sequence[str]) -> None:
    """Encodes the modality texts."""
    data, text = _text_of(args)
    made = text.vectors(data.dataset, data.root, data.cache)
    print(f"{made.vectors.shape} vectors for {', '.join(made.names)}; {made.present[1:].mean():.1%} present")


def _text_of(args: Sequence[str]) -> "tuple[RecDataModule, ItemText]":
    from msmrec.cli import build

    cli = build([*args, "--trainer.logger", "false"], save=False)
    if not hasattr(cli.model, "text"):
        raise InputError(f"{type(cli.model).__name__} reads no texts; name a config whose model has `text`")
    return cli.datamodule, cli.model.text


def compare(args: Sequence[str]) -> None:
    """Prints one table over runs and seeds; what makes them less comparable goes to stderr, a line each."""
    from msmrec.cli import CONFIGS
    from msmrec.evaluation.compare import compare as compared
    from msmrec.evaluation.comparison_plot import plot
    from msmrec.evaluation.comparison_table import render

    about = "One table over runs and seeds: means, intervals over test users, paired tests. Reads metrics.json,"
    about += " config.yaml, per_user.parquet and predictions.parquet of each run and changes nothing in them."
    parser = argparse.ArgumentParser(prog="msmrec compare", description=about, allow_abbrev=False)
    parser.add_argument("run", nargs="+", type=Path, help="run folder, or a folder that holds runs")
    parser.add_argument("--metrics", default="", help="such as hit_rate@10,ndcg@10 (default: the models' headline)")
    parser.add_argument("--baseline", help="row that the others are tested against")
    parser.add_argument(
        "--format", choices=["markdown", "latex", "csv"], default="markdown", help="(default: markdown)"
    )
    parser.add_argument("--out", type=Path, help="file to write the table to, instead of printing it")
    parser.add_argument("--plot", type=Path, help=".png or .svg file to write: bars, or lines over --x")
    parser.add_argument("--x", help="number of the config to compare over, such as model.init_args.retriever.k")
    parser.add_argument("--resamples", type=int, default=10_000, help="bootstrap resamples (default: 10000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the resampling (default: 0)")
    given = parser.parse_args(args)
    if given.resamples < 100:
        raise InputError(f"--resamples {given.resamples}: an interval needs at least 100")
    metrics = [name.strip() for name in given.metrics.split(",") if name.strip()]
    table = compared(given.run, metrics, given.baseline, given.x, given.resamples, given.seed, CONFIGS)
    for warning in table.warnings:
        print(f"msmrec: warning: {warning}", file=sys.stderr)
    if given.plot:
        plot(table, given.plot, given.x)
    text = render(table, given.format) + "\n"
    if given.out:
        with atomic_file(given.out) as path:
            path.write_text(text)
    else:
        print(text, end="")


def slices(args: Sequence[str]) -> None:
    """Prints the table."""
    from msmrec.evaluation.slices import compare_slices

    if not args:
        raise InputError("slices needs at least one run folder")
    print(compare_slices([Path(arg) for arg in args]))


def faithfulness(args: Sequence[str]) -> None:
    """Prints the table of several configs' texts; other arguments go to each config, as for describe."""
    from msmrec.text.faithfulness import Evidence, compare_faithfulness, markdown
    from msmrec.text.faithfulness import faithfulness as scores_of
    from msmrec.text.raters import blind_sheet, write_sheet

    about = "How far texts rest on what is known about their items; other arguments go to every config."
    parser = argparse.ArgumentParser(prog="msmrec faithfulness", description=about, allow_abbrev=False)
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
        parts = [part if Path(part).suffix else f"{part}.yaml" for part in config.split("+")]
        data, text = _text_of([*(arg for part in parts for arg in ("--config", part)), *overrides])
        tables[config] = text.texts(data.dataset, data.root, data.cache)
        documents.append(text.documents(data.dataset, data.root, data.cache))
        items[data.dataset.info["fingerprint"]] = data.dataset.items
        if len(items) > 1:
            raise InputError(f"{config} is on another dataset than the configs before it; compare texts of one dataset")
    (of_all,) = items.values()
    evidence = Evidence.of(of_all, pl.concat(documents, how="diagonal"))
    print(markdown(compare_faithfulness(tables, evidence)))
    if given.judge:
        from msmrec.llm.server import OpenAIServer
        from msmrec.text.judge import judge

        some = of_all.sample(min(given.judge_items, len(of_all)), seed=given.sheet_seed)
        known = pl.concat(documents, how="diagonal").unique([ITEM_ID, DOC_ID], maintain_order=True)
        for config, table in tables.items():
            mine = table.filter(pl.col(ITEM_ID).is_in(some[ITEM_ID].implode()))
            grades = judge(mine, of_all, known, OpenAIServer(given.judge), data.cache / "answers.sqlite")
            mean = grades.group_by(MODALITY, maintain_order=True).agg(
                texts=pl.len(), judged=pl.col("judged").mean(), not_judged=pl.col("judged").null_count()
            )
            print(f"\n{given.judge} on {config}: 0 not supported, 1 in part, 2 in full", markdown(mean), sep="\n")
    if given.out:
        scores = [scores_of(t, evidence).insert_column(0, pl.lit(c).alias("config")) for c, t in tables.items()]
        with atomic_file(given.out) as path:
            pl.concat(scores).write_parquet(path)
    if given.sheet:
        sheet, key = blind_sheet(tables, of_all, evidence.fields, given.sheet_rows, given.sheet_seed)
        print(f"{given.sheet}: {len(sheet)} texts to rate; {write_sheet(given.sheet, sheet, key)}: whose they are")


def agreement(args: Sequence[str]) -> None:
    """Prints the raters' agreement and their mean ratings."""
    from msmrec.text.faithfulness import markdown
    from msmrec.text.raters import agreement as alphas
    from msmrec.text.raters import mean_ratings, read_key, read_ratings

    parser = argparse.ArgumentParser(prog="msmrec agreement", description="Krippendorff's alpha and mean ratings.")
    parser.add_argument("sheet", nargs="+", type=Path, help="filled sheet: one a rater, or with a column 'rater'")
    parser.add_argument("--key", required=True, type=Path, help="the sheet's key file, as faithfulness wrote it")
    given = parser.parse_args(args)
    ratings = read_ratings(given.sheet, read_key(given.key))
    print(markdown(alphas(ratings)), markdown(mean_ratings(ratings)), sep="\n\n")


def recommend(args: Sequence[str]) -> None:
    """Writes or prints the lists; what was left out goes to stderr, a line each."""
    from msmrec.columns import TEST, VAL
    from msmrec.serving.export import is_export, of_export
    from msmrec.serving.rank import of_run
    from msmrec.serving.recommend import checked, write_table
    from msmrec.serving.recommend import recommend as lists_of
    from msmrec.serving.requests import read_histories, read_users

    about = "The best items that users have not seen. Reads a finished run, or a folder that export wrote, and changes"
    about += " nothing in it. Other arguments go to the run's config, such as --data.root."
    parser = argparse.ArgumentParser(prog="msmrec recommend", description=about, allow_abbrev=False)
    parser.add_argument("--run", required=True, type=Path, help="run folder, or an exported one")
    whom = parser.add_mutually_exclusive_group(required=True)
    whom.add_argument("--users", type=Path, help="users of the dataset: a file with a column raw_user_id, or .txt")
    whom.add_argument(
        "--history", type=Path, help="new users: raw_user_id, raw_item_id and perhaps timestamp, a row each"
    )
    parser.add_argument("--k", type=int, default=10, help="items a user (default: 10)")
    parser.add_argument("--out", type=Path, help=".parquet, .csv or .jsonl file to write, instead of printing CSV")
    parser.add_argument("--split", choices=["val", "test"], help="rank as an evaluation of this part does, from the"
                        " history before it; by default the whole history is seen and read")  # fmt: skip
    parser.add_argument("--genre", action="append", default=[], help="items of this genre only; again for more of them")
    parser.add_argument("--year_from", type=int, help="items of this year and later only")
    parser.add_argument("--year_to", type=int, help="items of this year and earlier only")
    parser.add_argument(
        "--fallback", choices=["popular"], help="what users without a known item get (default: nothing)"
    )
    given, overrides = parser.parse_known_args(args)
    if given.out:
        checked(given.out)
    for file in filter(None, (given.users, given.history)):
        if not file.is_file():
            raise InputError(f"{file}: no such file")
    if exported := is_export(given.run):
        if given.users:
            raise InputError(f"{given.run} is an export, which knows no users: give what they have seen by --history")
        recommender = of_export(given.run)
    else:
        from msmrec.cli import open_run

        run = open_run(given.run, overrides)
        recommender = of_run(run)
    if given.history and given.split:
        raise InputError("--split is about the dataset's users: it goes with --users")
    if given.history or exported:
        requests = read_histories(given.history, recommender.items)
    else:
        before = {"val": VAL, "test": TEST}[given.split] if given.split else None
        requests = read_users(given.users, run.data.dataset, before)
    allowed = recommender.allowed(given.genre, given.year_from, given.year_to)
    table, notes = lists_of(recommender, requests, given.k, allowed, given.fallback == "popular")
    for note in notes:
        print(f"msmrec: {note}", file=sys.stderr)
    if given.out:
        write_table(table, given.out)
        print(f"{given.out}: {len(table):,} rows for {table['raw_user_id'].n_unique():,} users")
    else:
        print(table.write_csv(), end="")


def export(args: Sequence[str]) -> None:
    """Writes the folder and prints how it compares with the checkpoint."""
    from msmrec.cli import open_run
    from msmrec.ctr.head import LlamaCTR
    from msmrec.serving.export import export as exported
    from msmrec.serving.export_adapter import export_adapter

    about = "A finished run as a folder that works without it: a ranking model by torch.export (and ONNX), a language"
    about += " model's adapter, as it is or merged. Other arguments go to the run's config, such as --data.root."
    parser = argparse.ArgumentParser(prog="msmrec export", description=about, allow_abbrev=False)
    parser.add_argument("--run", required=True, type=Path, help="run folder")
    parser.add_argument("--out", required=True, type=Path, help="folder to write; must not be there yet")
    parser.add_argument("--onnx", action="store_true", help="write model.onnx too (pip install 'msmrec[onnx]')")
    parser.add_argument("--merge", action="store_true", help="LlamaCTR: add the adapter to the base model's weights")
    given, overrides = parser.parse_known_args(args)
    if given.out.exists():
        raise InputError(f"{given.out}: already there; remove it, or give another --out")
    run = open_run(given.run, overrides)
    if isinstance(run.model, LlamaCTR):
        if given.onnx:
            raise InputError("--onnx is for ranking models; LlamaCTR leaves an adapter, or with --merge a whole model")
        print(json.dumps(export_adapter(run, given.out, given.merge), indent=2))
    elif given.merge:
        raise InputError(f"--merge is for LlamaCTR; {type(run.model).__name__} has no adapter")
    else:
        print(json.dumps(exported(run, given.out, given.onnx)["checked"], indent=2))
    print(given.out)


def explore(args: Sequence[str]) -> None:
    """Serves the page until it is interrupted."""
    from msmrec.cli import open_run
    from msmrec.serving.explore import serve

    about = "A page on this machine alone: a user's history, recommendations and why. Other arguments go to the run's"
    about += " config, such as --data.root."
    parser = argparse.ArgumentParser(prog="msmrec explore", description=about, allow_abbrev=False)
    parser.add_argument("--run", required=True, type=Path, help="run folder of a ranking model")
    parser.add_argument("--click", type=Path, help="run folder of a LlamaCTR: its prompt and answer for an item")
    parser.add_argument("--posters", default="posters/ml-1m", help="folder of pictures named by raw item id, under the"
                        " data root or here (default: posters/ml-1m)")  # fmt: skip
    parser.add_argument("--host", default="127.0.0.1", help="address to serve on (default: 127.0.0.1, this machine)")
    parser.add_argument("--port", type=int, default=7860, help="(default: 7860)")
    given, overrides = parser.parse_known_args(args)
    serve(lambda folder: open_run(folder, overrides), given.run, given.click, given.posters, given.host, given.port)


def demo(args: Sequence[str]) -> None:
    """Trains both models on the generated dataset."""
    from msmrec.demo import run

    run(args)


def main() -> None:
    """Finds the verb."""
    from msmrec.cli import main as guarded

    verbs = {"prepare": prepare, "describe": describe, "embed": embed, "slices": slices, "demo": demo}
    verbs |= {"faithfulness": faithfulness, "agreement": agreement, "compare": compare}
    verbs |= {"recommend": recommend, "export": export, "explore": explore}
    if len(sys.argv) < 2 or sys.argv[1] not in verbs:
        print(__doc__)
        sys.exit(0 if sys.argv[1:] in ([], ["--help"], ["-h"]) else 2)
    guarded(lambda: verbs[sys.argv[1]](sys.argv[2:]))


if __name__ == "__main__":
    main()
