"""Chat with a transformers model on this machine."""

import sys
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice
from typing import Any

import torch

from msmrec.artifacts import InputError
from msmrec.llm.answers import Answer, Answers
from msmrec.llm.chat_template import in_template, without_control_tokens
from msmrec.llm.client import ChatModel, Reply, Request, known_reply, read, repair
from msmrec.llm.weights import Quantisation, load_causal_lm

BLOCK = 16  # batches of requests that are sorted by length together


class LocalModel(ChatModel):
    """A causal language model, batched, whole or in 8 or 4 bits; it always gives its likeliest answer.

    Args:
        model: folder in the Hugging Face format, or a name on the hub.
        quantisation: of the weights, by bitsandbytes.
        batch_size: requests answered at once.
        max_prompt_tokens: a longer prompt is refused, and its reply says so; so is one that fills the model's context.

    Raises:
        InputError: from the first request, when the weights cannot be loaded.
    """

    def __init__(
        self, model: str, quantisation: Quantisation = "none", batch_size: int = 16, max_prompt_tokens: int = 8192
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, not {batch_size}")
        self.model, self.quantisation, self.batch_size = model, quantisation, batch_size
        self.max_prompt_tokens = max_prompt_tokens

    @cached_property
    def fingerprint(self) -> str:
        """The weights' hash and their type: the same weights in another place are the same."""
        from msmrec.llm.model_files import files_sha256, model_folder

        return f"LocalModel(files={files_sha256(model_folder(self.model))}, quantisation={self.quantisation})"

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
        tokenizer, model = load_causal_lm(self.model, self.quantisation, dtype, device)
        if self.quantisation == "none":
            model.to(device)
        return tokenizer, model.eval()

    def release(self) -> None:
        """See ChatModel.release."""
        if self.__dict__.pop("_loaded", None):
            torch.cuda.empty_cache()

    @cached_property
    def _context(self) -> int:
        """Most tokens of prompt and answer together."""
        config = self._loaded[1].config.get_text_config()
        return getattr(config, "max_position_embeddings", None) or sys.maxsize

    @property
    def _longest_prompt(self) -> int:
        return min(self.max_prompt_tokens, self._context - 1)

    def ask(self, requests: Iterable[Request], answers: Answers) -> Iterator[Reply]:
        """See ChatModel.ask."""
        source = iter(requests)
        while block := list(islice(source, BLOCK * self.batch_size)):
            replies = [known_reply(request, self.fingerprint, answers) for request in block]
            todo = [k for k, reply in enumerate(replies) if reply is None]
            todo.sort(key=lambda k: -sum(len(message["content"]) for message in block[k].messages))
            for start in range(0, len(todo), self.batch_size):
                rows = todo[start : start + self.batch_size]
                for k, reply in zip(rows, self._answer([block[k] for k in rows], answers), strict=True):
                    replies[k] = reply
            yield from (reply for reply in replies if reply is not None)

    def _answer(self, requests: list[Request], answers: Answers) -> list[Reply]:
        """Replies of one batch; answers that are of no use are asked for once more, together."""
        first = self._generate(requests)
        read_first = [read(text, request.schema) for (text, _, _), request in zip(first, requests, strict=True)]
        again = [k for k, request in enumerate(requests) if request.schema and read_first[k][1] and first[k][1]]
        repairs = [repair(requests[k], first[k][0], read_first[k][1]) for k in again]
        second = dict(zip(again, self._generate(repairs), strict=True)) if repairs else {}
        replies = []
        for k, request in enumerate(requests):
            text, given, made = first[k]
            content, problem = read_first[k]
            if k in second and second[k][1]:
                text, given, made = second[k][0], given + second[k][1], made + second[k][2]
                content, problem = read(text, request.schema)
            if not given:
                replies.append(Reply("", None, f"server: refused (more than {self._longest_prompt} tokens)"))
                continue
            answers.add(request.key(self.fingerprint), Answer(text, given, made, k in second))
            replies.append(Reply(text, content, problem or ("repaired" if k in second else ""), given, made))
        return replies

    @torch.inference_mode()
    def _generate(self, requests: list[Request]) -> list[tuple[str, int, int]]:
        """Answer, tokens of the prompt (0: too long, not answered) and tokens of the answer, for each request."""
        tokenizer, model = self._loaded
        ids = [self._tokens(request) for request in requests]
        fit = [k for k, row in enumerate(ids) if len(row) <= self._longest_prompt]
        result = [("", 0, 0)] * len(requests)
        if not fit:
            return result
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        width = max(len(ids[k]) for k in fit)
        most = {k: min(requests[k].max_tokens, self._context - len(ids[k])) for k in fit}
        if len(requests) > 1 and width + max(most.values()) > self._context:
            return [self._generate([request])[0] for request in requests]  # none has to stop early for the others
        padded = torch.full((len(fit), width), pad)
        mask = torch.zeros_like(padded)
        for row, k in enumerate(fit):  # on the left: what is generated follows the prompt's last token
            padded[row, width - len(ids[k]) :] = torch.tensor(ids[k])
            mask[row, width - len(ids[k]) :] = 1
        made = model.generate(
            input_ids=padded.to(model.device), attention_mask=mask.to(model.device), do_sample=False, pad_token_id=pad,
            max_new_tokens=max(most.values()),
        )[:, width:].tolist()  # fmt: skip
        ends = model.generation_config.eos_token_id
        ends = {pad, *(ends if isinstance(ends, list) else [ends])}
        for k, row in zip(fit, made, strict=True):
            stop = next((i for i, token in enumerate(row) if token in ends), len(row))
            kept = row[: min(stop, most[k])]
            result[k] = (tokenizer.decode(kept, skip_special_tokens=True), len(ids[k]), len(kept))
        return result

    def _tokens(self, request: Request) -> list[int]:
        tokenizer = self._loaded[0]
        messages = without_control_tokens(tokenizer, request.messages)
        if getattr(tokenizer, "chat_template", None):
            text = in_template(tokenizer, messages)
        else:
            text = (tokenizer.bos_token or "") + "".join(f"{turn['content']}\n" for turn in messages)
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
