"""Asking a language model: what is asked, what comes back, and the one interface of everything that answers.

    for reply in OpenAIServer("gpt-4o-mini").ask(requests, Answers(path)): ...

Requests stream in, replies stream out in the same order, and what was answered once is not asked again.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from msmrec.artifacts import InputError, fingerprint
from msmrec.llm.answers import Answers

Message = dict[str, str]  # role: system, user or assistant; content
MOST_OBJECTS = 20  # looked at in one answer
CHARACTERS_PER_TOKEN = 4  # of English; what a server's own tokenizer makes of it is known only afterwards


class Request(NamedTuple):
    """One question."""

    messages: list[Message]
    schema: dict[str, Any] | None = None  # JSON schema of the answer; None where prose is wanted
    max_tokens: int = 512  # longest answer

    def key(self, model: str) -> str:
        """What an answer is kept under: it depends on the model, on every word of the prompt, and on nothing else."""
        return fingerprint(model, self.messages, self.schema, self.max_tokens)


class Reply(NamedTuple):
    """What came of a request. `content` is None where the answer is of no use, and `note` says why."""

    text: str  # the answer as it came; empty where none did
    content: dict[str, Any] | None  # the JSON object, where a schema asked for one
    note: str = ""  # empty, "repaired", or what went wrong: "answer: ..." or "server: ..."
    prompt_tokens: int = 0
    completion_tokens: int = 0
    stored: bool = False  # answered by an earlier run


@dataclass(frozen=True)
class Price:
    """US dollars for a million tokens."""

    input: float = 0.0
    output: float = 0.0

    def of(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Dollars."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1e6


class ChatModel(ABC):
    """Something that answers requests: a server, or a model on this machine."""

    price: Price = Price()

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """What its answers depend on: the model and how it samples, not where it runs or how many are asked at once."""

    @abstractmethod
    def ask(self, requests: Iterable[Request], answers: Answers) -> Iterator[Reply]:
        """Replies in the order of `requests`, of which no more are read than are needed to keep the model busy.

        Args:
            requests: read as they are needed.
            answers: looked into first; whatever is paid for is added at once.

        Raises:
            InputError: nothing can be answered (no key, wrong key, no such model, nobody there).
        """

    def release(self) -> None:  # noqa: B027 (a server holds nothing here)
        """Frees weights that lie on this machine; asking again loads them again."""


def known_reply(request: Request, model: str, answers: Answers) -> Reply | None:
    """The reply of an earlier run, if there is one."""
    kept = answers.get(request.key(model))
    if kept is None:
        return None
    content, problem = read(kept.text, request.schema)
    return Reply(kept.text, content, problem or ("repaired" if kept.repaired else ""), *kept[1:3], stored=True)


def read(text: str, schema: dict[str, Any] | None) -> tuple[dict[str, Any] | None, str]:
    """The JSON object in an answer, and what is wrong with the answer where it has no good one.

    Models wrap JSON in prose and in code fences, so the first object that has the required keys counts. Of the schema,
    only what a description needs is checked: required properties, and that strings are strings.
    """
    if schema is None:
        return None, "" if text.strip() else "answer: empty"
    decoder = json.JSONDecoder()
    problem = "answer: no JSON object"
    start = text.find("{")
    for _ in range(MOST_OBJECTS):
        if start < 0:
            break
        try:
            found, end = decoder.raw_decode(text, start)
        except (json.JSONDecodeError, RecursionError):
            start = text.find("{", start + 1)
            continue
        if lacking := [key for key in schema["required"] if key not in found]:
            problem = f"answer: no {', '.join(lacking[:3])}"
        elif wrong := [k for k, v in schema["properties"].items() if k in found and not _fits(found[k], v["type"])]:
            problem = f"answer: {wrong[0]} is no {schema['properties'][wrong[0]]['type']}"
        else:
            return found, ""
        start = text.find("{", end)
    return None, problem


def _fits(value: Any, kind: str) -> bool:
    kinds: dict[str, Any] = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list}
    return isinstance(value, kinds[kind]) and not (isinstance(value, bool) and kind != "boolean")


def repair(request: Request, text: str, problem: str) -> Request:
    """The request once more, with the answer that was of no use and what was wrong with it."""
    assert request.schema is not None
    keys = ", ".join(request.schema["required"])
    again = f"That was not usable ({problem}). Answer with one JSON object and nothing else. Its keys: {keys}."
    turns = [{"role": "assistant", "content": text[:2000] or "(nothing)"}, {"role": "user", "content": again}]
    return request._replace(messages=[*request.messages, *turns])


def object_schema(properties: dict[str, str]) -> dict[str, Any]:
    """JSON schema of an object whose properties are all required strings.

    Args:
        properties: name -> what it should say.
    """
    if not properties:
        raise InputError("a JSON schema needs at least one property")
    return {
        "type": "object",
        "properties": {name: {"type": "string", "description": text} for name, text in properties.items()},
        "required": list(properties),
        "additionalProperties": False,
    }


def prompt_tokens(request: Request) -> int:
    """About how many tokens a request has."""
    characters = sum(len(message["content"]) for message in request.messages)
    return (characters + len(json.dumps(request.schema or ""))) // CHARACTERS_PER_TOKEN
