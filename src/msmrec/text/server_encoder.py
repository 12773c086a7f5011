"""Text vectors from a server that speaks OpenAI's protocol."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from msmrec.artifacts import InputError, one_line
from msmrec.llm.server import connection
from msmrec.text.encoder import TextEncoder

MAX_CHARS = 24_000  # about 6,000 tokens: below the 8,191 that OpenAI's models read, and what a text of a book needs


class ServerEncoder(TextEncoder):
    """An embedding model behind OpenAI's protocol (text-embedding-ada-002, or one that vLLM or Ollama serves).

    Args:
        model: its name on the server.
        dim: width of its vectors.
        base_url: the server; by default OPENAI_BASE_URL, else OpenAI's own. The key is read from OPENAI_API_KEY.
        batch_size: texts in a request.
        timeout: seconds for one request.
        max_retries: attempts after the first.

    Raises:
        InputError: when encoding: no key, no server, no such model, or vectors of another width.
    """

    def __init__(
        self,
        model: str = "text-embedding-ada-002",
        dim: int = 1536,
        base_url: str | None = None,
        batch_size: int = 128,
        timeout: float = 60.0,
        max_retries: int = 6,
    ) -> None:
        if dim < 1 or batch_size < 1:
            raise InputError(f"dim ({dim}) and batch_size ({batch_size}) must be at least 1")
        self.model, self._dim, self.base_url, self.batch_size = model, dim, base_url, batch_size
        self.timeout, self.max_retries = timeout, max_retries

    @property
    def fingerprint(self) -> str:
        """Model and length limit; the same model at another address gives the same vectors."""
        return f"ServerEncoder(model={self.model}, dim={self._dim}, max_chars={MAX_CHARS})"

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self._dim

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `TextEncoder.encode`; a text longer than 24,000 characters is cut."""
        settings = connection(self.base_url, self.timeout, self.max_retries)
        from openai import OpenAI, OpenAIError

        vectors = np.zeros((len(texts), self._dim), np.float32)
        with OpenAI(**settings) as client:
            for start in range(0, len(texts), self.batch_size):
                part = [text[:MAX_CHARS] for text in texts[start : start + self.batch_size]]
                try:
                    made = client.embeddings.create(model=self.model, input=part, encoding_format="float").data
                except (OpenAIError, ValueError) as error:
                    reason = one_line(error)[:160]
                    raise InputError(f"{settings['base_url']} gives no vectors by {self.model}: {reason}") from None
                if len(made) != len(part) or len(made[0].embedding) != self._dim:
                    raise InputError(
                        f"{self.model} gave {len(made)} vectors of {len(made[0].embedding) if made else 0} for"
                        f" {len(part)} texts; set the encoder's dim"
                    )
                for vector in made:
                    vectors[start + vector.index] = vector.embedding
        return vectors
