"""Vectors from a server: order, batches, and what goes wrong."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msmrec.artifacts import InputError
from msmrec.text.server_encoder import MAX_CHARS, ServerEncoder
from msmrec.text.vector_cache import encode_cached


class Embeddings:
    """A server on loopback that speaks the protocol's /embeddings; a text's vector is [length, first character]."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.width = 2
        mine = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: Any) -> None:
                pass

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                mine.seen.append(body)
                rows = [
                    {
                        "object": "embedding",
                        "index": i,
                        "embedding": [float(len(t)), float(ord(t[0])), 0.0][: mine.width],
                    }
                    for i, t in enumerate(body["input"])
                ]
                usage = {"prompt_tokens": 1, "total_tokens": 1}
                answer = {"object": "list", "data": rows[::-1], "model": body["model"], "usage": usage}
                payload = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def embeddings() -> Iterator[Embeddings]:
    made = Embeddings()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_vectors_stand_in_the_order_of_the_texts(embeddings: Embeddings) -> None:
    encoder = ServerEncoder("m", 2, embeddings.url, batch_size=3)
    texts = ["a", "bb", "ccc", "dddd", "e" * (MAX_CHARS + 5)]
    vectors = encoder.encode(texts)
    np.testing.assert_array_equal(vectors, [[1, 97], [2, 98], [3, 99], [4, 100], [MAX_CHARS, 101]])
    assert vectors.dtype == np.float32 and encoder.dim == 2
    assert [len(body["input"]) for body in embeddings.seen] == [3, 2] and embeddings.seen[0]["model"] == "m"


def test_a_changed_text_is_sent_alone(embeddings: Embeddings, tmp_path: Path) -> None:
    encoder = ServerEncoder("m", 2, embeddings.url)
    encode_cached(encoder, ["a", "bb", ""], tmp_path)
    encode_cached(encoder, ["a", "ccc", ""], tmp_path)
    assert [sorted(body["input"]) for body in embeddings.seen] == [["a", "bb"], ["ccc"]]


def test_mistakes(embeddings: Embeddings, monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings.width = 3
    with pytest.raises(InputError, match="1 vectors of 3 for 1 texts; set the encoder's dim"):
        ServerEncoder("m", 2, embeddings.url).encode(["a"])
    with pytest.raises(InputError, match=r"127.0.0.1:9/v1 gives no vectors by m: Connection error"):
        ServerEncoder("m", 2, "http://127.0.0.1:9/v1", max_retries=0).encode(["a"])
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(InputError, match="set OPENAI_API_KEY"):
        ServerEncoder().encode(["a"])
    with pytest.raises(InputError, match="must be at least 1"):
        ServerEncoder(dim=0)
