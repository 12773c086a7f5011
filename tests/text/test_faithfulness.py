"""How far texts rest on evidence, by hand."""

import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.text.separation import separation
from tests.tiny_configs import TINY_DATA, tiny_config

from msmrec.artifacts import InputError
from msmrec.markdown import frame_markdown
from msmrec.text.faithfulness import DIGITS, Evidence, compare_faithfulness, faithfulness, summarise
from msmrec.verbs import agreement as agreement_verb
from msmrec.verbs import faithfulness as faithfulness_verb

ITEMS = pl.DataFrame(
    {
        "item_id": pl.Series([1, 2, 3], dtype=pl.Int32),
        "title": ["Heat (1995)", "Fargo (1996)", "Unknown"],
        "year": pl.Series([1995, 1996, None], dtype=pl.Int32),
        "genres": [["Action", "Crime"], ["Crime"], []],
    }
)
DOCUMENTS = pl.DataFrame(
    {
        "item_id": pl.Series([1, 1, 2], dtype=pl.Int32),
        "doc_id": ["a", "b", "c"],
        "source": ["kb"] * 3,
        "score": [2.0, 1.0, 2.0],
        "title": ["Heat", None, "Fargo"],
        "directors": ["Michael Mann", None, "Joel Coen, Ethan Coen"],
        "actors": ["Al Pacino, Robert De Niro", None, "Frances McDormand (Marge)"],
        "released": ["15 Dec 1995", None, "1996-04-05"],
        "text": [None, "A crew of 4 robs a bank in Los Angeles. Amy Brenneman plays Eady.", "A salesman hires men."],
        "poster_url": ["https://images/Wrong_Director_1777.jpg", None, None],
    }
)  # fmt: skip


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return Evidence.of(ITEMS, DOCUMENTS)


def score(evidence: Evidence, text: str | None, item_id: int = 1) -> dict[str, object]:
    frame = pl.DataFrame({"item_id": pl.Series([item_id], dtype=pl.Int32), "modality": ["set"], "text": [text]})
    return faithfulness(frame, evidence).row(0, named=True)


def test_shares_by_hand(evidence: Evidence) -> None:
    row = score(evidence, "In 1995 and 1999 Al Pacino, Will Pacino and De Niro rob 4 banks with 9 clowns.")
    assert (row["names"], row["years"], row["numbers"], row["words"]) == (3, 2, 2, 3)
    assert row["name_support"] == pytest.approx(2 / 3)  # Will Pacino: no such pair
    assert row["year_support"] == 0.5 and row["number_support"] == 0.5
    assert row["word_support"] == pytest.approx(2 / 3)  # rob, bank, not clown
    # terms of 3 items: in no evidence ln 4, in one's ln 2.5, in two's ln 2
    one, none = np.log(2.5), np.log(4)
    supported, rest = [one] * 6, [none] * 4  # Pacino, De Niro, 1995, 4, rob, bank; Will Pacino, 1999, 9, clown
    assert row["support"] == pytest.approx(sum(supported) / sum(supported + rest))


@pytest.mark.parametrize("text", ["", None, "   ", "of the and", "..."])
def test_no_claim_has_no_share(evidence: Evidence, text: str | None) -> None:
    row = score(evidence, text)
    assert [row[name] for name in ("support", "name_support", "number_support", "year_support", "word_support")] == [
        None
    ] * 5
    assert row["names"] == row["words"] == row["wrong_years"] == 0 and row["contradicted"] == []


@pytest.mark.parametrize(
    ("text", "item_id", "contradicted"),
    [
        ("Heat is a 1994 film.", 1, ["year 1994"]),
        ("Heat (1995), set in 1970, was released in 1995.", 1, []),
        ("Directed by Joel Coen.", 1, ["director Joel Coen"]),
        ("Directed by Al Pacino.", 1, ["director Al Pacino"]),  # known, but not as that
        ("Directed by Mann Michael, Heat is long.", 1, []),
        ("directed by Ethan Coen and Ed Wood", 2, ["director Ed Wood"]),
        ("starring Al Pacino, Robert M. De Niro and Ed Wood.", 1, ["cast Ed Wood"]),
        ("Amy Brenneman plays Eady.", 1, []),  # in no list, but in the text
        ("Los Angeles stars Amy Pacino", 1, ["cast Amy Pacino"]),
        ("Frances McDormand as Marge", 2, []),
        ("Directed by Ed Wood, starring Bela Lugosi (1959)", 3, []),  # nothing known, nothing contradicted
    ],
)
def test_contradictions(evidence: Evidence, text: str, item_id: int, contradicted: list[str]) -> None:
    row = score(evidence, text, item_id)
    assert row["contradicted"] == contradicted
    kinds = [entry.split()[0] for entry in contradicted]
    assert [row[f"wrong_{kind}"] for kind in ("years", "directors", "cast")] == [
        kinds.count(kind) for kind in ("year", "director", "cast")
    ]


def test_addresses_are_no_evidence_and_all_documents_count_once(evidence: Evidence) -> None:
    assert score(evidence, "see 1777")["support"] == 0
    again = Evidence.of(ITEMS, pl.concat([DOCUMENTS, DOCUMENTS]))
    assert again.fields.equals(evidence.fields)
    with pytest.raises(InputError, match="'a': its item 1 is not among"):
        Evidence.of(ITEMS[1:], DOCUMENTS)
    with pytest.raises(InputError, match="text 0: item 9"):
        score(evidence, "A", 9)


def test_documents_without_a_field_are_no_evidence_and_no_mistake() -> None:
    """As where items are described from their own columns."""
    bare = Evidence.of(ITEMS, DOCUMENTS.select("item_id", "doc_id"))
    assert set(bare.fields["doc_id"]) == {"item"}
    assert score(bare, "Heat came in 1995, with Al Pacino.")["numbers"] == score(bare, "1995")["numbers"]


def test_a_table_in_numbers_and_side_by_side(evidence: Evidence) -> None:
    def table(*texts: str) -> pl.DataFrame:
        ids = pl.Series([1, 1, 2, 2], dtype=pl.Int32)
        return pl.DataFrame({"item_id": ids, "modality": ["acting", "set"] * 2, "text": texts})

    good = table("Starring Al Pacino.", "A bank in Los Angeles.", "Starring Frances McDormand.", "")
    bad = table("Starring Ed Wood.", "A film.", "Starring Ed Wood.", "A film.")
    rows = summarise(good, evidence)
    assert rows["modality"].to_list() == ["acting", "set", "all"]
    assert rows["texts"].to_list() == [2, 1, 3] and rows["coverage"].to_list() == [1, 0.5, 0.75]
    assert rows["length"].to_list() == [3, 5, pytest.approx(11 / 3)]
    assert rows["support"].to_list() == [1, 1, 1] and rows["contradictions"].to_list() == [0, 0, 0]
    both = compare_faithfulness({"good": good, "bad": bad}, evidence)
    assert both.select("modality", "generator").rows() == [
        (modality, name) for modality in ("acting", "set", "all") for name in ("good", "bad")
    ]
    last = both.row(-1, named=True)
    assert last["contradictions"] == 50 and last["support"] == 0 and last["diversity"] == pytest.approx(0)
    # 'starring al pacino' and 'starring frances mcdormand': idf of the shared word 1, of the others 1 + ln 1.5
    other = 1 + np.log(1.5)
    assert both["diversity"][0] == pytest.approx(1 - 1 / (1 + 2 * other**2))
    lines = frame_markdown(both, DIGITS).splitlines()
    assert len(lines) == 8 and lines[3].startswith("| acting | bad | 2 | 1.000 | 3.0 | 0.000 |")
    assert "| - |" in lines[4]  # one text has no diversity


def test_nothing_breaks_it(evidence: Evidence) -> None:
    none = pl.DataFrame(schema={"item_id": pl.Int32, "modality": pl.String, "text": pl.String})
    assert len(faithfulness(none, evidence)) == 0 and len(compare_faithfulness({"none": none}, evidence)) == 0
    huge = [
        "Tom Hanks plays Al as Bo. " * 40_000,
        "x" * 1_000_000,
        "AL PACINO " * 100_000,
        "<" * 500_000,
        "(((1995" * 9,
    ]
    odd = ["<p>映画</p> \x00 \u202e", "ﷺ 😀 l'été", "{}[]%s\\"]
    texts = huge + odd
    frame = pl.DataFrame(
        {"item_id": pl.Series([1] * len(texts), dtype=pl.Int32), "modality": ["m"] * len(texts), "text": texts}
    )
    began = time.perf_counter()
    scores = faithfulness(frame, evidence)
    assert time.perf_counter() - began < 60
    assert len(scores) == len(texts) and scores["contradicted"][0].to_list() == ["cast Tom Hanks"]
    assert summarise(frame, evidence)["texts"].to_list() == [len(texts)] * 2


def test_separation_sees_chance(evidence: Evidence) -> None:
    texts = pl.DataFrame(
        {"item_id": pl.Series([1, 2], dtype=pl.Int32), "modality": ["a", "a"], "text": ["a bank", "a salesman"]}
    )
    found = separation(texts, evidence)
    assert found["modality"].to_list() == ["a", "all"] and found["auc"].to_list() == [1, 1]
    assert found["own"][0] == 1 and found["other"][0] == 0
    same = texts.with_columns(text=pl.lit("Crime"))  # in both
    assert separation(same.with_columns(text=pl.lit("a crime")), evidence)["auc"][0] == 0.5


def test_verbs(tiny_root: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    knowledge = [str(next(tiny_root.glob("simulated*/knowledge.jsonl")))]
    schema = [{"name": name, "prose": [name]} for name in ("narrative", "visual", "set")]
    text = {"knowledge": knowledge, "modalities": schema, "encoder": {"class_path": "TfidfSvdEncoder"}, "dim": 8}
    configs = []
    for name, words in (("long", 60), ("short", 4)):
        (tmp_path / name).mkdir()
        generator = {"class_path": "Extractive", "init_args": {"max_words": words}}
        configs.append(str(tiny_config("msmrec_ml100k.yaml", tmp_path / name, {**text, "generator": generator})))
    places = [*TINY_DATA, "--data.root", str(tiny_root), "--data.cache", str(cache)]
    out, sheet = tmp_path / "scores.parquet", tmp_path / "sheet.csv"
    faithfulness_verb.main([*configs, "--out", str(out), "--sheet", str(sheet), "--sheet_rows", "6", *places])
    printed = capsys.readouterr().out
    assert printed.count("| all |") == 2 and f"{sheet}: 12 texts to rate" in printed
    scores = pl.read_parquet(out)
    assert scores["config"].unique(maintain_order=True).to_list() == configs
    lengths = scores.filter(pl.col("length") > 0).group_by("config", maintain_order=True).agg(pl.col("length").mean())
    assert lengths["length"][0] > lengths["length"][1] and scores["support"].mean() == 1
    for rater, rating in (("anna", 4), ("bo", 5)):
        filled = pl.read_csv(sheet).with_columns(factual=pl.lit(rating), useful=pl.int_range(pl.len()) % 5 + 1)
        filled.write_csv(tmp_path / f"{rater}.csv")
    agreement_verb.main(
        [str(tmp_path / "anna.csv"), str(tmp_path / "bo.csv"), "--key", str(sheet.with_suffix(".key.csv"))]
    )
    printed = capsys.readouterr().out
    assert "| useful | 1.000 | 2 | 12 |" in printed and f"| {configs[0]} | 2 | 12 | 4.500 |" in printed
    with pytest.raises(InputError, match="reads no texts"):
        faithfulness_verb.main(["sasrec_ml100k", *places])
