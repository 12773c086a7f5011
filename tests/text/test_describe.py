"""Modality texts: what is chosen, from where, and that nothing is made up."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import polars as pl
import pytest
from tests.text.verbatim import not_verbatim

from msmrec.artifacts import InputError
from msmrec.text.describe import Description, Generator, ItemDocuments, describe
from msmrec.text.extractive import Extractive, split_sentences
from msmrec.text.knowledge import KnowledgeBase
from msmrec.text.modalities import Modality, check_schema
from msmrec.text.schemas import MOVIE_MODALITIES

ITEMS = pl.DataFrame(
    {
        "item_id": pl.Series([1, 2], dtype=pl.Int32),
        "raw_item_id": ["10", "20"],
        "title": ["Heat (1995)", "Nobody Knows (1970)"],
        "year": pl.Series([1995, None], dtype=pl.Int32),
        "genres": [["Action", "Crime", "Musical"], []],
    }
)
PLOT = "A crew robs banks. A detective hunts them."
WIKI = (
    "Heat is a 1995 American film directed by Michael Mann. It stars Al Pacino. "
    "The music was composed by Elliot Goldenthal. The film is set in Los Angeles. "
    "The film is set in Los Angeles! Nothing that fits anywhere."
)


@pytest.fixture
def knowledge(tmp_path: Path) -> KnowledgeBase:
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    first = {"doc_id": "a", "title": "Heat", "year": "1995", "plot": PLOT, "directors": "Michael Mann"}
    first |= {"actors": "Al Pacino, Val Kilmer", "certificate": "PG", "released": "15 Dec 1995", "writers": ""}
    one.write_text(json.dumps(first))
    second = {"doc_id": "b", "text": WIKI, "actors": "AL PACINO|Amy Brenneman", "released": "1995-12-15"}
    two.write_text(json.dumps(second))
    return KnowledgeBase.read([one, two])


def texts(knowledge: KnowledgeBase) -> pl.DataFrame:
    found = knowledge.retrieve(ITEMS)
    return pl.concat(describe(ITEMS, knowledge, found, MOVIE_MODALITIES, Extractive(), Path("unused")))


def texts_of(frame: pl.DataFrame, item_id: int) -> dict[str, str]:
    return dict(frame.filter(pl.col("item_id") == item_id).select("modality", "text").iter_rows())


def test_every_item_has_every_modality_in_order(knowledge: KnowledgeBase) -> None:
    frame = texts(knowledge)
    names = ["narrative", "dialogue", "visual", "set", "audio", "pace", "direction", "acting", "poster"]
    assert frame.schema == {
        "item_id": pl.Int32,
        "modality": pl.String,
        "text": pl.String,
        "doc_ids": pl.List(pl.String),
        "note": pl.String,
    }
    assert frame["item_id"].to_list() == [1] * 9 + [2] * 9
    assert frame["modality"].to_list() == names * 2


def test_sentences_and_fields_go_where_they_belong(knowledge: KnowledgeBase) -> None:
    frame = texts(knowledge)
    assert texts_of(frame, 1) == {
        "narrative": PLOT,
        "dialogue": "",
        "visual": "",
        "set": "The film is set in Los Angeles.",  # once, though it comes twice
        "audio": "Genre: Musical. The music was composed by Elliot Goldenthal.",
        "pace": "Genre: Action.",
        "direction": "Directed by: Michael Mann. Heat is a 1995 American film directed by Michael Mann.",
        "acting": "Starring: Al Pacino, Val Kilmer, Amy Brenneman. It stars Al Pacino.",
        "poster": "Certificate: PG. Released: 15 Dec 1995.",
    }
    doc_ids = dict(frame.filter(pl.col("item_id") == 1).select("modality", "doc_ids").iter_rows())
    assert doc_ids["audio"] == ["item", "b"]
    assert doc_ids["acting"] == ["a", "b"]
    assert doc_ids["visual"] == []


def test_an_item_without_documents_has_empty_texts(knowledge: KnowledgeBase) -> None:
    frame = texts(knowledge)
    assert set(texts_of(frame, 2).values()) == {""}


def test_the_length_limit_drops_whole_sentences_and_list_entries() -> None:
    schema = [Modality("narrative", prose=["plot"]), Modality("acting", fields={"actors": "Starring"})]
    documents = [{"doc_id": "d", "plot": "One two three. Four five six seven. Eight.", "actors": "A B, C D, E F"}]
    narrative, acting = Extractive(max_words=5).generate(documents, schema)
    assert narrative == Description("One two three.", ["d"])  # 'Eight.' would not follow on
    assert acting.text == "Starring: A B, C D."


def test_titles_stay_whole_and_only_dates_are_the_same_by_their_year() -> None:
    schema = [
        Modality("title", {"title": "Title"}),
        Modality("facts", {"features": "Features", "released": "Released"}),
    ]
    documents = [
        {"doc_id": "a", "title": "Tomorrow, and Tomorrow, and Tomorrow", "features": "Born in 1984, Died in 1984"},
        {"doc_id": "b", "title": "TOMORROW, and tomorrow, and tomorrow (2022)", "released": "22 Nov 1995"},
        {"doc_id": "c", "title": "On | Off", "released": "1995-11-22 | 22nd November 1995 (USA) | May 1996"},
    ]
    title, facts = Extractive().generate(documents, schema)
    assert title.text == "Title: Tomorrow, and Tomorrow, and Tomorrow, On | Off."
    assert facts.text == "Features: Born in 1984, Died in 1984. Released: 22 Nov 1995, May 1996."
    copied = {"item_id": 1, "modality": ["title", "facts"], "text": [title.text, facts.text]}
    fields = [(1, document["doc_id"], value) for document in documents for value in document.values()]
    found = pl.DataFrame(fields, schema=["item_id", "doc_id", "value"], orient="row")
    frame = pl.DataFrame({**copied, "doc_ids": [title.doc_ids, facts.doc_ids]})
    assert not_verbatim(frame, found, schema).is_empty()


def test_one_sentence_longer_than_the_limit_is_cut_to_it() -> None:
    schema = [Modality("narrative", prose=["plot"])]
    (only,) = Extractive(max_words=3).generate([{"doc_id": "d", "plot": "a b c d e f."}], schema)
    assert only.text == "a b c"


@pytest.mark.parametrize(
    ("plot", "text"),
    [
        ("一二三四五六七八九十" * 100 + "。", "一二三四五"),
        ("一二，三。四五。六七。", "一二，三。 四五。"),
        ("Ring (リング) came out in Japan.", "Ring (リング) came out in"),
        ("กขคงจฉช", "กขคงจ"),
    ],
)
def test_scripts_without_spaces_are_counted_by_their_signs(plot: str, text: str) -> None:
    schema = [Modality("narrative", prose=["plot"])]
    (only,) = Extractive(max_words=5).generate([{"doc_id": "d", "plot": plot}], schema)
    assert only.text == text


def test_prose_without_room_goes_by_its_cues_and_keeps_its_order() -> None:
    schema = [Modality("narrative", prose=["plot"]), Modality("audio", cues=["song", "score"])]
    plot = "They meet in town. The song plays twice. Then a score swells up. They part."
    narrative, audio = Extractive(max_words=12).generate([{"doc_id": "d", "plot": plot}], schema)
    assert narrative.text == "They meet in town. The song plays twice."
    assert audio.text == "Then a score swells up."


def test_near_identical_sentences_are_said_once() -> None:
    schema = [Modality("narrative", prose=["plot", "overview"])]
    documents = [
        {"doc_id": "d", "plot": "A young thief steals the red diamond from the museum."},
        {"doc_id": "e", "overview": "A young thief steals a red diamond from the museum. Police follow."},
    ]
    (only,) = Extractive().generate(documents, schema)
    assert only.text == "A young thief steals the red diamond from the museum. Police follow."
    assert only.doc_ids == ["d", "e"]


def test_placeholders_and_printed_records_are_no_evidence() -> None:
    documents = [
        {"doc_id": "d", "overview": "No overview found."},
        {"doc_id": "e", "text": "Movie: Grease (1978), Genres: ['Musical', 'Action']"},
    ]
    assert {said.text for said in Extractive().generate(documents, MOVIE_MODALITIES)} == {""}


def test_nothing_is_made_up(knowledge: KnowledgeBase) -> None:
    labels = {label for modality in MOVIE_MODALITIES for label in modality.fields.values()} | {"Genre"}
    frame = texts(knowledge)
    known = " ".join([PLOT, WIKI, "Michael Mann", "Al Pacino", "Val Kilmer", "Amy Brenneman", "PG", "15 Dec 1995"])
    known += " Action Musical"
    for text in frame["text"]:
        for sentence in split_sentences(text):
            label, _, values = sentence.partition(": ")
            if label in labels:
                assert all(value in known for value in values.removesuffix(".").split(", ")), sentence
            else:
                assert sentence in known


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Dr. Smith came. He left.", ["Dr. Smith came.", "He left."]),
        ("By J. R. Ewing Jr. and co. Next one!", ["By J. R. Ewing Jr. and co.", "Next one!"]),
        ('He said "Go." Then he went.', ['He said "Go."', "Then he went."]),
        ("No end  here", ["No end here"]),
        ("He saw e.g. this one. 3 left.", ["He saw e.g. this one.", "3 left."]),
        ("Банда грабит банки. Её ищет А. С. Ким.", ["Банда грабит банки.", "Её ищет А. С. Ким."]),
        ("Ο Νίκος φεύγει. Όλοι τον ψάχνουν.", ["Ο Νίκος φεύγει.", "Όλοι τον ψάχνουν."]),
        ("Ktoś ginie. Śledczy szuka. Čas plyne. İz yok.", ["Ktoś ginie.", "Śledczy szuka.", "Čas plyne.", "İz yok."]),
        ("¿Quién es? «Nadie.» ¡Corre!", ["¿Quién es?", "«Nadie.»", "¡Corre!"]),
        ("他抢银行。“谁？”他问！！没有人。", ["他抢银行。", "“谁？”", "他问！！", "没有人。"]),
        ("彼は「行く。」明日だ。", ["彼は「行く。」", "明日だ。"]),
        ("वह आता है। सब जाते हैं।", ["वह आता है।", "सब जाते हैं।"]),
        ("من هو؟ لا أحد يعرف. جاء رجل.", ["من هو؟", "لا أحد يعرف.", "جاء رجل."]),
        ("", []),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


def test_another_generator_is_given_item_and_documents(
    knowledge: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Titles(Generator):
        fingerprint = "titles"

        def write(
            self, evidence: Iterable[ItemDocuments], schema: Sequence[Modality], cache: Path, total: int | None = None
        ) -> Iterator[list[Description]]:
            for item, documents in evidence:
                ids = [document["doc_id"] for document in documents]
                yield [Description(f"{modality.name} of {item['title']}", ids, "made") for modality in schema]

    schema = [Modality("mood", cues=["mood"])]
    monkeypatch.setattr("msmrec.text.describe.BLOCK", 1)  # a block an item
    blocks = list(describe(ITEMS, knowledge, knowledge.retrieve(ITEMS), schema, Titles(), Path("unused")))
    frame = pl.concat(blocks)
    assert len(blocks) == 2 and frame["note"].to_list() == ["made", "made"]
    assert frame["text"].to_list() == ["mood of Heat (1995)", "mood of Nobody Knows (1970)"]
    assert frame["doc_ids"].to_list() == [["item", "a", "b"], ["item"]]


def test_a_senseless_schema_is_refused() -> None:
    with pytest.raises(InputError, match="would stay empty"):
        Modality("mood")
    with pytest.raises(InputError, match="lower case"):
        Modality("mood", cues=["Sad"])
    with pytest.raises(InputError, match="no regular expression"):
        Modality("mood", cues=["(sad"])
    with pytest.raises(InputError, match="different names"):
        check_schema([Modality("mood", cues=["sad"]), Modality("mood", cues=["glad"])])


def test_one_generator_serves_two_schemas() -> None:
    generator = Extractive()
    documents = [{"doc_id": "d", "text": "A song plays. A funny joke falls flat."}]
    texts = [
        generator.generate(documents, [Modality("mood", cues=[cue])])[0].text for cue in ("song", "(funny|sad) joke")
    ]
    assert texts == ["A song plays.", "A funny joke falls flat."]
