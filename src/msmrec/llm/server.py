"""Chat over HTTP: any server that speaks OpenAI's protocol (OpenAI itself, vLLM, Ollama, `transformers serve`)."""

import asyncio
import os
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from msmrec.artifacts import InputError, one_line
from msmrec.llm.answers import Answer, Answers
from msmrec.llm.client import ChatModel, Price, Reply, Request, known_reply, read, repair

OFFICIAL = "https://api.openai.com/v1"
WINDOW = 8  # replies waiting for their turn, a request in flight: one slow answer does not stop the others
REFUSED = "server: refused"  # the request, not the server, is at fault


def connection(base_url: str | None, timeout: float, max_retries: int) -> dict[str, Any]:
    """Arguments of `openai.OpenAI` and `openai.AsyncOpenAI`.

    The address is `base_url`, else OPENAI_BASE_URL, else OpenAI's; the key is OPENAI_API_KEY, and only OpenAI's own
    server must have one.

    Raises:
        InputError: the package is missing, or the key.
    """
    try:
        import openai  # noqa: F401
    except ImportError:
        raise InputError("asking a server needs the openai package: pip install 'msmrec[llm]'") from None
    address = base_url or os.environ.get("OPENAI_BASE_URL") or OFFICIAL
    key = os.environ.get("OPENAI_API_KEY")
    if not key and address.startswith(OFFICIAL.removesuffix("/v1")):
        raise InputError(f"no key for {address}: set OPENAI_API_KEY, or name another server as base_url")
    return {"base_url": address, "api_key": key or "none", "timeout": timeout, "max_retries": max_retries}


class OpenAIServer(ChatModel):
    """A chat model behind OpenAI's protocol.

    Answers with 429, 408, 409 or 5xx, cut connections and time-outs are tried again by the openai package, waiting
    twice as long each time or as long as the server says.

    Args:
        model: its name on the server.
        base_url: the server; by default OPENAI_BASE_URL, else OpenAI's own. The key is read from OPENAI_API_KEY.
        in_flight: requests at once.
        temperature: 0 for the likeliest answer; None leaves it to the server (some models take no other).
        price: US dollars for a million tokens, for the estimate.
        timeout: seconds for one answer.
        max_retries: attempts after the first.
        max_failures: requests failing one after another, retries included, after which the server counts as gone.
        options: further fields of the request, such as {"seed": 0} or {"reasoning_effort": "low"}.

    Raises:
        InputError: no key, a key that is refused, an unknown model, nobody at the address, or gone on the way.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        in_flight: int = 64,
        temperature: float | None = 0.0,
        price: Price | None = None,
        timeout: float = 60.0,
        max_retries: int = 6,
        max_failures: int = 20,
        options: dict[str, Any] | None = None,
    ) -> None:
        if in_flight < 1 or max_failures < 1:
            raise InputError(f"in_flight ({in_flight}) and max_failures ({max_failures}) must be at least 1")
        self.model, self.base_url, self.in_flight, self.price = model, base_url, in_flight, price or Price()
        self.timeout, self.max_retries, self.max_failures = timeout, max_retries, max_failures
        self.options = dict(options or {})
        if temperature is not None:
            self.options["temperature"] = temperature

    @property
    def fingerprint(self) -> str:
        """Model and options; the same model at another address gives the same answers."""
        return f"OpenAIServer(model={self.model}, options={sorted(self.options.items())})"

    def ask(self, requests: Iterable[Request], answers: Answers) -> Iterator[Reply]:
        """See ChatModel.ask; up to `in_flight` requests are on their way at any time."""
        with asyncio.Runner() as runner:
            session: _Session | None = None  # opened when the first answer is not known
            window: deque[Reply | asyncio.Task[Reply]] = deque()
            source = iter(requests)

            async def first() -> Reply | None:
                nonlocal session
                while len(window) < WINDOW * self.in_flight and (request := next(source, None)) is not None:
                    known = known_reply(request, self.fingerprint, answers)
                    if known is None and session is None:
                        session = _Session(self, answers)
                    window.append(known or asyncio.create_task(session.answer(request)))  # type: ignore[union-attr]
                if not window:
                    return None
                head = window.popleft()
                return head if isinstance(head, Reply) else await head

            try:
                while (reply := runner.run(first())) is not None:
                    if session and session.fatal:
                        raise session.fatal
                    yield reply
            finally:
                if session:
                    runner.run(session.close())


class _Session:
    """One connection pool, and what is learned about the server while asking."""

    def __init__(self, server: OpenAIServer, answers: Answers) -> None:
        from openai import AsyncOpenAI

        settings = connection(server.base_url, server.timeout, server.max_retries)
        self.server, self.answers, self.address = server, answers, settings["base_url"]
        self.client = AsyncOpenAI(**settings)
        self.free = asyncio.Semaphore(server.in_flight)
        # OpenAI's newer models refuse max_tokens, and other servers may not know its successor.
        self.limit = "max_completion_tokens" if self.address.startswith(OFFICIAL) else "max_tokens"
        self.formats = ["json_schema", "json_object", ""]  # what the server is asked for; shorter when it refuses
        self.failures = 0
        self.served = False
        self.fatal: InputError | None = None  # why nothing more can be answered

    async def close(self) -> None:
        await self.client.close()

    async def answer(self, request: Request) -> Reply:
        async with self.free:
            if self.fatal:
                return Reply("", None, "server: not asked")
            text, problem, used = await self._send(request)
            if problem:
                return Reply("", None, problem)
            content, problem = read(text, request.schema)
            repaired = bool(problem) and request.schema is not None
            if repaired:
                second, failed, more = await self._send(repair(request, text, problem))
                if failed and not failed.startswith(REFUSED):  # not kept: the next run may find it well
                    return Reply("", None, failed, *used)
                if not failed:
                    text, used = second, (used[0] + more[0], used[1] + more[1])
                    content, problem = read(text, request.schema)
            self.answers.add(request.key(self.server.fingerprint), Answer(text, *used, repaired))
            return Reply(text, content, problem or ("repaired" if repaired else ""), *used)

    async def _send(self, request: Request) -> tuple[str, str, tuple[int, int]]:
        """Text, what went wrong, and tokens used (prompt, completion)."""
        import openai

        try:
            response = await self._create(request)
            if not getattr(response, "choices", None):  # a proxy's own JSON, or half an answer
                raise ValueError("an answer without choices")
        except openai.BadRequestError as error:  # this request is at fault, or so the server says
            return "", f"{REFUSED} ({_line(error)})", (0, 0)
        except (openai.OpenAIError, ValueError) as error:  # ValueError: what came is no JSON
            self.failures += 1
            self.fatal = self.fatal or self._hopeless(error)
            return "", f"server: {_line(error)}", (0, 0)
        self.served, self.failures = True, 0
        usage = response.usage
        used = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
        return response.choices[0].message.content or "", "", used

    def _hopeless(self, error: Exception) -> InputError | None:
        """Why there is no sense in going on after an error, if there is none."""
        import openai

        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            return InputError(f"{self.address} refuses the key: {_line(error)}; check OPENAI_API_KEY")
        if isinstance(error, openai.NotFoundError):
            return InputError(f"{self.address} has no model {self.server.model}: {_line(error)}")
        if isinstance(error, openai.APIConnectionError) and not self.served:
            return InputError(f"nobody answers at {self.address} ({_line(error)}); is the server up?")
        if self.failures >= self.server.max_failures:
            kept = f"{len(self.answers):,} answers are kept: start again to go on"
            return InputError(f"{self.address} failed {self.failures} times in a row ({_line(error)}); {kept}")
        return None

    async def _create(self, request: Request) -> Any:
        import openai

        fields = {"model": self.server.model, "messages": request.messages, self.limit: request.max_tokens}
        fields |= self.server.options
        create: Any = self.client.chat.completions.create
        attempts = 0
        while True:
            wanted = self.formats[0] if request.schema is not None else ""
            extra: dict[str, Any] = {}
            if wanted == "json_schema":
                named = {"name": "answer", "schema": request.schema, "strict": True}
                extra = {"response_format": {"type": "json_schema", "json_schema": named}}
            elif wanted:
                extra = {"response_format": {"type": "json_object"}}
            try:
                return await create(**fields, **extra)
            except openai.BadRequestError as error:
                if not wanted or not any(word in str(error) for word in ("response_format", "json_schema", wanted)):
                    raise
                if wanted in self.formats:  # or a request in flight beside this one has been told before
                    self.formats = self.formats[self.formats.index(wanted) + 1 :] or [""]
            except ValueError:  # 200, but its body is no JSON: cut on the way
                attempts += 1
                if attempts > self.server.max_retries:
                    raise
                await asyncio.sleep(min(0.5 * 2**attempts, 8.0))


def _line(error: Exception) -> str:
    """An error in a line, without a server's whole page."""
    kind = type(error).__name__.removeprefix("API")
    return f"{kind}: {one_line(error)[:160]}"
