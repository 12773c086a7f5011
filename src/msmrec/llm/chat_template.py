"""A conversation as the text that a model was trained to continue."""

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


def _rendered(tokenizer: Any, messages: Sequence[Message]) -> str:
    return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))
