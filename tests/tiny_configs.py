"""Shipped configs on the tiny world: the same classes and settings, other data, texts and sizes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from msmrec.arguments import CONFIGS
from msmrec.data.prepare import Dataset
from msmrec.media.features import Features, ItemFeatures

WORLD = {"num_users": 120, "num_items": 60, "mean_interactions": 14, "num_modalities": 3, "num_aspects": 4}
TINY_DATA = [
    "--data.source",
    json.dumps({"class_path": "Simulated", "init_args": WORLD}),
    "--trainer.logger=false",
    "--trainer.enable_progress_bar=false",
    "--trainer.precision=32-true",
]
SIZES = {
    "train_samples": 200,
    "max_tokens": 400,
    "vocab_size": 600,
    "hidden_size": 16,
    "num_layers": 2,
    "num_heads": 2,
    "intermediate_size": 32,
    "tokens_per_batch": 4096,
    "k": 6,
}
TEMPLATE = {
    "system": "Yes or No.",
    "profile": "",
    "history": "Rated:",
    "entry": "{rating} {title}",
    "question": "{title}?",
}


class YearFeatures(ItemFeatures):
    """Whether an item is from each of the years."""

    def vectors(self, dataset: Dataset, root: Path, cache: Path) -> Features:
        years = dataset.items["year"].to_numpy()
        vectors = np.zeros((dataset.num_items + 1, len(np.unique(years))), np.float32)
        vectors[np.arange(1, dataset.num_items + 1), np.unique(years, return_inverse=True)[1]] = 1
        return Features(vectors, vectors.any(1))


def tiny_config(name: str, folder: Path, text: dict[str, Any], **changes: Any) -> Path:
    """Writes a shipped config, and those that it needs, for the tiny world into `folder`; returns its path."""
    config = yaml.safe_load((CONFIGS / name).read_text())
    config["model"].setdefault("init_args", {})
    if str(config["model"]["init_args"].get("base", "")).startswith("meta-llama"):
        config["model"]["init_args"]["base"] = "tiny_llama_ml1m"  # nobody's weights are here
        config.setdefault("needs", []).append("tiny_llama_ml1m.yaml")
    if config["model"]["class_path"] in ("LlamaCTR", "TinyLlama"):
        config["model"]["init_args"].setdefault("prompt", {})
    config["needs"] = [str(tiny_config(need, folder, text)) for need in config.get("needs", [])]
    _shrink(config, text)
    for kind in config["model"]["init_args"].get("features", {}).values():
        if kind["class_path"] == "ItemImages":
            kind["init_args"]["folder"] = str(tiny_pictures(folder / "pictures"))
    protocol = config["data"].get("protocol", {})
    for count in {"min_user_count", "min_item_count"} & protocol.keys():
        protocol[count] = min(protocol[count], 5)  # a filter of 10 and more leaves nothing of the tiny world
    config["trainer"]["max_epochs"] = 2
    for key, value in changes.items():
        part, *path = [config, *key.split(".")]
        for step in path[:-1]:
            part = part[int(step)] if isinstance(part, list) else part.setdefault(step, {})
        part[path[-1]] = value
    path = folder / name
    path.write_text(yaml.safe_dump(config))
    return path


def tiny_pictures(folder: Path) -> Path:
    """A picture of one colour and some noise for most items of the tiny world."""
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(0)
    for item in range(1, WORLD["num_items"] + 1):
        if item % 7:
            colour = generator.integers(0, 200, 3) + generator.integers(0, 50, (24, 16, 3))
            Image.fromarray(colour.astype(np.uint8)).save(folder / f"{item}.png")
    return folder


def _shrink(part: Any, text: dict[str, Any]) -> None:
    for key, value in list(part.items()) if isinstance(part, dict) else []:
        if key == "text" and "class_path" not in value:  # a kind of features may have this name too
            part[key] = text
        elif value == {"class_path": "GenreFeatures"}:
            part[key] = {"class_path": "tests.tiny_configs.YearFeatures"}  # the tiny world has no genres
        elif key == "prompt":
            soft = "{soft}" in str(value)
            part[key] = {**TEMPLATE, "entry": ("{soft} " if soft else "") + TEMPLATE["entry"]}
        elif key in SIZES:
            part[key] = SIZES[key]
        else:
            _shrink(value, text)
    if isinstance(part, list):
        for value in part:
            _shrink(value, text)


def tiny_text(root: Path) -> dict[str, Any]:
    """The `text:` of a config: the tiny world's own knowledge, an encoder that needs no download."""
    knowledge = next(root.glob("simulated*/knowledge.jsonl"))
    return {
        "knowledge": [str(knowledge)],
        "modalities": [{"name": name, "prose": [name]} for name in ("narrative", "visual", "set")],
        "encoder": {"class_path": "TfidfSvdEncoder"},
        "dim": 8,
    }


def for_model(config: str, args: list[str]) -> list[str]:
    """SASRec reads no texts."""
    return [a for a in args if "msmrec" in config or "kar" in config or "init_args.text" not in a]
