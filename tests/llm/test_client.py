"""What counts as an answer, what it is kept under, and that a kill loses none."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from msmrec.artifacts import InputError
from msmrec.llm.answers import Answer, Answers
from msmrec.llm.client import Price, Request, object_schema, prompt_tokens, read, repair

SCHEMA = object_schema({"a": "first", "b": "second"})


@pytest.mark.parametrize(
    ("text", "content", "problem"),
    [
        ('{"a": "x", "b": ""}', {"a": "x", "b": ""}, ""),
        ('Sure:\n```json\n{"a": "x", "b": "y"}\n```\nBye {', {"a": "x", "b": "y"}, ""),
        ('{"draft": 1} then {"a": "x", "b": "y", "c": 3}', {"a": "x", "b": "y", "c": 3}, ""),
        ('{"a": "{", "b": "}"}', {"a": "{", "b": "}"}, ""),
        ('{"a": "x", "b": "cut of', None, "answer: no JSON object"),
        ('{"a": "x"}', None, "answer: no b"),
        ('{"a": "x", "b": ["y"]}', None, "answer: b is no string"),
        ("[1, 2]", None, "answer: no JSON object"),
        ("", None, "answer: no JSON object"),
        ("{" * 100_000, None, "answer: no JSON object"),
    ],
)
def test_the_object_in_an_answer(text: str, content: dict[str, str] | None, problem: str) -> None:
    assert read(text, SCHEMA) == (content, problem)


def test_prose_where_prose_was_asked_for() -> None:
    assert read("A film.", None) == (None, "") and read(" ", None) == (None, "answer: empty")


def test_the_key_changes_with_all_that_the_answer_depends_on() -> None:
    one = Request([{"role": "user", "content": "x"}], SCHEMA, 10)
    others = [
        one._replace(messages=[{"role": "user", "content": "y"}]),
        one._replace(messages=[{"role": "system", "content": "x"}]),
        one._replace(schema=None),
        one._replace(max_tokens=11),
    ]
    assert len({request.key("m") for request in [one, *others]} | {one.key("n")}) == 6
    assert one.key("m") == Request(
        [{"role": "user", "content": "x"}], object_schema({"a": "first", "b": "second"}), 10
    ).key("m")


def test_a_repair_shows_the_answer_and_what_was_wrong() -> None:
    again = repair(Request([{"role": "user", "content": "x"}], SCHEMA), "prose " * 1000, "answer: no b")
    assert [turn["role"] for turn in again.messages] == ["user", "assistant", "user"]
    assert "no b" in again.messages[2]["content"] and "a, b" in again.messages[2]["content"]
    assert len(again.messages[1]["content"]) == 2000


def test_prices_and_tokens() -> None:
    assert Price(0.15, 0.6).of(2_000_000, 1_000_000) == pytest.approx(0.9)
    assert prompt_tokens(Request([{"role": "user", "content": "x" * 400}])) == 100


def _answer_and_wait(path: Path, ready: "multiprocessing.synchronize.Event") -> None:
    answers = Answers(path)
    for k in range(100):
        answers.add(f"key{k}", Answer(f"text {k}", k, 1, False))
    ready.set()
    signal.pause()


def test_a_kill_loses_no_answer_and_others_may_write_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_answer_and_wait, args=(path, ready))
    process.start()
    assert ready.wait(120)
    with Answers(path) as beside:
        beside.add("mine", Answer("é", 1, 2, True))
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        assert len(beside) == 101
    with Answers(path) as after:
        assert [after.get(f"key{k}") for k in (0, 99)] == [
            Answer("text 0", 0, 1, False),
            Answer("text 99", 99, 1, False),
        ]
        assert after.get("mine") == Answer("é", 1, 2, True) and after.get("other") is None


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    path.write_text("something else, long enough to be no empty file " * 50)
    with pytest.raises(InputError, match="no store of answers"):
        Answers(path)
