"""The simulated world: what is planted is in the files, drives the choices, and is said by the texts."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from msmrec.artifacts import InputError
from msmrec.data.interactions import encode
from msmrec.data.sources.simulated import Simulated, World
from msmrec.text.describe import describe
from msmrec.text.extractive import Extractive
from msmrec.text.knowledge import KnowledgeBase
from msmrec.text.modalities import Modality
from msmrec.text.schemas import MOVIE_MODALITIES

SMALL = {"num_users": 60, "num_items": 80, "mean_interactions": 15.0}


def prose_schema() -> list[Modality]:
    """Lays each text of the simulated documents on its modality."""
    return [Modality(name, prose=[name]) for name in ("narrative", "visual", "set", "audio", "direction", "acting")]


@pytest.fixture(scope="module")
def world() -> World:
    return Simulated().world()


@pytest.fixture(scope="module")
def choices(world: World) -> pl.DataFrame:
    return Simulated().interactions(world)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    Simulated().folder(root)
    return root


def arrays(choices: pl.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """User rows, item rows, and which of the choices are a user's last."""
    user, item = choices["raw_user_id"].to_numpy() - 1, choices["raw_item_id"].to_numpy() - 1
    return user, item, np.append(user[1:] != user[:-1], True)


def test_choices_are_well_formed(choices: pl.DataFrame) -> None:
    count = choices["raw_user_id"].value_counts()["count"]
    assert count.min() >= 10 and 45 < count.mean() < 55 and count.max() > 4 * count.mean()
    assert choices.select("raw_user_id", "raw_item_id").is_unique().all()
    assert set(choices["rating"].unique()) <= {1.0, 2.0, 3.0, 4.0, 5.0} and choices["rating"].n_unique() > 3
    wait = choices.select(pl.col("timestamp").diff().over("raw_user_id"))["timestamp"].drop_nulls()
    assert wait.min() >= 60 and wait.median() < 3600 and wait.quantile(0.95) > 86400  # sessions


def test_popularity_is_a_power_law(choices: pl.DataFrame) -> None:
    count = np.sort(choices["raw_item_id"].value_counts()["count"].to_numpy())[::-1]
    x, y = np.log(np.arange(1, len(count) + 1))[:300], np.log(count)[:300]
    slope = np.polyfit(x, y, 1)[0]
    print(f"popularity falls as rank to the {slope:.2f}")
    # Flatter than the planted 0.8: nobody chooses a film twice, and tastes spread the choices.
    assert -0.9 < slope < -0.3 and np.corrcoef(x, y)[0, 1] < -0.98


def test_weights_are_shares_and_some_drift(world: World) -> None:
    assert np.allclose(world.start.sum(1), 1, atol=1e-5) and np.allclose(world.end.sum(1), 1, atol=1e-5)
    moved = np.abs(world.start - world.end).sum(1) > 0.01
    assert 0.45 < moved.mean() < 0.55
    assert world.start.max(1).mean() > 0.55  # one modality rules
    assert set(world.likes.sum(2).ravel()) == {1, 2}
    half = world.weights(np.arange(3), np.full(3, 0.5))
    assert np.allclose(half, (world.start + world.end)[:3] / 2, atol=1e-6)
    assert not (np.abs(Simulated(**SMALL, drift=0).world().start - Simulated(**SMALL, drift=0).world().end) > 0).any()


def test_who_knows_the_truth_predicts_the_last_choice(world: World, choices: pl.DataFrame) -> None:
    user, item, is_last = arrays(choices)
    target, before = item[is_last], item[np.flatnonzero(is_last) - 1]
    everyone, none = np.arange(len(target)), np.full(len(target), -1)
    seen = np.zeros((len(target), len(world.aspect)), bool)
    seen[user[~is_last], item[~is_last]] = True

    def hit_rate(scores: np.ndarray) -> float:
        scores = np.where(seen, -np.inf, scores)
        return float(((scores > scores[everyone, target][:, None]).sum(1) < 10).mean())

    end, equal = np.ones(len(target)), np.full_like(world.end, 1 / world.end.shape[1])
    popularity = hit_rate(np.tile(np.bincount(item[~is_last], minlength=seen.shape[1]).astype(float), (len(target), 1)))
    oracle = hit_rate(world.logits(everyone, end, before))
    no_sequence = hit_rate(world.logits(everyone, end, none))
    as_at_start = hit_rate(world.logits(everyone, 0 * end, before))
    no_modality = hit_rate(world._replace(start=equal, end=equal).logits(everyone, end, before))
    print(
        f"HR@10: oracle {oracle:.3f}, without the film before {no_sequence:.3f}, with the weights at start"
        f" {as_at_start:.3f}, with equal weights {no_modality:.3f}, popularity {popularity:.3f}"
    )
    assert 0.05 < popularity < 0.1 and 0.25 < oracle < 0.4
    assert no_sequence < oracle - 0.02 and as_at_start < oracle - 0.05 and no_modality < oracle / 1.5


def test_choices_reveal_the_modality(world: World, choices: pl.DataFrame) -> None:
    """Where the two most frequent aspects of a user cover most, there the user attends."""
    user, item, _ = arrays(choices)
    count = np.zeros(world.likes.shape)
    for k in range(count.shape[1]):
        np.add.at(count[:, k], (user, world.aspect[item, k]), 1)
    guess = np.sort(count, -1)[..., -2:].sum(-1).argmax(1)
    agrees = float((guess == (world.start + world.end).argmax(1)).mean())
    print(f"the ruling modality is read off the choices for {agrees:.0%} of the users")
    assert agrees > 0.7


def test_files_hold_the_truth(root: Path, world: World, choices: pl.DataFrame) -> None:
    raw, folder = Simulated().read(root), root / "simulated"
    assert raw.interactions.equals(choices) and raw.items["title"].is_unique().all()
    assert len(encode(raw).users) == 2000
    truth = pl.read_parquet(folder / "truth.parquet")
    assert truth.columns == ["raw_user_id", "modality", "start", "end", "mean", "likes"]
    assert np.array_equal(truth["end"].to_numpy().reshape(world.end.shape), world.end)
    assert np.array_equal(truth["likes"].list.len().to_numpy().reshape(world.end.shape), world.likes.sum(2))
    sums = truth.group_by("raw_user_id").agg(pl.col("start", "end", "mean").sum()).drop("raw_user_id").to_numpy()
    assert np.allclose(sums, 1, atol=1e-5)
    aspects = pl.read_parquet(folder / "aspects.parquet")
    # The likes name aspects of that modality, so that the files alone make the oracle.
    named = truth.select("modality", pl.col("likes").alias("aspect")).explode("aspect").unique()
    assert named.join(aspects, on=["modality", "aspect"], how="anti").is_empty()


def test_texts_are_found_again(root: Path) -> None:
    raw, folder = Simulated().read(root), root / "simulated"
    items, base = encode(raw).items, KnowledgeBase.read([folder / "knowledge.jsonl"])
    known = base.documents.with_columns(pl.format("{} ({})", "title", "year").alias("title"))
    expected = items.select("item_id", "title").join(known, on="title")
    assert 0.96 < len(expected) / len(items) < 0.995 and len(base.documents) > 1.05 * len(items)
    found = base.retrieve(items)
    schema = prose_schema()
    texts = pl.concat(describe(items, base, found, schema, Extractive(), root)).pivot(
        on="modality", index="item_id", values="text"
    )
    both = expected.join(texts, on="item_id", suffix="_said")
    names = [modality.name for modality in schema]
    same = both.select(
        pl.all_horizontal(
            pl.col(f"{x}_said") == pl.col(x).fill_null("") for x in names
        )
    ).to_series()  # fmt: skip
    missing = both.select(pl.any_horizontal(pl.col(names).is_null())).to_series().mean()
    print(f"{same.mean():.1%} of the documented films have all their texts; {missing:.1%} lack one by design")
    assert same.mean() >= 0.95 and 0.02 < missing < 0.09
    assert found.filter(~pl.col("item_id").is_in(expected["item_id"].to_list())).is_empty()  # nothing is made up
    aspects = pl.read_parquet(folder / "aspects.parquet").pivot(on="modality", index="raw_item_id", values="aspect")
    audio = items.join(aspects, on="raw_item_id").join(texts, on="item_id", suffix="_said")
    assert all(aspect in text for aspect, text in audio.select("audio", "audio_said").iter_rows() if text)


def test_the_seed_makes_the_world(tmp_path: Path) -> None:
    one, again, other = Simulated(**SMALL), Simulated(**SMALL), Simulated(**SMALL, seed=1)
    assert one.name == again.name != other.name and one.name.startswith("simulated-")
    assert Simulated().name == "simulated"
    files = [source.folder(tmp_path / where) for source, where in ((one, "a"), (again, "b"), (other, "a"))]
    for name in ("ratings.parquet", "items.parquet", "truth.parquet", "aspects.parquet", "knowledge.jsonl"):
        first, second, third = ((folder / name).read_bytes() for folder in files)
        assert first == second != third, name
    assert one.fingerprint(tmp_path) == again.fingerprint(tmp_path) != other.fingerprint(tmp_path)
    assert Simulated(**SMALL | {"mean_interactions": 15}).fingerprint(tmp_path) == one.fingerprint(tmp_path)


def test_all_nine_modalities_are_the_papers(tmp_path: Path) -> None:
    names = [modality.name for modality in MOVIE_MODALITIES]
    source = Simulated(**SMALL, num_modalities=9, num_aspects=3)
    documents = KnowledgeBase.read([source.folder(tmp_path) / "knowledge.jsonl"]).documents
    for name in names:
        words = documents[name].drop_nulls().str.split(" ").list.len()
        assert 8 <= words.min() and words.max() <= 20
        assert not documents[name].str.contains(r"[,|.]").any()


def test_refuses_what_it_cannot_make(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="num_modalities must be from 1 to 9, not 10"):
        Simulated(num_modalities=10)
    with pytest.raises(InputError, match="mean_interactions"):
        Simulated(num_items=100)
    folder = Simulated(**SMALL).folder(tmp_path)
    (folder / "settings.json").write_text('{"fingerprint": "of another version"}')
    with pytest.raises(InputError, match="remove the folder"):
        Simulated(**SMALL).read(tmp_path)
