"""Descriptions written by a language model, from what was retrieved or from what the model remembers.

Documents are put into the prompt as JSON, cleaned of markup and cut to a length, and are declared to be data: what a
document orders is described, not done. An answer that is of no use leaves the extractive text, with the reason beside.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from tqdm import tqdm

from msmrec.artifacts import InputError, fingerprint
from msmrec.columns import DOC_ID
from msmrec.data.plain_text import TAG, plain
from msmrec.llm.answers import Answers
from msmrec.llm.client import ChatModel, Message, Reply, Request, object_schema, prompt_tokens
from msmrec.text.describe import Description, Document, Generator, ItemDocuments, Plan
from msmrec.text.extractive import Extractive
from msmrec.text.modalities import Modality

TOKENS_PER_WORD = 1.4
FIELDS = ("item", "documents", "aspects", "max_words")  # of the prompts about items
_ORDER = re.compile(
    r"\b(?:ignore|disregard|forget|override)\s+(?:(?:all|any|of|the|your|these|everything)\s+)*"
    r"(?:(?:above|previous|prior|earlier|preceding)\s+(?:instruction|prompt|rule|text|message|direction|order)s?"
    r"|instructions?|prompts?|above)\b|\byou are now\b|\bsystem prompt\b|<\|[a-z_]+\|>",
    re.IGNORECASE,
)
_NOTHING = re.compile(
    r"(?:n/?a|none|null|unknown|not (?:mentioned|specified|available|known|stated|given)|no (?:information|evidence)"
    r"(?: (?:available|given|provided))?|the documents (?:do not|say nothing)[^.]*)?[.\s-]*",
    re.IGNORECASE,
)


@dataclass
class Example:
    """An example in the prompt: an item with its documents, and the answer wanted."""

    item: str
    answer: dict[str, str]
    documents: list[dict[str, str]] = field(default_factory=list)


class LLMWriter(Generator):
    """Modality texts by a language model.

    Args:
        model: who answers.
        grounded: give it the retrieved documents; without them it describes from memory (the paper's "no RAG").
        prompt: a file with the system's words, a line `---` and the user's; fields are $item, $documents, $aspects,
            $max_words, and a dollar is $$. By default the package's own, for `grounded` or not.
        examples: shown to the model before each item.
        max_words: wished for a modality, and told to the model.
        max_context: characters of documents in a prompt; a longer text is cut at its end.
        answers: file of the answers; by default one in the cache, shared by all runs.

    Raises:
        InputError: a prompt file is missing or names an unknown field, or an example lacks a modality.
    """

    def __init__(
        self,
        model: ChatModel,
        grounded: bool = True,
        prompt: str | None = None,
        examples: list[Example] | None = None,
        max_words: int = 40,
        max_context: int = 8000,
        answers: str | None = None,
    ) -> None:
        self.model, self.grounded, self.examples = model, grounded, examples or []
        self.max_words, self.max_context, self.answers = max_words, max_context, answers
        self.fallback = Extractive()
        self.system, self.user = read_prompt(prompt or ("modalities" if grounded else "modalities_from_memory"))

    @property
    def fingerprint(self) -> str:
        """See Generator.fingerprint."""
        return fingerprint(
            self.model.fingerprint, self.grounded, self.system.template, self.user.template, self.max_words,
            self.max_context, [vars(example) for example in self.examples],
        )  # fmt: skip

    # -- asking -------------------------------------------------------------------------------------------------------

    def request(self, item: Mapping[str, Any], documents: Sequence[Document], schema: Sequence[Modality]) -> Request:
        """What is asked about one item."""
        aspects = {modality.name: modality.instruction or modality.name for modality in schema}
        words = {"aspects": "\n".join(f"- {k}: {v}" for k, v in aspects.items()), "max_words": str(self.max_words)}
        year = f" ({item['year']})" if item.get("year") and str(item["year"]) not in item["title"] else ""
        own = {"item": plain(item["title"]) + year, "documents": as_data(documents, self.max_context), **words}
        messages: list[Message] = [{"role": "system", "content": self.system.substitute(own)}]
        for shown in self.examples:
            if lacking := [name for name in aspects if name not in shown.answer]:
                raise InputError(f"generator.examples: the example {shown.item!r} lacks {', '.join(lacking)}")
            asked = {"item": shown.item, "documents": as_data(shown.documents, self.max_context), **words}
            messages.append({"role": "user", "content": self.user.substitute(asked)})
            messages.append({"role": "assistant", "content": json.dumps(shown.answer, ensure_ascii=False)})
        messages.append({"role": "user", "content": self.user.substitute(own)})
        return Request(messages, object_schema(aspects), self._longest(schema))

    def _longest(self, schema: Sequence[Modality]) -> int:
        return int(len(schema) * (self.max_words * TOKENS_PER_WORD * 1.5 + 8)) + 32

    def plan(self, evidence: Iterable[ItemDocuments], schema: Sequence[Modality], cache: Path) -> Plan:
        """See Generator.plan; it counts, and sends nothing."""
        total = known = asked = 0
        with self._answers(cache) as answers:
            for item, documents in evidence:
                request = self.request(item, documents, schema)
                total += 1
                if answers.get(request.key(self.model.fingerprint)):
                    known += 1
                else:
                    asked += prompt_tokens(request)
        out = int((total - known) * len(schema) * (self.max_words * TOKENS_PER_WORD + 6))
        return Plan(total, known, asked, out, self.model.price.of(asked, out))

    def write(
        self, evidence: Iterable[ItemDocuments], schema: Sequence[Modality], cache: Path, total: int | None = None
    ) -> Iterator[list[Description]]:
        """See Generator.write."""
        waiting: list[ItemDocuments] = []  # asked, and not yet answered: as many as the model reads ahead

        def requests() -> Iterator[Request]:
            for item, documents in evidence:
                waiting.append(ItemDocuments(item, documents))
                yield self.request(item, documents, schema)

        tokens, kept, fell = [0, 0], 0, 0
        with self._answers(cache) as answers, tqdm(total=total, desc="describe", unit="item") as bar:
            for reply in self.model.ask(requests(), answers):
                item, documents = waiting.pop(0)
                described = self._description(reply, item, documents, schema)
                kept, fell = kept + reply.stored, fell + (reply.content is None)
                if not reply.stored:
                    tokens = [tokens[0] + reply.prompt_tokens, tokens[1] + reply.completion_tokens]
                spent = f"${self.model.price.of(*tokens):.2f}"
                status = f"{tokens[0]:,}+{tokens[1]:,} tokens, {spent}, {kept:,} known, {fell:,} fell back"
                bar.set_postfix_str(status, refresh=False)
                bar.update()
                yield described
        self.model.release()

    def _answers(self, cache: Path) -> Answers:
        return Answers(Path(self.answers) if self.answers else cache / "answers.sqlite")

    def _description(
        self, reply: Reply, item: Mapping[str, Any], documents: Sequence[Document], schema: Sequence[Modality]
    ) -> list[Description]:
        seen = oddities(item, documents) if self.grounded else oddities(item, [])
        if reply.content is None:
            copied = self.fallback.generate(documents, schema)
            return [described._replace(note="; ".join([f"extractive: {reply.note}", *seen])) for described in copied]
        note = "; ".join([*([reply.note] if reply.note else []), *seen])
        sources = [document[DOC_ID] for document in documents] if self.grounded else []
        result = []
        for modality in schema:
            text = plain(reply.content[modality.name])
            text = "" if _NOTHING.fullmatch(text) else text
            result.append(Description(text, sources if text else [], note))
        return result


def read_prompt(name: str, known: Collection[str] = FIELDS) -> tuple[Template, Template]:
    """The system's and the user's part of a prompt file: one of the package, or a path.

    Args:
        name: of the file.
        known: fields ($name) that it may use.
    """
    inside = resources.files("msmrec.text") / "prompts" / f"{name}.txt"
    if inside.is_file():
        text = inside.read_text()
    elif Path(name).is_file():
        text = Path(name).read_text()
    else:
        raise InputError(f"no prompt {name}: neither a file nor one of the package's ({', '.join(_packaged())})")
    system, line, user = text.partition("\n---\n")
    if not line:
        raise InputError(f"prompt {name} has no line '---' between the system's words and the user's")
    parts = Template(system), Template(user.strip())
    if bare := [match.start() for match in Template.pattern.finditer(text) if match["invalid"] is not None]:
        where = text.count("\n", 0, bare[0]) + 1
        raise InputError(f"prompt {name}, line {where}: a $ without the name of a field; write $$ for a dollar")
    if wrong := {field for part in parts for field in part.get_identifiers()} - set(known):
        raise InputError(f"prompt {name} names ${sorted(wrong)[0]}; known are {', '.join(sorted(known))}")
    return parts


def _packaged() -> list[str]:
    folder = resources.files("msmrec.text") / "prompts"
    return sorted(path.name.removesuffix(".txt") for path in folder.iterdir())


# -- documents as data ------------------------------------------------------------------------------------------------


def oddities(item: Mapping[str, Any], documents: Sequence[Document]) -> list[str]:
    """What is unusual about an item's evidence, for the report: markup, orders to the model, another script."""
    fields = [value for document in documents for key, value in document.items() if key != DOC_ID]
    found = []
    if any(TAG.search(value) for value in fields):
        found.append("markup")
    if any(_ORDER.search(value) for value in fields):
        found.append("orders in a document")
    letters = [c for c in item.get("title", "") if c.isalpha()]
    if letters and sum(ord(c) < 0x250 for c in letters) < len(letters) / 2:
        found.append("title in another script")
    return found


def as_data(documents: Sequence[Document], limit: int) -> str:
    """Documents as JSON, one a line, together at most `limit` characters: each gives up its longest field's end.

    Where that is not enough (several long fields, or many names and quotation marks), each gives up the ends of all
    its longest fields. Only there: another prompt is another request, and kept answers are those of the first way.
    """
    share = max(limit // max(len(documents), 1), 1)
    cleaned = [{k: plain(v) for k, v in document.items() if k not in {DOC_ID, "source"}} for document in documents]
    lines = []
    for fields in cleaned:
        longest = max(fields, key=lambda k: len(fields[k]), default="")
        over = max(sum(map(len, fields.values())) - share, 0)
        cut = {k: v[: max(len(v) - over, 0)] if k == longest else v for k, v in fields.items()}
        lines.append(json.dumps(cut, ensure_ascii=False))
    if len(text := "\n".join(lines)) <= limit:
        return text
    share = (limit + 1) // len(documents) - 1  # a line, without its end
    return "\n".join(_within(fields, share) for fields in cleaned)


def _within(fields: dict[str, str], limit: int) -> str:
    """JSON of fields, each cut to one length: the greatest at which all fit ({} where not even the names do)."""

    def line(longest: int) -> str:
        return json.dumps({k: v[:longest] for k, v in fields.items()}, ensure_ascii=False)

    longest = max(map(len, fields.values()), default=0)
    if len(line(longest)) > limit:
        longest = bisect_right(range(longest), limit, key=lambda length: len(line(length))) - 1
    return line(longest) if longest >= 0 else "{}"
