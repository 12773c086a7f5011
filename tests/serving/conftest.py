"""Runs that the tests of recommending, exporting and exploring share."""

import json
from pathlib import Path

import pytest
from tests.tiny_configs import TINY_DATA, tiny_text

from msmrec.cli import train
from msmrec.finished_run import open_run
from msmrec.run_folder import OpenRun


@pytest.fixture(scope="session")
def runs(tiny_root: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, OpenRun]:
    """A short run of each ranking model; MSMRec's gate has learned enough to change a list."""
    folder = tmp_path_factory.mktemp("runs")
    args = [*TINY_DATA, "--data.root", str(tiny_root), "--data.cache", str(cache), "--data.tokens_per_batch=512"]
    text = f"--model.init_args.text={json.dumps(tiny_text(tiny_root))}"
    short = "--trainer.max_epochs=1"
    configs = {
        "sasrec_ml100k": [short],
        "msmrec_ml100k": [text, "--trainer.max_epochs=2", "--model.init_args.lr=0.02"],
        "kar_ml100k": [text, short],
        "popularity_ml1m": [],
        "lightgcn_ml1m": [short],
    }
    made = {}
    for name, more in configs.items():
        run = train(["--config", f"{name}.yaml", *args, *more, "--run_dir", str(folder / name)])
        made[name.split("_")[0]] = open_run(run)
    return made
