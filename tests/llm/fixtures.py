"""A real server, `transformers serve` on loopback, with chat models of a few kilobytes."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.llm.proxy import FaultProxy
from tests.llm.tiny_chat import write_chat_model

SAID = {"narrative": "A toy learns to share.", "acting": ""}
JSON_PIECES = ['{"narrative": ', '"A toy learns to share."', ', "acting": ', '""', "}"]


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Answers every prompt with SAID as JSON."""
    assert json.loads("".join(JSON_PIECES)) == SAID
    return write_chat_model(tmp_path_factory.mktemp("chat"), JSON_PIECES)


@pytest.fixture(scope="session")
def prose_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Answers every prompt with prose."""
    return write_chat_model(tmp_path_factory.mktemp("prose"), ["Sure! ", "It is ", "a lovely film."])


@pytest.fixture(scope="session")
def server(chat_model: Path) -> Iterator[str]:
    """Address of a `transformers serve`."""
    pytest.importorskip("fastapi", reason="transformers serve needs: pip install 'transformers[serving]'")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [Path(sys.executable).parent / "transformers", "serve", "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([*command, "--device", "cpu"], env=environment, stderr=subprocess.PIPE) as process:
        try:
            for _ in range(600):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                    break
                except (urllib.error.URLError, OSError):
                    assert process.poll() is None, "transformers serve stopped: " + str(process.stderr.read()[-2000:])
                    time.sleep(0.2)
            else:
                pytest.fail("transformers serve did not come up in two minutes")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()


@pytest.fixture
def proxy(request: pytest.FixtureRequest) -> Iterator[FaultProxy]:
    """In front of the server; without it where a test only wants canned answers."""
    made = FaultProxy(request.getfixturevalue("server") if getattr(request, "param", True) else "http://127.0.0.1:9")
    yield made
    made.close()
