"""A page on this machine alone: a user's history, recommendations and why.

Other arguments go to the run's config, such as --data.root DIR.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from msmrec.finished_run import open_run
from msmrec.serving.explore import serve


def main(args: Sequence[str]) -> None:
    """Serves the page until it is interrupted."""
    parser = argparse.ArgumentParser(prog="msmrec explore", description=__doc__, allow_abbrev=False)
    parser.add_argument("--run", required=True, type=Path, help="run folder of a ranking model")
    parser.add_argument("--click", type=Path, help="run folder of a LlamaCTR: its prompt and answer for an item")
    parser.add_argument("--posters", default="posters/ml-1m", help="folder of pictures named by raw item id, under the"
                        " data root or here (default: posters/ml-1m)")  # fmt: skip
    parser.add_argument("--host", default="127.0.0.1", help="address to serve on (default: 127.0.0.1, this machine)")
    parser.add_argument("--port", type=int, default=7860, help="(default: 7860)")
    given, overrides = parser.parse_known_args(args)
    serve(lambda folder: open_run(folder, overrides), given.run, given.click, given.posters, given.host, given.port)
