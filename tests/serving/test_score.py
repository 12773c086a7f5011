"""Click models asked for pairs: as the run's own test, histories that end where they should, what mistakes say."""

import io
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from tests.tiny_configs import TINY_DATA

from msmrec.artifacts import InputError
from msmrec.cli import train
from msmrec.columns import RATING, VAL
from msmrec.data.samples import PairLoader
from msmrec.data.sources.base import FileColumns
from msmrec.data.sources.simulated import Simulated
from msmrec.finished_run import open_run
from msmrec.run_folder import OpenRun
from msmrec.verbs.score import main as score_verb


@pytest.fixture(scope="module")
def clicks(tiny_root: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, OpenRun]:
    """A short run of a model that attends to its history and of one that averages it."""
    folder = tmp_path_factory.mktemp("clicks")
    args = [*TINY_DATA, "--data.root", str(tiny_root), "--data.cache", str(cache), "--data.batch_size=64"]
    args += ["--data.protocol.min_history=0"]  # users whose first sample is a test sample are asked about too
    made = {}
    for name in ("din", "dcnv2"):
        config = ["--config", f"{name}_ml1m.yaml", "--trainer.max_epochs=1", "--run_dir", str(folder / name)]
        made[name] = open_run(train([*config, *args]))
    return made


def first_test_samples(run: OpenRun) -> pl.DataFrame:
    """raw ids and the run's own prediction of every user's first test sample that nothing of the test precedes."""
    dataset = run.data.dataset
    rows = pl.read_parquet(run.folder / "predictions.parquet").unique("user_id", keep="first", maintain_order=True)
    user = rows["user_id"].to_numpy()
    first = dataset.item_id[np.minimum(dataset.ends[VAL][user], len(dataset.item_id) - 1)]
    rows = rows.filter(pl.Series(first == rows["item_id"].to_numpy()))
    rows = rows.join(dataset.users.select("user_id", "raw_user_id"), on="user_id", maintain_order="left")
    return rows.join(dataset.items.select("item_id", "raw_item_id"), on="item_id", maintain_order="left")


@pytest.mark.parametrize("name", ["din", "dcnv2"])
@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_a_users_first_test_sample_is_scored_as_the_test_did(
    name: str, ending: str, clicks: dict[str, OpenRun], tmp_path: Path
) -> None:
    run = clicks[name]
    wanted = first_test_samples(run).sample(fraction=1, shuffle=True, seed=1)
    pairs, out = tmp_path / f"pairs.{ending}", tmp_path / f"out.{ending}"
    given = wanted.select(pl.col("raw_user_id").alias("user"), pl.col("raw_item_id").alias("item"))
    {"csv": given.write_csv, "parquet": given.write_parquet, "jsonl": given.write_ndjson}[ending](pairs)
    score_verb(["--run", str(run.folder), "--pairs", str(pairs), "--out", str(out), "--split", "test"])
    found = {"csv": pl.read_csv, "parquet": pl.read_parquet, "jsonl": pl.read_ndjson}[ending](out)
    assert len(found) > 10 and found.columns == ["raw_user_id", "raw_item_id", "probability"]
    assert found.select("raw_user_id", "raw_item_id").equals(wanted.select("raw_user_id", "raw_item_id"))
    assert found["probability"].to_numpy() == pytest.approx(wanted["prob"].to_numpy(), abs=1e-6)


def test_now_is_after_all_that_the_dataset_holds(
    clicks: dict[str, OpenRun], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = clicks["din"]
    dataset = run.data.dataset
    users, items = dataset.users["raw_user_id"], dataset.items["raw_item_id"]
    path = tmp_path / "pairs.csv"
    pairs = pl.DataFrame({"raw_user_id": users[:20], "raw_item_id": items[:20]})
    pl.concat([pairs, pairs]).write_csv(path)
    score_verb(["--run", str(run.folder), "--pairs", str(path)])
    said = capsys.readouterr()
    table = pl.read_csv(said.out.encode())
    assert len(table) == 40 and table["probability"][:20].equals(table["probability"][20:])
    seen = sum(
        int(i + 1 in dataset.item_id[dataset.offsets[i + 1] : dataset.offsets[i + 2]].tolist()) for i in range(20)
    )
    assert (f"{2 * seen:,} pairs are of an item that the user has rated already" in said.err) == (seen > 0)
    score_verb(["--run", str(run.folder), "--pairs", str(path), "--split", "val"])
    before = pl.read_csv(capsys.readouterr().out.encode())
    assert not before["probability"].equals(table["probability"])


def test_batches_of_pairs_hold_the_latest_rows_before_the_end(clicks: dict[str, OpenRun]) -> None:
    dataset = clicks["din"].data.dataset
    rating = dataset.column(RATING)
    generator = np.random.default_rng(0)
    user = generator.integers(1, dataset.num_users + 1, 50)
    user[:2] = dataset.num_users  # whose rows end where the table does
    end = generator.integers(dataset.offsets[user], dataset.offsets[user + 1] + 1)
    end[:2] = dataset.offsets[-1], dataset.offsets[dataset.num_users]  # all of them, and none
    loader = PairLoader(dataset, user, np.arange(1, 51), end, 8, 16, torch.device("cpu"))
    batches = list(loader)
    assert [len(batch.label) for batch in batches] == [16, 16, 16, 2]
    assert torch.cat([batch.user_id for batch in batches]).tolist() == user.tolist()
    assert torch.cat([batch.target_item for batch in batches]).tolist() == list(range(1, 51))
    sequences = [(s, r, n) for b in batches for s, r, n in zip(b.item_seq, b.rating_seq, b.seq_len, strict=True)]
    for (items, ratings, length), u, last in zip(sequences, user, end, strict=True):
        start = max(dataset.offsets[u], last - 8)
        assert int(length) == last - start and not items[length:].any()
        assert items[:length].tolist() == dataset.item_id[start:last].tolist()
        assert ratings[:length].tolist() == rating[start:last].tolist()


def test_what_is_not_known_is_counted_and_gets_no_row(
    clicks: dict[str, OpenRun], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = clicks["dcnv2"]
    user, item = run.data.dataset.users["raw_user_id"][0], run.data.dataset.items["raw_item_id"][0]
    path = tmp_path / "pairs.csv"
    path.write_text(f"user,item\nnobody,{item}\n{user},nothing\n{user},{item}\nnobody,{item}\n")
    score_verb(["--run", str(run.folder), "--pairs", str(path)])
    said = capsys.readouterr()
    assert "2 rows with 1 users that are not in simulated" in said.err and "no probability: nobody" in said.err
    assert "1 rows with 1 items that are not in simulated" in said.err and "no probability: nothing" in said.err
    assert pl.read_csv(said.out.encode())["raw_item_id"].to_list() == [item]


def test_the_words_of_the_source_and_of_messages(
    clicks: dict[str, OpenRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = clicks["din"]
    user, item = run.data.dataset.users["raw_user_id"][0], run.data.dataset.items["raw_item_id"][0]
    monkeypatch.setattr(Simulated, "file_columns", FileColumns("who", "what", "when", ";"))
    for text in (f"who;what\n{user};{item}\n", f"who,what\n{user},{item}\n", f"user,item\n{user},{item}\n"):
        (tmp_path / "p.csv").write_text(text)
        score_verb(["--run", str(run.folder), "--pairs", str(tmp_path / "p.csv")])
        assert len(pl.read_csv(capsys.readouterr().out.encode())) == 1


def test_pairs_come_by_standard_input(
    clicks: dict[str, OpenRun], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = clicks["din"].data.dataset
    text = f"user,item\n{dataset.users['raw_user_id'][0]},{dataset.items['raw_item_id'][0]}\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    score_verb(["--run", str(clicks["din"].folder), "--pairs", "-"])
    assert len(pl.read_csv(capsys.readouterr().out.encode())) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("user,item\nnobody,nothing\n", "none of its 1 pairs is of a user and an item"),
        ("user,item\n1,\n", "missing in data row 1"),
        ("user,item\n", "no row in it"),
        ("user,film\n1,2\n", "no column raw_item_id"),
        ("", "empty"),
    ],
)
def test_bad_pairs_are_one_line(content: str, words: str, clicks: dict[str, OpenRun], tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(content)
    with pytest.raises(InputError, match=words) as caught:
        score_verb(["--run", str(clicks["din"].folder), "--pairs", str(tmp_path / "p.csv")])
    assert "\n" not in str(caught.value)


def test_other_mistakes_are_one_line(clicks: dict[str, OpenRun], runs: dict[str, OpenRun], tmp_path: Path) -> None:
    pairs, export = tmp_path / "p.csv", tmp_path / "export"
    pairs.write_text("user,item\n1,1\n")
    export.mkdir()
    (export / "serving.json").write_text("{}")
    din = str(clicks["din"].folder)
    for words, args in {
        "python -m msmrec recommend": ["--run", str(runs["popularity"].folder), "--pairs", str(pairs)],
        "is an export": ["--run", str(export), "--pairs", str(pairs)],
        "no such file": ["--run", din, "--pairs", str(tmp_path / "no.csv")],
        "ends in .parquet": ["--run", din, "--pairs", str(pairs), "--out", "x.txt"],
    }.items():
        with pytest.raises(InputError, match=words):
            score_verb(args)
