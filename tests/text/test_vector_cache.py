"""The cache of text vectors: what it encodes, what it refuses, and that it outlives crashes, damage and rivals."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from msmrec.artifacts import InputError
from msmrec.text import vector_cache
from msmrec.text.encoder import TextEncoder, TfidfSvdEncoder
from msmrec.text.vector_cache import encode_cached

MOVIES = ["Space war saga", "A love story in the city", "War of love", "City in space", "Robots at war"]


class CountingEncoder(TextEncoder):
    """Vectors from the text's characters; remembers what it was asked for."""

    def __init__(self, name: str = "v1", seconds: float = 0.0) -> None:
        self.name = name
        self.seconds = seconds
        self.seen: list[str] = []

    @property
    def fingerprint(self) -> str:
        return self.name

    @property
    def dim(self) -> int:
        return 3

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        time.sleep(self.seconds)
        self.seen += texts
        return np.array([[len(t), sum(map(ord, t)), ord(t[-1])] for t in texts], np.float32).reshape(-1, 3)


def expected(texts: Sequence[str]) -> NDArray[np.float32]:
    rows = [CountingEncoder().encode([t])[0] if t.strip() else np.zeros(3, np.float32) for t in texts]
    return np.stack(rows)


def test_tfidf_is_refitted_for_another_corpus(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    encoder = TfidfSvdEncoder(dim=4)
    first = encode_cached(encoder, MOVIES, tmp_path)
    again = encode_cached(encoder, [*reversed(MOVIES), MOVIES[0], ""], tmp_path)  # the same set of texts
    np.testing.assert_array_equal(again, np.vstack([first[::-1], first[:1], np.zeros((1, 4), np.float32)]))
    changed = encode_cached(encoder, [*MOVIES, "Robots in love"], tmp_path)
    assert not np.allclose(changed[:5], first)
    assert [r.getMessage().split(": ")[1] for r in caplog.records if "encoded" in r.getMessage()] == [
        "5 texts encoded, 0 reused",
        "0 texts encoded, 5 reused",
        "6 texts encoded, 0 reused",
    ]


def test_cache_encodes_only_what_is_new(tmp_path: Path) -> None:
    encoder = CountingEncoder()
    texts = ["one", "", "two", "one", " \n", "three"]
    np.testing.assert_array_equal(encode_cached(encoder, texts, tmp_path), expected(texts))
    assert sorted(encoder.seen) == ["one", "three", "two"]
    encoder.seen.clear()
    texts[2] = "two, changed"
    np.testing.assert_array_equal(encode_cached(encoder, texts, tmp_path), expected(texts))
    assert encoder.seen == ["two, changed"]
    other = CountingEncoder("v2")
    encode_cached(other, texts, tmp_path)
    assert len(other.seen) == 3
    assert encode_cached(encoder, ["", " "], tmp_path).shape == (2, 3)
    assert encode_cached(encoder, [], tmp_path).shape == (0, 3)


def test_cache_refuses(tmp_path: Path) -> None:
    class Broken(CountingEncoder):
        def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
            return np.full((len(texts), 3), np.nan, np.float32)

    with pytest.raises(InputError, match="not finite for 'love'") as caught:
        encode_cached(Broken(), ["love"], tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.npz"))
    with pytest.raises(TypeError, match=r"texts\[1\] is a NoneType"):
        encode_cached(CountingEncoder(), ["love", None], tmp_path)  # type: ignore[list-item]
    with pytest.raises(TypeError, match="of a str"):
        encode_cached(CountingEncoder(), "love", tmp_path)


def test_cache_merges_its_files_and_survives_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_cache, "CHUNK_ROWS", 2)
    texts = [f"text {i}" for i in range(101)]
    encode_cached(CountingEncoder(), texts, tmp_path)
    files = list(tmp_path.rglob("*.npz"))
    assert len(files) < vector_cache.MERGE_FILES
    encoder = CountingEncoder()
    np.testing.assert_array_equal(encode_cached(encoder, texts, tmp_path), expected(texts))
    assert encoder.seen == []
    stale = files[0].with_name("killed.tmp")
    stale.write_bytes(b"half a fi")
    os.utime(stale, (0, 0))
    victim = max(files, key=lambda path: path.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-50])
    files[0].with_name("empty.npz").touch()
    np.testing.assert_array_equal(encode_cached(encoder, texts, tmp_path), expected(texts))
    assert 0 < len(encoder.seen) < 101
    assert not stale.exists()


def test_kill_loses_at_most_a_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = f"""
import sys; sys.path[:0] = {sys.path!r}
from pathlib import Path
from msmrec.text import vector_cache
from {Path(__file__).stem} import CountingEncoder
vector_cache.CHUNK_ROWS = 4
texts = [f"text {{i}}" for i in range(4000)]
vector_cache.encode_cached(CountingEncoder(seconds=0.02), texts, Path({str(tmp_path)!r}))
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.Popen([sys.executable, "-c", script], env=environment)
    deadline = time.monotonic() + 30
    while len(list(tmp_path.rglob("*.npz"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    encoder = CountingEncoder()
    texts = [f"text {i}" for i in range(4000)]
    np.testing.assert_array_equal(encode_cached(encoder, texts, tmp_path), expected(texts))
    assert len(encoder.seen) <= 4000 - 3 * 4


def _fill(folder: Path, first: int) -> None:
    vector_cache.CHUNK_ROWS = 3
    encoder = CountingEncoder(seconds=0.005)
    encode_cached(encoder, [f"text {i}" for i in range(first, first + 300)], folder)
    (folder / f"encoded-{os.getpid()}.txt").write_text("\n".join(encoder.seen))


def test_processes_share_a_cache_and_encode_nothing_twice(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_fill, args=(tmp_path, first)) for first in (0, 0, 150)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    encoded = [line for path in tmp_path.glob("encoded-*.txt") for line in path.read_text().splitlines()]
    assert sorted(encoded) == sorted({f"text {i}" for i in range(450)})
    encoder = CountingEncoder()
    texts = [f"text {i}" for i in range(450)]
    np.testing.assert_array_equal(encode_cached(encoder, texts, tmp_path), expected(texts))
    assert encoder.seen == []
