"""python -m msmrec VERB: the steps before and beside a training.

    prepare   --config C   writes the dataset folder of a config and prints its counts
    describe  --config C   writes the modality texts of its items and prints their coverage; --dry-run prints what a
                           language model would be asked and what that would cost, --retry asks again where it failed
    embed     --config C   encodes those texts and prints the shape of the vectors
    compare   RUN [RUN ..] prints one table over runs and seeds, with intervals and tests; folders of runs count too;
                           --page FILE.html writes a page with slices, curves and cost beside it
    suite     NAME         prints a paper's table and trains what that needs first; --dry-run prints what would run and
                           how long that takes
    report    RUN [RUN ..] writes report.html into each run, with the sections that ask the model
    slices    RUN [RUN ..] prints the runs' test metrics by popularity of the target and activity of the user
    as_published RUN ..    prints click models' test metrics as RALLRec's published code would have scored them, too
    faithfulness C [C ..]  prints how far the texts of one or more configs rest on what is known about the items
    analyse   RUN          writes what the gate of a run of MSMRec does to RUN/analysis/ and prints the main tables
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
    from msmrec.arguments import CONFIGS
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
    parser.add_argument("--page", type=Path, help=".html file to write: table, plots, slices, training curves, cost")
    parser.add_argument("--x", help="number of the config to compare over, such as model.init_args.retriever.k")
    parser.add_argument(
        "--names", choices=["config", "folder"], default="config", help="what a row is called (default: config)"
    )
    parser.add_argument("--resamples", type=int, default=10_000, help="bootstrap resamples (default: 10000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the resampling (default: 0)")
    given = parser.parse_args(args)
    if given.resamples < 100:
        raise InputError(f"--resamples {given.resamples}: an interval needs at least 100")
    metrics = [name.strip() for name in given.metrics.split(",") if name.strip()]
    table = compared(given.run, metrics, given.baseline, given.x, given.resamples, given.seed, CONFIGS, given.names)
    for warning in table.warnings:
        print(f"msmrec: warning: {warning}", file=sys.stderr)
    if given.plot:
        plot(table, given.plot, given.x)
    if given.page:
        from msmrec.report.compare_page import write_comparison

        write_comparison(table, given.run, given.page, given.x)
    text = render(table, given.format) + "\n"
    if given.out:
        with atomic_file(given.out) as path:
            path.write_text(text)
    else:
        print(text, end="")


def suite(args: Sequence[str]) -> None:
    """Runs a suite and prints its tables; other arguments are overrides of all its lines."""
    from msmrec.suite import suite as run

    about = "A paper's table: runs the lines of configs/suites/NAME.txt that are not finished and prints `compare`."
    parser = argparse.ArgumentParser(prog="msmrec suite", description=about, allow_abbrev=False)
    parser.add_argument("name", help="of a suite, or path of a file such as slurm/ablations.txt")
    parser.add_argument("--dry-run", action="store_true", help="print what would run and how long it takes, and stop")
    parser.add_argument("--datasets", default="", help="such as ml-100k,ml-1m (default: all of the suite)")
    parser.add_argument("--rows", default="", help="names or patterns, such as 'sasrec*,kar*' (default: all)")
    parser.add_argument("--seeds", default="0", help="such as 0,1,2 (default: 0)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs (default: runs)")
    given, more = parser.parse_known_args(args)
    run(given.name, given.datasets, given.rows, given.seeds, given.runs, given.dry_run, more)


def report(args: Sequence[str]) -> None:
    """Writes report.html into runs; where a model cannot be opened, the page says why and does without."""
    from msmrec.cli import open_run
    from msmrec.report.run_page import NAME, asks_the_model, write_report

    about = f"Writes {NAME} into each run: everything that the run's files hold, the modality analysis where"
    about += (
        " `msmrec analyse` made one, the gate at work and the faithfulness of texts. Reads the run, its dataset in the"
    )
    about += " cache, its texts; changes nothing else. Other arguments override the config, such as --data.root DIR."
    parser = argparse.ArgumentParser(prog="msmrec report", description=about, allow_abbrev=False)
    parser.add_argument("run", nargs="+", type=Path, help="run folder")
    given, overrides = parser.parse_known_args(args)
    for run in given.run:
        opened, why = None, ""
        try:
            opened = open_run(run, overrides) if asks_the_model(run) else None
        except InputError as error:
            why = f"The model could not be asked: {error}."
        page = write_report(run, opened, why)
        print(run / NAME)
        for title, sentence in page.broken:
            print(f"msmrec: warning: {title}: {sentence}", file=sys.stderr)


def slices(args: Sequence[str]) -> None:
    """Prints the table; what `compare` would warn of goes to stderr."""
    from msmrec.evaluation.slices import compare_slices

    if not args:
        raise InputError("slices needs at least one run folder")
    table, warnings = compare_slices([Path(arg) for arg in args])
    for warning in warnings:
        print(f"msmrec: warning: {warning}", file=sys.stderr)
    print(table)


def as_published(args: Sequence[str]) -> None:
    """Prints the table of each run."""
    from msmrec.evaluation.as_published import table

    if not args:
        raise InputError("as_published needs at least one run folder of a click model")
    for run in args:
        print(run, table(Path(run)), sep="\n")


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


def analyse(args: Sequence[str]) -> None:
    """Writes RUN/analysis/*.parquet and prints the main tables."""
    from msmrec.analysis.analyse import analyse as analysed
    from msmrec.analysis.maps import METHODS
    from msmrec.analysis.summary import found, summary
    from msmrec.cli import open_run
    from msmrec.data.sources.simulated import Simulated

    about = "The gate's weights by user, item and position, groups of users, drift, removal of modalities and maps:"
    about += " reads a run of MSMRec and writes its analysis/*.parquet. Other arguments, such as --data.root, go to it."
    parser = argparse.ArgumentParser(prog="msmrec analyse", description=about, allow_abbrev=False)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument(
        "--popular_above",
        type=float,
        help="the paper's lambda: share of training interactions above which an item is popular (default: 2 / items)",
    )
    parser.add_argument("--maps", default="", help="tsne, umap or tsne,umap: pictures of the items, which take minutes")
    parser.add_argument("--map_items", type=int, default=600, help="items of a map, drawn at random (default: 600)")
    parser.add_argument("--neighbours", type=int, default=10, help="whose genres are compared (default: 10)")
    parser.add_argument("--resamples", type=int, default=10_000, help="bootstrap resamples (default: 10000)")
    parser.add_argument("--seed", type=int, default=0, help="of resampling and maps (default: 0)")
    given, overrides = parser.parse_known_args(args)
    methods = [name for name in given.maps.split(",") if name]
    if unknown := set(methods) - set(METHODS):
        raise InputError(f"--maps {unknown.pop()}: no such map; known: {', '.join(METHODS)}")
    for name, least in (("resamples", 100), ("map_items", 5), ("neighbours", 1)):
        if vars(given)[name] < least:
            raise InputError(f"--{name} {vars(given)[name]}: must be at least {least}")
    run = open_run(given.run, overrides)
    made = analysed(
        run, given.popular_above, methods, given.map_items, given.neighbours, given.resamples, given.seed
    )  # fmt: skip
    print(summary(made))
    if isinstance(run.data.source, Simulated):
        truth = pl.read_parquet(run.data.source.folder(run.data.root) / "truth.parquet")
        print("", found(made, truth), sep="\n")
    print(f"\n{given.run / 'analysis'}")


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

    functions = (
        prepare, describe, embed, compare, suite, report, slices, as_published, analyse, faithfulness, agreement,
        recommend, export, explore, demo,
    )  # fmt: skip
    verbs = {function.__name__: function for function in functions}
    if len(sys.argv) < 2 or sys.argv[1] not in verbs:
        print(__doc__)
        sys.exit(0 if sys.argv[1:] in ([], ["--help"], ["-h"]) else 2)
    guarded(lambda: verbs[sys.argv[1]](sys.argv[2:]))


if __name__ == "__main__":
    main()
