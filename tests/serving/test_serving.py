"""Recommending, exporting, explaining, on runs of the tiny world: brute force, round trips, what mistakes say."""

import gzip
import io
import json
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from tests.tiny_configs import TINY_DATA, tiny_text

from msmrec.artifacts import InputError
from msmrec.cli import train
from msmrec.columns import TEST
from msmrec.data.batches import EvalLoader
from msmrec.data.sources.amazon import Amazon
from msmrec.data.sources.bookcrossing import BookCrossing
from msmrec.data.sources.movielens import MovieLens
from msmrec.finished_run import open_run
from msmrec.run_folder import OpenRun
from msmrec.serving.explain import Explainer
from msmrec.serving.explore import refuse_used_port
from msmrec.serving.export import export, of_export
from msmrec.serving.page import Page, Posters, message
from msmrec.serving.rank import dataset_histories, of_run
from msmrec.serving.requests import read_histories
from msmrec.verbs.export import main as export_verb
from msmrec.verbs.recommend import main as recommend_verb


def lists(run: Path, *args: str, out: Path) -> pl.DataFrame:
    recommend_verb(["--run", str(run), *args, "--out", str(out)])
    return pl.read_parquet(out)


@pytest.mark.parametrize("name", ["sasrec", "msmrec", "kar", "popularity", "lightgcn"])
def test_recommend_ranks_as_an_evaluation_does(name: str, runs: dict[str, OpenRun], tmp_path: Path) -> None:
    run = runs[name]
    dataset = run.data.dataset
    users = tmp_path / "users.csv"
    dataset.users.select("raw_user_id").write_csv(users)
    table = lists(run.folder, "--users", str(users), "--split", "test", "--k", "5", out=tmp_path / "l.parquet")
    raw = dict(dataset.items.select("item_id", "raw_item_id").iter_rows())
    names = dict(dataset.users.select("user_id", "raw_user_id").iter_rows())
    mine = {user: part for (user,), part in table.partition_by("raw_user_id", as_dict=True).items()}
    checked = 0
    for batch in EvalLoader(dataset, TEST, run.data.max_seq_len, 16, torch.device("cpu")):
        with torch.no_grad():
            scores = run.model.scores(batch).float()  # type: ignore[operator]
        for row, user in enumerate(batch.user_id.tolist()):
            history = dataset.item_id[dataset.offsets[user] : dataset.ends[TEST - 1][user]]
            best = sorted(set(range(1, dataset.num_items + 1)) - set(history.tolist()), key=lambda i: -scores[row, i])
            found = mine[names[user]]
            assert found["score"].to_list() == pytest.approx(scores[row, best[:5]].tolist(), abs=1e-5)
            if name != "popularity":  # whose counts tie
                assert found["raw_item_id"].to_list() == [raw[item] for item in best[:5]]
            checked += 1
    assert checked > 100 and table["rank"].to_list() == [1, 2, 3, 4, 5] * len(mine)


def test_a_new_user_with_a_known_users_history_gets_that_users_list(runs: dict[str, OpenRun], tmp_path: Path) -> None:
    run = runs["msmrec"]
    dataset = run.data.dataset
    history, users = tmp_path / "h.jsonl", tmp_path / "u.txt"
    rows = pl.DataFrame(
        {"user_id": dataset.user_id, "item_id": dataset.item_id, "timestamp": np.arange(len(dataset.item_id))}
    )
    raw = rows.join(dataset.items.select("item_id", "raw_item_id"), on="item_id", maintain_order="left")
    raw = raw.join(dataset.users.select("user_id", "raw_user_id"), on="user_id", maintain_order="left")
    some = raw.filter(pl.col("user_id") <= 20).select("raw_user_id", "raw_item_id", "timestamp")
    some.sample(fraction=1, shuffle=True, seed=0).sort("raw_user_id", maintain_order=True).write_ndjson(history)
    users.write_text("\n".join(str(u) for u in dataset.users["raw_user_id"][:20]))
    known = lists(run.folder, "--users", str(users), out=tmp_path / "a.parquet").sort("raw_user_id", "rank")
    new = lists(run.folder, "--history", str(history), out=tmp_path / "b.parquet")
    new = new.with_columns(pl.col("raw_user_id").cast(known["raw_user_id"].dtype)).sort("raw_user_id", "rank")
    assert new.drop("score").equals(known.drop("score")) and len(new) == 200
    seen = set(zip(some["raw_user_id"].cast(pl.String), some["raw_item_id"].cast(pl.String), strict=True))
    assert not seen & set(zip(new["raw_user_id"].cast(pl.String), new["raw_item_id"].cast(pl.String), strict=True))


@pytest.mark.parametrize("name", ["msmrec", "popularity"])
def test_an_export_recommends_what_the_run_does_without_anything_else(
    name: str, runs: dict[str, OpenRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "export"
    onnx = name == "msmrec" and all(map(find_spec, ("onnxruntime", "onnxscript")))
    checked = export(runs[name], out, onnx)["checked"]
    assert checked["model.pt2"]["same_top_10"] == 1 and (out / "README.md").read_text().startswith("# ")
    if onnx:
        assert checked["model.onnx"]["largest_difference"] < 1e-4 and checked["model.onnx"]["same_top_10"] >= 0.99
    items = runs[name].data.dataset.items["raw_item_id"].cast(pl.String).to_list()
    history = tmp_path / "h.csv"
    history.write_text(
        "user_id,item_id\n" + "".join(f"{u},{items[u * 3 + i]}\n" for u in range(9) for i in range(u + 1))
    )
    ours = lists(runs[name].folder, "--history", str(history), out=tmp_path / "a.parquet")
    monkeypatch.setattr("msmrec.verbs.recommend.open_run", None)
    monkeypatch.setenv("MSMREC_DATA", str(tmp_path / "nowhere"))
    again = lists(out, "--history", str(history), out=tmp_path / "b.parquet")
    assert again.drop("score").equals(ours.drop("score"))
    assert again["score"].to_numpy() == pytest.approx(ours["score"].to_numpy(), abs=1e-5)
    with pytest.raises(InputError, match="--genres Comedy: an export has no config"):
        recommend_verb(["--run", str(out), "--history", str(history), "--genres", "Comedy"])
    with pytest.raises(InputError, match="knows no users"):
        recommend_verb(["--run", str(out), "--users", str(history)])
    (out / "model.pt2").write_bytes(b"cut")
    with pytest.raises(InputError, match="not a whole export"):
        of_export(out)


@pytest.mark.parametrize("name", ["shop.csv", "shop.csv.gz", "shop.parquet"])
def test_the_file_that_was_trained_on_is_a_history(
    name: str, runs: dict[str, OpenRun], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own names, separator and dates; an export has them too."""
    data = runs["sasrec"].data.dataset
    when = pl.from_epoch(pl.Series(np.arange(len(data.item_id)) * 60 + 10**9))
    shop = pl.DataFrame({"customer": data.user_id, "sku": data.item_id, "when": when, "user_id": "x"})
    shop = shop.sample(fraction=1, shuffle=True, seed=0)  # so that the times, as dates, give the order
    if name.endswith("parquet"):
        shop.write_parquet(tmp_path / name)
    else:
        text = shop.with_columns(pl.col("when").dt.to_string("%Y-%m-%dT%H:%M:%S")).write_csv(separator=";").encode()
        (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    columns = {"user": "customer", "item": "sku", "rating": None, "timestamp": "when", "separator": ";"}
    source = {"class_path": "Table", "init_args": {"interactions": name, **columns}}
    args = ["--data.source", json.dumps(source), "--data.root", str(tmp_path), "--data.cache", str(tmp_path / "cache")]
    more = [*TINY_DATA[2:], "--trainer.max_epochs=1", "--data.tokens_per_batch=512", "--run_dir", str(tmp_path / "run")]
    run = train(["--config", "sasrec_ml100k.yaml", *args, *more])
    users, file = tmp_path / "users.csv", str(tmp_path / name)
    users.write_text("customer;town\n" + "".join(f"{user};Rome, Italy\n" for user in range(1, 21)))
    known = lists(run, "--users", str(users), out=tmp_path / "a.parquet").sort("raw_user_id", "rank")
    if name == "shop.csv":
        export_verb(["--run", str(run), "--out", str(tmp_path / "export")])
    for folder in (run, *([tmp_path / "export"] if name == "shop.csv" else [])):
        new = lists(folder, "--history", file, out=tmp_path / "b.parquet")
        new = new.filter(pl.col("raw_user_id").is_in(known["raw_user_id"].unique().implode()))
        assert len(known) == 200 and new.sort("raw_user_id", "rank").drop("score").equals(known.drop("score"))
    (tmp_path / "h.csv").write_text("raw_user_id,raw_item_id\n1,1\n")  # the project's own words stay
    assert len(lists(run, "--history", str(tmp_path / "h.csv"), out=tmp_path / "c.parquet")) == 10
    (tmp_path / "h.csv").write_text("customer;film\n1;1\n")
    with pytest.raises(InputError, match="no column sku or raw_item_id or item_id or item; it has customer, film"):
        recommend_verb(["--run", str(run), "--history", str(tmp_path / "h.csv")])


def test_items_that_nobody_rated_are_recommended_by_their_texts(tiny_root: Path, cache: Path, tmp_path: Path) -> None:
    args = [*TINY_DATA, "--data.root", str(tiny_root), "--data.cache", str(cache), "--data.tokens_per_batch=512"]
    args += ["--data.protocol.min_item_count=20", "--data.protocol.unrated_items=true", "--trainer.max_epochs=1"]
    args += ["--model.init_args.text", json.dumps(tiny_text(tiny_root)), "--run_dir", str(tmp_path / "run")]
    run = train(["--config", "msmrec_ml100k.yaml", *args])
    dataset = open_run(run).data.dataset
    cold = set(dataset.items.filter(tier="cold", count=0)["raw_item_id"])
    assert 5 < len(cold) < 40 and dataset.num_items == 60
    history = tmp_path / "h.csv"
    history.write_text("user_id,item_id\n" + "".join(f"{u},{dataset.items['raw_item_id'][u]}\n" for u in range(9)))
    mixed = lists(run, "--history", str(history), "--k", "60", out=tmp_path / "a.parquet")
    cold_first = mixed.filter(pl.col("raw_item_id").is_in(cold)).group_by("raw_user_id", maintain_order=True).head(5)
    new = lists(run, "--history", str(history), "--k", "5", "--tier", "cold", out=tmp_path / "b.parquet")
    assert new.drop("rank").equals(cold_first.drop("rank")) and len(new) == 45
    assert new.group_by("raw_user_id").agg("raw_item_id")["raw_item_id"].n_unique() > 1  # by the history, not the same
    export_verb(["--run", str(run), "--out", str(tmp_path / "export")])
    again = lists(tmp_path / "export", "--history", str(history), "--k=5", "--tier=cold", out=tmp_path / "c.parquet")
    assert again.drop("score").equals(new.drop("score"))


def test_published_files_are_histories(tmp_path: Path) -> None:
    items = pl.DataFrame({"item_id": [1, 2], "raw_item_id": ["B1", "B2"]})
    for source, header, rows in (
        (MovieLens("ml-latest-small"), "userId,movieId,rating,timestamp", "7,B2,4,20\n7,B1,3,10\n"),
        (Amazon(), "reviewerID,asin,overall,unixReviewTime", "7,B2,4,1400000001\n7,B1,3,1400000000000\n"),
        (BookCrossing(), '"User-ID";"ISBN";"Book-Rating"', '"7";"B1";"3"\n"7";"B2";"4"\n'),
    ):
        (tmp_path / "f.csv").write_text(f"{header}\n{rows}")
        read = read_histories(tmp_path / "f.csv", items, source.file_columns)
        assert read.raw_user_ids.to_list() == ["7"] and read.histories.items.tolist() == [1, 2]


def test_what_cannot_be_exported(runs: dict[str, OpenRun], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="training alone"):
        export(runs["lightgcn"], tmp_path / "export")
    with pytest.raises(InputError, match="already there"):
        export_verb(["--run", str(runs["sasrec"].folder), "--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())


def test_filters(runs: dict[str, OpenRun], tiny_genres: Any) -> None:
    recommender = of_run(runs["sasrec"])
    items = recommender.items.with_columns(tiny_genres.items["genres"][: len(recommender.items)])
    with_genres = type(recommender)(**{**recommender.__dict__, "items": items})
    mask = with_genres.allowed(["a", "b"], 1970, None)
    assert mask is not None and not mask[0]
    for item in items.iter_rows(named=True):
        passes = bool({"a", "b"} & set(item["genres"])) and item["year"] is not None and item["year"] >= 1970
        assert mask[item["item_id"]] == passes
    ranked = with_genres.rank(dataset_histories(runs["sasrec"].data.dataset, np.array([3])), 100, mask)
    assert mask[ranked.items[ranked.items > 0]].all() and 0 < (ranked.items > 0).sum() <= mask.sum()
    with pytest.raises(InputError, match="there are: a, b"):
        with_genres.allowed(["z"], None, None)
    with pytest.raises(InputError, match="no item passes"):
        with_genres.allowed([], 3000, None)
    tails = recommender.allowed(tiers=["tail", "mid"])
    assert tails is not None and tails[1:].tolist() == items["tier"].is_in(["tail", "mid"]).to_list()
    with pytest.raises(InputError, match="--tier cold: SASRec has learned nothing of items without a training rating"):
        recommender.allowed(tiers=["cold"])


def test_what_a_file_has_too_much_is_counted(
    runs: dict[str, OpenRun], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs["sasrec"]
    first, second = run.data.dataset.items["raw_item_id"].cast(pl.String).to_list()[:2]
    path = tmp_path / "h.csv"
    path.write_text(f"user_id,item_id\na,{first}\na,{second}\na,{first}\nb,nosuch\nc,{first}\n")
    table = lists(run.folder, "--history", str(path), "--k", "3", "--fallback", "popular", out=tmp_path / "l.parquet")
    said = capsys.readouterr().err
    assert "1 rows with 1 items that the model does not know are left out: nosuch" in said
    assert "1 rows have an item that the same user has again" in said and "given what is popular: b" in said
    assert table["raw_user_id"].to_list() == ["a"] * 3 + ["c"] * 3 + ["b"] * 3
    assert table["score"].null_count() == 3  # what is popular has no score of the model
    recommend_verb(["--run", str(run.folder), "--history", str(path)])
    assert "get no list" in capsys.readouterr().err


def test_requests_come_by_standard_input(
    runs: dict[str, OpenRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs["sasrec"]
    user, item = run.data.dataset.users["raw_user_id"][4], run.data.dataset.items["raw_item_id"][7]
    for option, text in {"--users": f"user\n{user}\n", "--history": f"user,item\n1,{item}\n"}.items():
        (tmp_path / "file.csv").write_text(text)
        recommend_verb(["--run", str(run.folder), option, str(tmp_path / "file.csv")])
        wanted = capsys.readouterr().out
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        recommend_verb(["--run", str(run.folder), option, "-"])
        assert capsys.readouterr().out == wanted and wanted.count("\n") == 11
    for text, words in {"": "standard input: the file is empty", "user\n1": "standard input: no column"}.items():
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        with pytest.raises(InputError, match=words):
            recommend_verb(["--run", str(run.folder), "--history", "-"])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("h.csv", "", "empty"),
        ("h.csv", "user_id,item_id\n", "no row in it"),
        ("h.csv", "user,film\n1,2\n", "no column raw_item_id or item_id or item; it has user, film"),
        ("h.csv", "user_id,item_id\n1,\n", "missing in data row 1"),
        ("h.csv", "user_id,item_id,timestamp\n1,2,x\n", "no number and no date as timestamp in data row 1"),
        ("h.csv", "user_id,item_id,timestamp\n1,2,3\n1,3,nan\n", "no number and no date as timestamp in data row 2"),
        ("h.csv", "user_id,item_id,timestamp\n1,2,1/2/2020\n", r"h\.csv: timestamp 1/2/2020: is its day or its month"),
        ("h.xlsx", "x", "give a .csv"),
        ("h.parquet", "x", "cannot be read as parquet"),
        ("h.jsonl", '{"raw_user_id": 1, "raw_item_id": [1, 2]}', "holds lists; give a row for each item"),
    ],
)
def test_bad_histories_are_one_line(
    name: str, content: str, words: str, runs: dict[str, OpenRun], tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=words) as caught:
        recommend_verb(["--run", str(runs["sasrec"].folder), "--history", str(tmp_path / name)])
    assert "\n" not in str(caught.value)


def test_other_mistakes_are_one_line(runs: dict[str, OpenRun], tmp_path: Path) -> None:
    sasrec, users, history = str(runs["sasrec"].folder), tmp_path / "u.txt", tmp_path / "h.csv"
    users.write_text("nobody\n")
    history.write_text(f"user_id,item_id\n1,{runs['sasrec'].data.dataset.items['raw_item_id'][0]}\n")
    cases = {
        "none of its 1 users": ["--run", sasrec, "--users", str(users)],
        "no such file": ["--run", sasrec, "--users", str(tmp_path / "no.txt")],
        "no such folder": ["--run", str(tmp_path / "no"), "--users", str(users)],
        "--k 0": ["--run", sasrec, "--history", str(history), "--k", "0"],
        "training alone": ["--run", str(runs["lightgcn"].folder), "--history", str(history)],
        "goes with --users": ["--run", sasrec, "--history", str(history), "--split", "test"],
        "ends in .parquet": ["--run", sasrec, "--history", str(history), "--out", "x.txt"],
        "--out .*h.csv/x.csv: nothing can be": [
            "--run",
            sasrec,
            "--history",
            str(history),
            "--out",
            f"{history}/x.csv",
        ],
    }
    for words, args in cases.items():
        with pytest.raises(InputError, match=words):
            recommend_verb(args)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="cannot be used"):
            refuse_used_port("127.0.0.1", taken.getsockname()[1])


def test_the_parts_of_a_score_sum_to_it(runs: dict[str, OpenRun]) -> None:
    run = runs["msmrec"]
    for batch in EvalLoader(run.data.dataset, TEST, run.data.max_seq_len, 32, torch.device("cpu")):
        with torch.no_grad():
            by_id, by_modality, gate = run.model.score_parts(batch)  # type: ignore[operator]
            whole = run.model.scores(batch)  # type: ignore[operator]
        parts = by_id + torch.einsum("bnm,bm->bn", by_modality, gate)
        assert torch.allclose(parts, whole, atol=1e-4) and by_modality.abs().max() > 1e-4


def test_explanations_of_a_user(runs: dict[str, OpenRun]) -> None:
    explainer, dataset = Explainer(runs["msmrec"]), runs["msmrec"].data.dataset
    histories = explainer.user(str(dataset.users["raw_user_id"][2]))
    why = explainer.explain(histories, 10)
    ranked = explainer.recommender.rank(histories, 10)  # by `scores`, not by parts
    assert why.items.tolist() == ranked.items[0].tolist() and why.parts.sum(1) == pytest.approx(why.scores, abs=1e-4)
    assert why.gate.sum() == pytest.approx(1, abs=1e-5) and np.isin(why.near, why.history).all()
    same = explainer.explain(histories, 10, gate=why.gate.tolist())
    assert same.items.tolist() == why.items.tolist()
    none = explainer.explain(histories, 10, gate=[0.0] * len(why.gate))
    assert none.parts[:, 0] == pytest.approx(none.scores, abs=1e-5) and not none.parts[:, 1:].any()
    assert explainer.explain(explainer.liked([1, 2]), 5).history.tolist() == [1, 2]
    assert Explainer(runs["sasrec"]).explain(histories, 5).parts.shape == (5, 0)
    with pytest.raises(InputError, match="no user 'x'"):
        explainer.user("x")
    with pytest.raises(InputError, match="at least one"):
        explainer.liked([])
    with pytest.raises(InputError, match="pick one of them"):
        Explainer(runs["lightgcn"]).liked([1])


def test_titles_are_text(runs: dict[str, OpenRun]) -> None:
    explainer = Explainer(runs["msmrec"])
    bad = '<script>alert(1)</script><img src=x onerror="alert(1)">'
    items = explainer.recommender.items.with_columns(title=pl.lit(bad))
    page = Page(items, Posters(None), explainer.modalities)
    why = explainer.explain(explainer.liked([1, 2, 3]), 4)
    for html in (page.recommendations(why), page.reasons(why), page.history(why), message(bad)):
        assert "<script" not in html and "<img" not in html and "&lt;script&gt;" in html
