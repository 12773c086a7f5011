"""Models, loaders, evaluation and retrieval on a GPU that is not there: nothing is left on the CPU."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.pretended_gpu import GPU, OnGPU, pretended_gpu
from tests.tiny_configs import TINY_DATA, tiny_config, tiny_text

from msmrec.cli import train
from msmrec.text.encoder import SentenceEncoder

# One of each class; what a config needs (LightGCN, the projector, the small Llama) is trained there too.
CONFIGS = [
    "sasrec_ml100k.yaml",
    "msmrec_ml100k.yaml",
    "kar_ml100k.yaml",
    "sasrec_ml1m_bce.yaml",
    "sasrec_ml25m.yaml",
    "popularity_ml100k.yaml",
    "lightgcn_ml1m.yaml",
    "lightgcn_musical_instruments.yaml",
    "deepfm_ml1m.yaml",
    "din_ml1m.yaml",
    "hybrid_score_ml1m.yaml",
    "rallrec_soft_tiny_ml1m.yaml",
    "rallrec_joint_tiny_ml1m.yaml",
]
# bitsandbytes and the checkpoints of activations ask the real GPU
LLAMA = [
    "--model.init_args.lora_dropout=0",
    "--model.init_args.quantisation=none",
    "--model.init_args.gradient_checkpointing=false",
]


def test_what_is_left_behind_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    with pretended_gpu(monkeypatch):
        linear, x = torch.nn.Linear(3, 2).to(GPU), torch.ones(4, 3, device="cuda")
        assert isinstance(linear(x), OnGPU) and linear(x).device == GPU and x.cpu().device.type == "cpu"
        with pytest.raises(RuntimeError, match=r"addmm: a tensor \(4, 3\) of the CPU meets one of the GPU"):
            linear(torch.ones(4, 3))
        with pytest.raises(RuntimeError, match="index: a tensor"):
            torch.ones(4)[torch.arange(2, device=GPU)]
        with pytest.raises(TypeError, match=r"Tensor.cpu\(\)"):
            np.asarray(x)
        linear(x).sum().backward()
        assert isinstance(linear.weight.grad, OnGPU)
        assert x.cpu()[torch.arange(2)].shape == x[torch.arange(2)].shape  # the CPU's indices may choose


@pytest.fixture
def args(tiny_root: Path, cache: Path, tmp_path: Path) -> list[str]:
    places = {"data.root": tiny_root, "data.cache": cache, "runs": tmp_path / "runs"}
    small = ["--data.protocol.min_item_count=0", "--data.tokens_per_batch=512"]
    return [*TINY_DATA, *(f"--{key}={place}" for key, place in places.items()), *small]


def without_dropout(config: str) -> list[str]:
    if "rallrec" in config or "hybrid" in config:
        return [*LLAMA, "--model.init_args.lora_dropout=0"]
    return [] if "lightgcn" in config or "popularity" in config else ["--model.init_args.dropout=0"]


@pytest.mark.parametrize("config", CONFIGS)
def test_a_run_on_a_gpu(
    config: str, args: list[str], tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_config(config, tmp_path, tiny_text(tiny_root))
    args = ["--config", str(path), *args, *without_dropout(config)]
    args += ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2"]
    with pretended_gpu(monkeypatch) as gpu:
        train([*args, "--run_dir", str(tmp_path / "gpu"), *gpu])
    train([*args, "--run_dir", str(tmp_path / "cpu")])
    there, here = (json.loads((tmp_path / side / "metrics.json").read_text()) for side in ("gpu", "cpu"))
    assert there["train"]["device"] == "pretended_gpu" and here["train"]["device"] == "cpu"
    assert there["test"] == pytest.approx(here["test"], abs=1e-5, nan_ok=True)


@pytest.mark.parametrize(("config", "more"), [("msmrec_ml100k.yaml", []), ("rallrec_soft_tiny_ml1m.yaml", LLAMA)])
def test_a_run_on_a_gpu_in_bfloat16(
    config: str, more: list[str], args: list[str], tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_config(config, tmp_path, tiny_text(tiny_root))
    short = ["--trainer.precision=bf16-mixed", "--trainer.fast_dev_run=2", "--run_dir", str(tmp_path / "run")]
    with pretended_gpu(monkeypatch) as gpu:
        train(["--config", str(path), *args, *short, *more, *gpu])


def test_texts_are_encoded_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["a heist in black and white", "whales"]
    here = SentenceEncoder(precision="float32", device="cpu").encode(texts)
    with pretended_gpu(monkeypatch):
        there = SentenceEncoder(precision="float32", device="cuda").encode(texts)
    np.testing.assert_allclose(there, here, atol=1e-6)
