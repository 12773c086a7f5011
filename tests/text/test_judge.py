"""A model's grades: what it is shown, and what becomes of grades that are none."""

import json
from pathlib import Path

import polars as pl
from tests.llm.proxy import FaultProxy

from msmrec.llm.server import OpenAIServer
from msmrec.text.judge import judge

TEXTS = pl.DataFrame(
    {
        "item_id": pl.Series([1, 1, 2, 3], dtype=pl.Int32),
        "modality": ["narrative", "acting", "narrative", "narrative"],
        "text": ["A crew robs banks.", "Al Pacino.", "", "Ants talk."],
    }
)
ITEMS = (
    TEXTS.select("item_id")
    .unique(maintain_order=True)
    .with_columns(title=pl.Series(["Heat", "Kim", "Antz"]), year=pl.Series([1995, 1950, None]))
)
DOCUMENTS = pl.DataFrame(
    {"item_id": pl.Series([1, 1], dtype=pl.Int32), "doc_id": ["a", "b"], "score": [1.0, 1.0], "plot": ["Banks.", None]}
)


def test_grades(tmp_path: Path) -> None:
    proxy = FaultProxy("http://127.0.0.1:9", lambda number, body: "canned")
    try:
        proxy.content = json.dumps({"narrative": 2, "acting": 7})
        grades = judge(TEXTS, ITEMS, DOCUMENTS, OpenAIServer("m", proxy.url, in_flight=1), tmp_path / "a.sqlite")
    finally:
        proxy.close()
    assert grades.rows() == [(1, "narrative", 2, ""), (1, "acting", None, "answer: grade 7"), (3, "narrative", 2, "")]
    asked = [body["messages"][1]["content"] for body in proxy.seen]
    assert len(asked) == 2  # an item without a text is not asked about
    assert asked[0].startswith("Item: Heat (1995)\nDocuments:\n") and '"plot": "Banks."' in asked[0]
    assert '{"narrative": "A crew robs banks.", "acting": "Al Pacino."}' in asked[0]
    assert asked[1].startswith("Item: Antz (year unknown)")
    assert proxy.seen[0]["response_format"]["json_schema"]["schema"]["properties"]["acting"]["enum"] == [0, 1, 2]


def test_an_answer_in_prose_is_no_grade(tmp_path: Path) -> None:
    proxy = FaultProxy("http://127.0.0.1:9", lambda number, body: "prose")
    try:
        grades = judge(TEXTS[3:], ITEMS, DOCUMENTS, OpenAIServer("m", proxy.url), tmp_path / "a.sqlite")
    finally:
        proxy.close()
    assert grades.rows() == [(3, "narrative", None, "answer: no JSON object")]
