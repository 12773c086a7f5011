"""Asking a real server, `transformers serve`, straight and through a proxy that delays, cuts and refuses."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.llm.fixtures import JSON_PIECES, SAID
from tests.llm.proxy import FaultProxy

from msmrec.artifacts import InputError
from msmrec.llm.answers import Answers
from msmrec.llm.client import Reply, Request, object_schema
from msmrec.llm.server import OpenAIServer

SCHEMA = object_schema({"narrative": "what happens", "acting": "who plays"})
CANNED_ONLY = pytest.mark.parametrize("proxy", [False], indirect=True)


def question(number: int, schema: dict[str, Any] | None = SCHEMA) -> Request:
    return Request([{"role": "user", "content": f"Item {number}"}], schema, 40)


@pytest.fixture
def answers(tmp_path: Path) -> Iterator[Answers]:
    with Answers(tmp_path / "answers.sqlite") as opened:
        yield opened


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def ask(server: OpenAIServer, requests: list[Request], answers: Answers) -> list[Reply]:
    return list(server.ask(requests, answers))


def test_a_real_server_answers_and_is_asked_once(server: str, chat_model: Path, answers: Answers) -> None:
    model = OpenAIServer(str(chat_model), server, in_flight=4)
    replies = ask(model, [question(k) for k in range(6)], answers)
    assert [reply.content for reply in replies] == [SAID] * 6
    assert {(reply.note, reply.stored, reply.completion_tokens) for reply in replies} == {
        ("", False, len(JSON_PIECES) + 1)
    }
    assert all(reply.prompt_tokens > 5 for reply in replies) and len(answers) == 6
    nowhere = OpenAIServer(str(chat_model), "http://127.0.0.1:9/v1", max_retries=0)
    again = ask(nowhere, [question(k) for k in range(6)], answers)  # the address does not matter: all is known
    assert [reply.content for reply in again] == [SAID] * 6 and all(reply.stored for reply in again)
    with pytest.raises(InputError, match=r"nobody answers at http://127.0.0.1:9/v1"):
        ask(nowhere, [question(6)], answers)


def test_prose_is_asked_for_once_more_and_then_given_up(server: str, prose_model: Path, answers: Answers) -> None:
    (reply,) = ask(OpenAIServer(str(prose_model), server), [question(1)], answers)
    assert (
        reply.content is None and reply.note == "answer: no JSON object" and reply.text == "Sure! It is a lovely film."
    )
    assert reply.completion_tokens == 2 * 4  # both answers are paid for
    (again,) = ask(OpenAIServer(str(prose_model), "http://127.0.0.1:9/v1"), [question(1)], answers)
    assert again.stored and again.note == reply.note  # what is of no use is not asked for again either
    (free,) = ask(OpenAIServer(str(prose_model), server), [question(1, None)], answers)
    assert free.note == "" and free.text == reply.text  # prose is fine where prose was asked for


def test_faults_on_the_way_are_outlived(proxy: FaultProxy, chat_model: Path, answers: Answers) -> None:
    faults = ["429", "500", "cut", "garbage", "503", "delay:0.3", "pass"]
    proxy.faults = lambda number, body: faults[(number - 1) % len(faults)] if number <= 14 else "pass"
    model = OpenAIServer(str(chat_model), proxy.url, in_flight=3)
    replies = ask(model, [question(k) for k in range(10)], answers)
    assert [(reply.content, reply.note) for reply in replies] == [(SAID, "")] * 10
    assert all(proxy.done[fault] == 2 for fault in ("429", "500", "cut", "garbage", "503"))
    assert len(proxy.seen) == 10 + 10  # ten faults, ten answers


@CANNED_ONLY
def test_an_answer_in_prose_is_repaired_by_asking_again(proxy: FaultProxy, answers: Answers) -> None:
    proxy.content = "Here it is:\n```json\n" + json.dumps(SAID) + "\n```"
    proxy.faults = lambda number, body: "canned" if "not usable" in body["messages"][-1]["content"] else "prose"
    replies = ask(OpenAIServer("m", proxy.url), [question(k) for k in range(3)], answers)
    assert [(reply.content, reply.note) for reply in replies] == [(SAID, "repaired")] * 3
    assert [turn["role"] for turn in proxy.seen[-1]["messages"]] == ["user", "assistant", "user"]
    assert [reply.note for reply in ask(OpenAIServer("m"), [question(1)], answers)] == ["repaired"]


@CANNED_ONLY
def test_a_server_that_fails_the_repair_is_asked_again_by_the_next_run(proxy: FaultProxy, answers: Answers) -> None:
    proxy.content = json.dumps(SAID)
    proxy.faults = lambda number, body: "503" if "not usable" in body["messages"][-1]["content"] else "prose"
    model = OpenAIServer("m", proxy.url, max_retries=0)
    (reply,) = ask(model, [question(1)], answers)
    assert reply.content is None and reply.note.startswith("server: InternalServerError") and len(answers) == 0
    assert reply.completion_tokens == 1  # the first answer is paid for
    proxy.faults = lambda number, body: "canned" if "not usable" in body["messages"][-1]["content"] else "prose"
    (again,) = ask(model, [question(1)], answers)
    assert (again.content, again.note, again.stored) == (SAID, "repaired", False)
    proxy.faults = lambda number, body: "400:too long" if "not usable" in body["messages"][-1]["content"] else "prose"
    assert [ask(model, [question(2)], answers)[0].note for _ in range(2)] == ["answer: no JSON object"] * 2
    assert len(answers) == 2  # a repair that is refused leaves the first answer: it would be refused again


@CANNED_ONLY
def test_a_server_without_json_schema_is_asked_with_less(proxy: FaultProxy, answers: Answers) -> None:
    proxy.content = json.dumps(SAID)
    formats = []

    def faults(number: int, body: dict[str, Any]) -> str:
        formats.append(body.get("response_format", {}).get("type"))
        return "canned" if formats[-1] is None else "400:response_format is not supported"

    proxy.faults = faults
    replies = ask(OpenAIServer("m", proxy.url, in_flight=1), [question(1), question(2)], answers)
    assert [reply.content for reply in replies] == [SAID] * 2
    assert formats == ["json_schema", "json_object", None, None]  # learned once


@CANNED_ONLY
def test_refusals_of_requests_in_flight_together_are_learned_from_once(proxy: FaultProxy, answers: Answers) -> None:
    proxy.content = json.dumps(SAID)
    proxy.faults = lambda number, body: (
        "400:response_format is not supported" if "response_format" in body else "canned"
    )
    replies = ask(OpenAIServer("m", proxy.url, in_flight=16), [question(k) for k in range(16)], answers)
    assert [(reply.content, reply.note) for reply in replies] == [(SAID, "")] * 16


@CANNED_ONLY
def test_a_refused_request_leaves_the_others(proxy: FaultProxy, answers: Answers) -> None:
    proxy.content = json.dumps(SAID)
    proxy.faults = lambda number, body: "400:too long" if "Item 1" in body["messages"][0]["content"] else "canned"
    replies = ask(OpenAIServer("m", proxy.url), [question(k) for k in range(3)], answers)
    assert [reply.content for reply in replies] == [SAID, None, SAID]
    assert replies[1].note.startswith("server: refused (BadRequestError: ") and "too long" in replies[1].note
    assert len(answers) == 2  # a refusal is asked again by the next run


@CANNED_ONLY
def test_64_requests_stay_in_flight_and_replies_keep_their_order(proxy: FaultProxy, answers: Answers) -> None:
    proxy.content = json.dumps(SAID)
    # The first hundred wait for each other, however slow the machine is; later some are slow.
    proxy.faults = lambda number, body: f"canned:{3 if number <= 100 else 0.02 if number % 50 else 1}"
    read = 0

    def requests() -> Iterator[Request]:
        nonlocal read
        for read in range(1, 401):
            yield question(read)

    replies = OpenAIServer("m", proxy.url).ask(requests(), answers)
    next(replies)
    assert read <= 8 * 64  # no more is read than the window holds
    assert len(list(replies)) == 399 and proxy.most == 64
    for k in (1, 200, 400):  # each question has its own answer
        kept = answers.get(question(k).key(OpenAIServer("m").fingerprint))
        assert kept is not None


@CANNED_ONLY
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("401:bad key", "refuses the key.*OPENAI_API_KEY"),
        ("404:unknown", "has no model m"),
        ("500", "2 times in a row"),
    ],
)
def test_what_cannot_go_on_stops_in_one_line(proxy: FaultProxy, answers: Answers, fault: str, message: str) -> None:
    proxy.content = json.dumps(SAID)
    proxy.faults = lambda number, body: "canned" if number == 1 else fault
    model = OpenAIServer("m", proxy.url, in_flight=1, max_retries=0, max_failures=2)
    with pytest.raises(InputError, match=message) as caught:
        ask(model, [question(k) for k in range(5)], answers)
    assert "\n" not in str(caught.value)
    assert len(answers) == 1  # what was paid for is kept


def test_openai_needs_a_key_and_others_do_not(answers: Answers) -> None:
    with pytest.raises(InputError, match=r"no key for https://api.openai.com/v1: set OPENAI_API_KEY"):
        ask(OpenAIServer("gpt-4o-mini"), [question(1)], answers)


@CANNED_ONLY
def test_address_and_key_come_from_the_environment(
    proxy: FaultProxy, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.content = json.dumps(SAID)
    proxy.faults = lambda number, body: "canned"
    monkeypatch.setenv("OPENAI_BASE_URL", proxy.url)
    (reply,) = ask(OpenAIServer("m", options={"seed": 3}, temperature=None), [question(1)], answers)
    assert reply.content == SAID
    assert proxy.seen[0]["seed"] == 3 and "temperature" not in proxy.seen[0] and proxy.seen[0]["max_tokens"] == 40


def test_a_wrong_setting_is_refused() -> None:
    with pytest.raises(InputError, match="in_flight"):
        OpenAIServer("m", in_flight=0)
