"""The tiny world that most tests live in, and where real data is looked for."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing downloads in tests
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # numbers here are the CPU's, also on a GPU node

from tests.llm.fixtures import chat_model, prose_model, proxy, server  # noqa: F401

from msmrec.data.prepare import Dataset, SplitProtocol, prepare
from msmrec.data.sources.simulated import Simulated

TINY = Simulated(num_users=120, num_items=60, mean_interactions=14, num_modalities=3, num_aspects=4)


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data root that holds the tiny world."""
    root = tmp_path_factory.mktemp("data")
    TINY.folder(root)
    return root


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifacts shared by the session's tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def tiny(tiny_root: Path, cache: Path) -> Dataset:
    """The tiny world, prepared: leave-one-out, 5-core."""
    return prepare(TINY, tiny_root, cache, SplitProtocol())


@pytest.fixture(scope="session")
def tiny_genres(tiny: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The tiny world with genres, which it has none of: up to three of five an item, the last item none."""
    folder = tmp_path_factory.mktemp("genres") / tiny.folder.name
    shutil.copytree(tiny.folder, folder)
    rng = np.random.default_rng(0)
    genres = [rng.choice(["a", "b", "c", "d", "e"], rng.integers(1, 4), replace=False).tolist() for _ in range(60)]
    items = tiny.items.with_columns(pl.Series("genres", [*genres[: tiny.num_items - 1], []]))
    items.write_parquet(folder / "items.parquet")
    return Dataset(folder)


@pytest.fixture(scope="session")
def tiny_clicks(tiny_root: Path, cache: Path) -> Dataset:
    """The tiny world as click samples: all rows, global time, at least five earlier ratings."""
    protocol = SplitProtocol(min_user_count=0, min_item_count=0, split="global_time", min_history=5)
    return prepare(TINY, tiny_root, cache, protocol)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with the real datasets (MSMREC_TEST_DATA, or ../shared/data beside the repository)."""
    root = Path(os.environ.get("MSMREC_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (root / "ml-100k" / "u.data").is_file():
        pytest.skip(f"no real data in {root}: set MSMREC_TEST_DATA to a folder with ml-100k/, ml-1m/, kb/")
    return root


@pytest.fixture
def tiny_args(tiny_root: Path, cache: Path) -> list[str]:
    """What makes a shipped config run on the tiny world, without a logger; see `tiny_configs.for_model`."""
    world = {"num_users": 120, "num_items": 60, "mean_interactions": 14, "num_modalities": 3, "num_aspects": 4}
    knowledge = next(tiny_root.glob("simulated*/knowledge.jsonl"))
    schema = json.dumps([{"name": n, "prose": [n]} for n in ("narrative", "visual", "set")])
    text = {
        "knowledge": [str(knowledge)],
        "modalities": json.loads(schema),
        "encoder": {"class_path": "TfidfSvdEncoder"},
    }
    args = [
        "--data.source",
        "Simulated",
        *(f"--data.source.init_args.{key}={value}" for key, value in world.items()),
        "--trainer.logger",
        "false",
        "--trainer.enable_progress_bar",
        "false",
        "--data.root",
        str(tiny_root),
        "--data.cache",
        str(cache),
        "--data.protocol.min_item_count=0",
    ]
    return [*args, "--data.tokens_per_batch=512", f"--model.init_args.text={json.dumps({**text, 'dim': 8})}"]
