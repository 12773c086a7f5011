"""What noise does to texts: to whom, how much, and always the same."""

import polars as pl
import pytest

from msmrec.artifacts import InputError
from msmrec.text.noise import TextNoise

TEXTS = pl.DataFrame(
    {
        "item_id": pl.Series([k for k in range(1, 101) for _ in range(2)], dtype=pl.Int32),
        "modality": ["a", "b"] * 100,
        "text": [t for k in range(1, 101) for t in (f"one{k} two{k} three{k} four{k}", "" if k % 3 == 0 else f"b{k}")],
        "doc_ids": [[f"d{k}"] for k in range(200)],
    }
)


def changed(noise: TextNoise) -> pl.DataFrame:
    noisy = noise(TEXTS)
    assert noisy.select("item_id", "modality").equals(TEXTS.select("item_id", "modality"))
    assert noisy.schema == TEXTS.schema and noisy.equals(noise(TEXTS))
    return noisy.with_columns(before=TEXTS["text"]).filter(pl.col("text") != pl.col("before"))


def test_swapped_items_have_all_the_texts_of_another() -> None:
    noise = TextNoise("swap", 0.3)
    odd = changed(noise)
    assert odd["item_id"].n_unique() == 30
    noisy = noise(TEXTS).pivot(on="modality", index="item_id", values="text")
    before = TEXTS.pivot(on="modality", index="item_id", values="text")
    donor = noisy.join(before, on=["a", "b"], suffix="_donor")  # each row of texts is some item's own pair
    assert len(donor) == 100 and donor["item_id_donor"].n_unique() == 100
    assert (donor["item_id"] != donor["item_id_donor"]).sum() == 30


def test_truncated_texts_keep_their_first_words() -> None:
    odd = changed(TextNoise("truncate", 0.5, strength=0.5))
    assert odd["item_id"].n_unique() == 50
    expected = [f"one{k} two{k}" for k in odd["item_id"]]
    assert odd["text"].to_list() == expected  # a text of one word keeps it


def test_of_texts_truncated_to_nothing_nothing_is_left() -> None:
    odd = changed(TextNoise("truncate", 0.5, strength=0.0))
    assert odd["item_id"].n_unique() == 50 and (odd["text"] == "").all()


def test_corrupted_texts_have_other_words_and_missing_ones_stay_missing() -> None:
    noise = TextNoise("corrupt", 1.0, strength=0.5)
    odd, noisy = changed(noise), noise(TEXTS)
    assert odd["item_id"].n_unique() > 90
    assert ((noisy["text"] == "") == (TEXTS["text"] == "")).all()
    words = noisy.filter(pl.col("modality") == "a")["text"].str.split(" ")
    own = TEXTS.filter(pl.col("modality") == "a")["text"].str.split(" ")
    assert (words.list.len() == 4).all()
    kept = (words.explode() == own.explode()).mean()
    assert 0.4 < float(kept or 0) < 0.6  # type: ignore[arg-type]


def test_no_share_no_change_and_other_seeds_other_items() -> None:
    assert TextNoise("swap", 0.0)(TEXTS).equals(TEXTS)
    one, two = (set(changed(TextNoise("swap", 0.2, seed=s))["item_id"]) for s in (0, 1))
    assert one != two
    with pytest.raises(InputError, match="between 0 and 1"):
        TextNoise("swap", 1.5)
