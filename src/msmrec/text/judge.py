"""A language model's opinion of how far texts rest on their documents, beside what `faithfulness` counts."""

import json
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Any

import polars as pl
from tqdm import tqdm

from msmrec.columns import ITEM_ID, MODALITY, NOTE, TEXT
from msmrec.data.plain_text import plain
from msmrec.llm.answers import Answers
from msmrec.llm.client import ChatModel, Request
from msmrec.text.writer import FIELDS, as_data, read_prompt

MAX_CONTEXT = 8000  # characters of documents in a prompt, as a writer reads them by default
GRADES = (0, 1, 2)  # contradicted or not mentioned, supported in part, supported in full


def judge(
    texts: pl.DataFrame, items: pl.DataFrame, documents: pl.DataFrame, model: ChatModel, answers: Path
) -> pl.DataFrame:
    """Asks a model to grade texts against their items' documents, an item a request.

    Args:
        texts: item_id, modality, text; empty texts are not judged.
        items: item_id, title, year.
        documents: item_id, doc_id and the documents' fields, as `ItemText.documents` returns them.
        model: the judge.
        answers: file of its answers; what it was asked before is not asked again.

    Returns:
        item_id, modality, judged (Int64: 0 contradicted or not mentioned, 1 in part, 2 in full; null where the answer
        was of no use) and note (why), a row a text that is not empty.
    """
    system, user = read_prompt("judge", (*FIELDS, "descriptions"))
    told = texts.filter(pl.col(TEXT).fill_null("") != "").select(ITEM_ID, MODALITY, TEXT)
    of_item = {key[0]: rows for key, rows in told.group_by(ITEM_ID, maintain_order=True)}
    known = {key[0]: rows.to_dicts() for key, rows in documents.group_by(ITEM_ID, maintain_order=True)}
    rows = items.filter(pl.col(ITEM_ID).is_in(list(of_item)))

    def requests() -> Iterator[Request]:
        for item in rows.iter_rows(named=True):
            said = dict(of_item[item[ITEM_ID]].select(MODALITY, TEXT).iter_rows())
            found = [{k: v for k, v in row.items() if isinstance(v, str) and v} for row in known.get(item[ITEM_ID], [])]
            yield _request(system, user, item, found, said)

    judged: list[int | None] = []
    notes: list[str] = []
    with Answers(answers) as kept, tqdm(total=len(rows), desc="judge", unit="item") as bar:
        for (item_id,), reply in zip(rows.select(ITEM_ID).iter_rows(), model.ask(requests(), kept), strict=True):
            for name in of_item[item_id][MODALITY]:
                value = (reply.content or {}).get(name)
                judged.append(value if value in GRADES else None)
                notes.append(reply.note if value in GRADES or reply.content is None else f"answer: grade {value}")
            bar.update()
    order = rows.select(ITEM_ID).join(told, on=ITEM_ID, maintain_order="left").select(ITEM_ID, MODALITY)
    return order.with_columns(pl.Series("judged", judged, pl.Int64), pl.Series(NOTE, notes, pl.String))


def _request(
    system: Template, user: Template, item: dict[str, Any], documents: list[dict[str, str]], said: dict[str, str]
) -> Request:
    """What the judge is asked about one item: a grade for each of its texts, by modality in `said`."""
    words = {
        "aspects": "\n".join(f"- {name}" for name in said),
        "item": f"{plain(item['title'])} ({item.get('year') or 'year unknown'})",
        "documents": as_data(documents, MAX_CONTEXT),
        "descriptions": json.dumps(said, ensure_ascii=False),
        "max_words": "",
    }
    grade = {"type": "integer", "enum": list(GRADES)}
    schema = {
        "type": "object", "properties": dict.fromkeys(said, grade), "required": list(said),
        "additionalProperties": False,
    }  # fmt: skip
    messages = [
        {"role": "system", "content": system.substitute(words)},
        {"role": "user", "content": user.substitute(words)},
    ]
    return Request(messages, schema, 16 * len(said) + 16)
