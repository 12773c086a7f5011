"""A proxy that does to a server's answers what networks and servers do."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Faults = Callable[[int, dict[str, Any]], str]
"""Number of the request and its body -> pass, canned, prose, cut, garbage, delay:SECONDS, or a status such as 429."""

CANNED: dict[str, Any] = {
    "id": "x", "object": "chat.completion", "created": 0, "model": "m",
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}  # fmt: skip


class FaultProxy:
    """Listens on loopback, and passes requests on to `upstream` with faults."""

    def __init__(self, upstream: str, faults: Faults = lambda number, body: "pass") -> None:
        self.upstream, self.faults = upstream.rstrip("/"), faults
        self.seen: list[dict[str, Any]] = []
        self.done: Counter[str] = Counter()
        self.now = self.most = 0  # requests at once
        self.content = "{}"  # of canned answers
        self.lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                pass

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with proxy.lock:
                    proxy.seen.append(body)
                    number = len(proxy.seen)
                    proxy.now += 1
                    proxy.most = max(proxy.most, proxy.now)
                try:
                    fault = proxy.faults(number, body)
                    proxy.done[fault.partition(":")[0]] += 1
                    proxy.answer(self, body, fault)
                finally:
                    with proxy.lock:
                        proxy.now -= 1

        class Server(ThreadingHTTPServer):
            request_queue_size = 256
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a client that did not wait

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any], fault: str) -> None:
        kind, _, value = fault.partition(":")
        status = 200
        if kind.isdigit():
            status, payload = int(kind), json.dumps({"error": {"message": value or f"fault {kind}"}}).encode()
        elif kind in {"canned", "prose"}:
            text = self.content if kind == "canned" else "Sure! It is a lovely film."
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            answer = {**CANNED, "choices": [choice]}
            time.sleep(float(value or 0))
            payload = json.dumps(answer).encode()
        else:
            if kind == "delay":
                time.sleep(float(value))
            status, payload = self.forward(handler.path, body)
        if kind == "garbage":
            payload = b'{"id": "x", "choices": [{"mess'
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(payload)))
        if status == 429:
            handler.send_header("Retry-After", "0.05")
        handler.end_headers()
        if kind == "cut":
            handler.wfile.write(payload[: len(payload) // 2])
            handler.close_connection = True
            handler.connection.close()
        else:
            handler.wfile.write(payload)

    def forward(self, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        address = self.upstream + path.removeprefix("/v1")
        request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
