"""What asking a language model's server costs on our side, with a server on loopback that answers after a wait.

    python benchmarks/llm_client.py [--requests 4000] [--wait 0.2] [--in_flight 64]

Prints the client's processor time a request, the share of the time in which all requests that may be in flight were,
and the same work answered from the store.
"""

import argparse
import asyncio
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from msmrec.llm.answers import Answers
from msmrec.llm.client import Request
from msmrec.llm.server import OpenAIServer
from msmrec.text.schemas import MOVIE_MODALITIES
from msmrec.text.writer import LLMWriter

SAID = json.dumps({modality.name: f"What the {modality.name} is like. " * 8 for modality in MOVIE_MODALITIES})
ANSWER = {
    "id": "x", "object": "chat.completion", "created": 0, "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": SAID}}],
    "usage": {"prompt_tokens": 900, "completion_tokens": 600, "total_tokens": 1500},
}  # fmt: skip


def serve(pipe: Connection, wait: float) -> None:
    body = json.dumps(ANSWER).encode()
    reply = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = next(int(h[15:]) for h in head.lower().split(b"\r\n") if h.startswith(b"content-length:"))
                await reader.readexactly(size)
                await asyncio.sleep(wait)
                writer.write(reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=256)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--wait", type=float, default=0.2, help="seconds that the server takes for an answer")
    parser.add_argument("--in_flight", type=int, default=64)
    given = parser.parse_args()
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(target=serve, args=(there, given.wait), daemon=True)
    process.start()
    model = OpenAIServer("m", f"http://127.0.0.1:{here.recv()}/v1", given.in_flight)
    writer = LLMWriter(model)
    documents = [{"doc_id": "d", "plot": "A crew robs banks and a detective hunts them through the city. " * 40}]

    def requests() -> Iterator[Request]:
        for k in range(given.requests):
            yield writer.request({"title": f"Film {k}", "year": 1995}, documents, MOVIE_MODALITIES)

    with tempfile.TemporaryDirectory() as folder, Answers(Path(folder) / "answers.sqlite") as answers:
        for what in ("asked", "known"):
            cpu, start = time.process_time(), time.perf_counter()
            good = sum(reply.content is not None for reply in model.ask(requests(), answers))
            wall, cpu = time.perf_counter() - start, time.process_time() - cpu
            assert good == given.requests
            ideal = given.requests / given.in_flight * given.wait
            full = f", {ideal / wall:.0%} of the time full" if what == "asked" else ""
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(
                f"{what}: {given.requests:,} requests in {wall:.2f} s{full}; {cpu / given.requests * 1e3:.2f} ms of our"
                f" processor time a request; peak memory {peak:.0f} MB"
            )
    process.terminate()


if __name__ == "__main__":
    main()
