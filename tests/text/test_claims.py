"""What is read as a claim, by hand."""

import polars as pl
import pytest

from msmrec.text import claims as module
from msmrec.text.claims import claims, stated_people, stated_years, stem, terms


def claimed(text: str) -> dict[str, set[str]]:
    table = claims(pl.Series([text]))
    return {kind: set(table.filter(pl.col("kind") == kind)["claim"]) for kind in table["kind"].unique()}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It stars Al Pacino.", {"names": {"al pacino"}}),
        ("Al Pacino robs two banks.", {"names": {"al pacino"}, "words": {"rob", "2", "bank"}}),
        ("Suddenly rain falls. Banks burn.", {"words": {"sudden", "rain", "fal", "bank", "burn"}}),  # openers
        ("He meets Marty, Doc and Biff.", {"names": {"mart", "doc", "bif"}, "words": {"meet"}}),
        ("Harry S. Truman met Dr. Brown", {"names": {"har truman", "brown"}, "words": {"met"}}),
        ("in the 1990s, for $1,000.50", {"years": {"1990"}, "numbers": {"1000.50"}}),
        ("<b>Al&nbsp;Pacino</b> at **Yale**", {"names": {"al pacino", "yal"}}),
        ("Amélie CAFÉ", {"names": {"ameli caf"}}),
        ("映画 の", {"words": {"映", "画", "の"}}),
        ("Он любит Москву", {"words": {"любит", "он"}, "names": {"москву"}}),
        ("the of and", {}),
        ("", {}),
    ],
)
def test_claims(text: str, expected: dict[str, set[str]]) -> None:
    assert claimed(text) == expected


def test_a_name_of_several_words_is_its_neighbouring_pairs() -> None:
    table = claims(pl.Series(["", "by Francis Ford Coppola", None]))
    assert set(table["row"]) == {1} and table["claim"].n_unique() == 1
    assert set(table["term"]) == {"ford franci", "coppola ford"}
    known = set(terms(pl.Series(["Francis Ford Coppola made it"]))["term"])
    assert set(table["term"]) <= known and "coppola franci" in known  # a middle name may be left out


def test_words_are_compared_without_endings_and_months_without_their_length() -> None:
    for one, other in [
        ("robbed", "robs"),
        ("story", "stories"),
        ("Pacino's", "Pacino"),
        ("November", "Nov"),
        ("two", "2"),
    ]:
        assert stem(one) == stem(other), one
    assert stem("bank") != stem("band")


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("Heat (1995) is long.", [1995]),
        ("It was released in the United States on November 20, 1992.", [1992]),
        ("Released: 15 Dec 1995.", [1995]),
        ("a 1995 American neo-noir film", [1995]),
        ("In 1995 he robs a bank; 200 guests (12) left", []),
        ("the 1990s", []),
    ],
)
def test_stated_years(text: str, years: list[int]) -> None:
    assert stated_years(pl.Series([text]))["year"].to_list() == years


@pytest.mark.parametrize(
    ("text", "role", "names"),
    [
        ("Directed by: Joel Coen, Ethan Coen. Fargo is", "director", ["Joel Coen", "Ethan Coen"]),
        ("directed by Robert De Niro and J. Lee Thompson. It", "director", ["Robert De Niro", "J. Lee Thompson"]),
        ("Directed by Michael Mann, Heat is a film", "director", ["Michael Mann"]),
        ("He is directed by fate.", "director", []),
        ("starring Tom Hanks as Forrest Gump, Robin Wright as Jenny", "cast", ["Tom Hanks", "Robin Wright"]),
        ("Val Kilmer plays a thief; Ann is played by Amy Brenneman.", "cast", ["Val Kilmer", "Amy Brenneman"]),
        ("It stars people.", "cast", []),
    ],
)
def test_stated_people(text: str, role: str, names: list[str]) -> None:
    assert sorted(stated_people(pl.Series([text]), role)["name"]) == sorted(names)


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = pl.Series([f"Al Pacino robs {k} banks in May" for k in range(30)] + [""] * 3)
    whole = claims(texts)
    monkeypatch.setattr(module, "_BLOCK_CHARS", 70)
    assert claims(texts).sort(pl.all()).equals(whole.sort(pl.all()))
    assert claims(texts[:0]).schema == whole.schema
