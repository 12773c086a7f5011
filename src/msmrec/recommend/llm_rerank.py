"""Candidates put in order by a language model that reads the user's profile (RAG-VisualRec, step 7).

Whatever comes back, every user gets the same candidates in some order: ids that are no candidates are left out, repeats
count once, what is not named follows in the first stage's order, and an answer of no use leaves that order. Each case
is counted.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from msmrec.artifacts import InputError, fingerprint
from msmrec.columns import GENRES, TITLE
from msmrec.data.plain_text import plain
from msmrec.data.prepare import Dataset
from msmrec.llm.answers import Answers
from msmrec.llm.client import ChatModel, Reply, Request
from msmrec.recommend.profiles import Profile, profiles, written
from msmrec.recommend.rerank import Reranked, Reranker
from msmrec.text.writer import read_prompt


class LLMReranker(Reranker):
    """Asks a language model for the ids of a user's candidates, best first.

    Args:
        model: who orders.
        explain: ask for a reason beside each id; without it, ids alone are sent back.
        profile: "facts" counted in the training part, or "written" by the model from these facts.
        count: ids asked for.
        prompt: a prompt file; by default the package's own, for `explain` or not.
    """

    def __init__(
        self,
        model: ChatModel,
        explain: bool = False,
        profile: Literal["facts", "written"] = "facts",
        count: int = 10,
        prompt: str | None = None,
    ) -> None:
        if count < 1:
            raise InputError(f"reranker.count must be at least 1, not {count}")
        self.model, self.explain, self.profile, self.count = model, explain, profile, count
        fields = {"facts", "candidates", "count"}
        self.system, self.user = read_prompt(prompt or ("rerank_explained" if explain else "rerank"), fields)

    @property
    def fingerprint(self) -> str:
        """See Reranker.fingerprint."""
        prompt = self.system.template, self.user.template
        return fingerprint(self.model.fingerprint, self.explain, self.profile, self.count, prompt)

    def request(self, profile: Profile, shown: list[tuple[int, str]]) -> Request:
        """What is asked about one user, whose candidates are `shown` as (id, line)."""
        count = min(self.count, len(shown))
        words = {"facts": str(profile), "candidates": "\n".join(line for _, line in shown), "count": str(count)}
        messages = [
            {"role": "system", "content": self.system.substitute(words)},
            {"role": "user", "content": self.user.substitute(words)},
        ]
        properties: dict[str, Any] = {"ids": {"type": "array", "items": {"type": "integer"}}}
        if self.explain:
            properties["reasons"] = {"type": "array", "items": {"type": "string"}}
        schema = {
            "type": "object", "properties": properties, "required": list(properties), "additionalProperties": False,
        }  # fmt: skip
        return Request(messages, schema, count * (40 if self.explain else 10) + 32)

    def rerank(
        self, dataset: Dataset, users: np.ndarray, candidates: np.ndarray, scores: np.ndarray, cache: Path
    ) -> Reranked:
        """See Reranker.rerank; ids in the prompt are item_id."""
        from tqdm import tqdm

        counts: Counter[str] = Counter()
        told = profiles(dataset, users)
        if self.profile == "written":
            told, failed = written(told, self.model, cache)
            counts.update({"profile not written": failed} if failed else {})
        titles, genres = dataset.items[TITLE].to_list(), dataset.items[GENRES].to_list()

        def requests() -> Iterator[Request]:
            for row, profile in enumerate(told):
                shown = [
                    (item, f"{item} | {plain(titles[item - 1])} | {', '.join(genres[item - 1] or [])} | {score:.3f}")
                    for item, score in zip(candidates[row].tolist(), scores[row].tolist(), strict=True) if item
                ]  # fmt: skip
                yield self.request(profile, shown)

        ordered, reasons = np.zeros_like(candidates), []
        with Answers(cache / "answers.sqlite") as answers, tqdm(total=len(users), desc="re-rank", unit="user") as bar:
            for row, reply in enumerate(self.model.ask(requests(), answers)):
                mine = candidates[row][candidates[row] > 0].tolist()
                order, why, found = self.read(reply, mine)
                counts.update(found)
                ordered[row, : len(order)] = order
                reasons.append(why)
                bar.update()
        return Reranked(ordered, counts, reasons)

    def read(self, reply: Reply, candidates: list[int]) -> tuple[list[int], dict[int, str], list[str]]:
        """Order, reasons by item, and what had to be mended, of one reply."""
        if reply.content is None:
            return candidates, {}, [f"fell back: {': '.join(reply.note.split(' (')[0].split(': ')[:2])}"]
        named = [_whole(i) for i in reply.content["ids"]]
        known, happened = set(candidates), []
        good = [item for item in named if item in known]
        if len(good) < len(named):
            happened.append("repaired: id not among the candidates")
        once = list(dict.fromkeys(good))
        if len(once) < len(good):
            happened.append("repaired: repeated id")
        if len(once) < min(self.count, len(candidates)):
            happened.append("repaired: short list")
        said = reply.content.get("reasons", [])
        why = {item: str(text) for item, text in zip(named, said, strict=False) if item in known}
        return [*once, *(item for item in candidates if item not in set(once))], why, happened


def _whole(said: object) -> int:
    """A number as a language model may write it, -1 where it is none."""
    try:
        return int(str(said)) if not isinstance(said, float) else int(said)
    except (ValueError, OverflowError):
        return -1
