"""What the gate of a run of MSMRec does, to RUN/analysis/*.parquet.

Its weights by user, item and position, groups of users, drift, removal of modalities, and maps. Other arguments go to
the run's config, such as --data.root DIR.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from msmrec.analysis.analyse import analyse
from msmrec.analysis.maps import METHODS
from msmrec.analysis.summary import found, summary
from msmrec.artifacts import InputError
from msmrec.data.sources.simulated import Simulated
from msmrec.finished_run import open_run


def main(args: Sequence[str]) -> None:
    """Writes the tables and prints the main ones."""
    parser = argparse.ArgumentParser(prog="msmrec analyse", description=__doc__, allow_abbrev=False)
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
    made = analyse(run, given.popular_above, methods, given.map_items, given.neighbours, given.resamples, given.seed)
    print(summary(made))
    if isinstance(run.data.source, Simulated):
        print("", found(made, run.data.source.truth(run.data.root)), sep="\n")
    print(f"\n{given.run / 'analysis'}")
