"""A conversation as the text that a model was trained to continue."""

import re
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from msmrec.llm.client import Message


def in_template(tokenizer: Any, messages: Sequence[Message]) -> str:
    """A conversation in the tokenizer's chat template, up to where the answer begins.

    Templates without a system role (Gemma's, Mistral's first) refuse one; its words then open the first user turn.
    """
    try:
        return _rendered(tokenizer, messages)
    except TemplateError:
        if [turn["role"] for turn in messages[:2]] != ["system", "user"]:
            raise
    system, user, *rest = messages
    return _rendered(tokenizer, [{**user, "content": f"{system['content']}\n\n{user['content']}"}, *rest])


def without_control_tokens(tokenizer: Any, messages: Sequence[Message]) -> list[Message]:
    """A conversation without the tokenizer's special tokens: one in a document would be read as the turn's end."""
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    special = re.compile(
        "|".join(map(re.escape, sorted({*added, *tokenizer.all_special_tokens}, key=len, reverse=True)))
    )
    return [{**turn, "content": _without(special, turn["content"])} for turn in messages]


def _without(special: re.Pattern[str], text: str) -> str:
    while special.pattern and (shorter := special.sub("", text)) != text:
        text = shorter  # "<|e<|end|>nd|>" becomes a token when the inner one is gone
    return text


def _rendered(tokenizer: Any, messages: Sequence[Message]) -> str:
    return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))
