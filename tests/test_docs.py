"""Every block of docs/your_own.md, on a small shop."""

import re
import runpy
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from msmrec.cli import train
from msmrec.suite import suite

PAGE = Path(__file__).parents[1] / "docs" / "your_own.md"
SMALL = ["--trainer.accelerator=cpu", "--trainer.logger=false", "--trainer.enable_progress_bar=false"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's files, each named by its first line, and the data that they speak of."""
    folder = tmp_path_factory.mktemp("shop")
    for block in re.findall(r"```(?:yaml|python)?\n(# (\S+)\n.*?)```", PAGE.read_text(), re.DOTALL):
        (folder / block[1]).write_text(block[0])
    (folder / "shop").mkdir()
    rng = np.random.default_rng(0)
    customer = np.repeat(np.arange(60), 12)
    when = [f"2024-0{1 + k // 28}-{1 + k % 28:02d}" for k in range(12)] * 60
    item = np.concatenate([rng.permutation(40)[:12] for _ in range(60)])
    events = {"customer": [f"c{c}" for c in customer], "sku": [f"p/{i}" for i in item], "when": when}
    pl.DataFrame(events | {"stars": rng.integers(1, 6, len(item))}).write_csv(folder / "shop" / "events.csv")
    pl.DataFrame(
        {
            "sku": [f"p/{i}" for i in range(40)],
            "name": [f"Dish {i}" for i in range(40)],
            "kinds": ["Soups|Vegan" if i % 2 else "Cakes" for i in range(40)],
            "brand": [f"Maker {i % 5}" for i in range(40)],
            "description": [f"It tastes of {('lemon', 'garlic', 'honey')[i % 3]}." for i in range(40)],
        }
    ).write_csv(folder / "shop" / "items.csv")
    return folder


def test_the_blocks_run(shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(shop)
    monkeypatch.syspath_prepend(str(shop))
    monkeypatch.setenv("MSMREC_CACHE", str(shop / "artifacts"))
    monkeypatch.delenv("MSMREC_DATA", raising=False)
    assert train(["--config", "shop.yaml", *SMALL]) == Path("runs/shop/seed=0")
    several = train(["--config", "shop.yaml", "--config", "shop_msmrec.yaml", *SMALL])
    assert pl.read_parquet(several / "per_user.parquet").height == 60
    own = ["--model", "mine.GRU4Rec", "--model.init_args", "{}", "--run_dir", "runs/gru"]
    gru = train(["--config", "shop.yaml", *own, *SMALL])
    assert "median_rank" in (gru / "metrics.json").read_text()
    capsys.readouterr()
    runpy.run_path("program.py", run_name="__main__")
    printed = capsys.readouterr().out
    assert "test/ndcg@10" in printed and "Dish" in printed and "'hit_rate@10'" in printed
    suite("my.txt", dry_run=True)
    assert re.search(r"shop/seed=0 +finished\nshop_wide/seed=0 +to run", capsys.readouterr().out)
