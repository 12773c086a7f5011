"""Image encoders that are networks: what they share, and any vision model of transformers."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from msmrec.artifacts import InputError, first_line
from msmrec.llm.model_files import files_sha256, model_folder
from msmrec.media.images import ImageEncoder, read_picture
from msmrec.text.encoder import Precision, device_and_precision

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn


class ImageNetwork(ImageEncoder):
    """Reads pictures with a few threads, and takes them through a network in batches.

    Args:
        batch_size: pictures in one forward pass.
        precision: see `msmrec.text.encoder.TransformersEncoder`.
        device: "auto" is CUDA where there is one, else the CPU; or a torch device name.
    """

    def __init__(self, batch_size: int, precision: Precision, device: str) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size ({batch_size}) must be at least 1")
        self.batch_size, self.precision, self.device = batch_size, precision, device

    @abstractmethod
    def pixels(self, picture: Image) -> np.ndarray:
        """(3, H, W) float32 of one RGB picture, as the network wants it."""

    @abstractmethod
    def forward(self, batch: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, D), or (B, D, 1, 1)."""

    @cached_property
    @abstractmethod
    def network(self) -> nn.Module:
        """The network in evaluation mode on its device."""

    @cached_property
    def device_and_precision(self) -> tuple[str, str]:
        """What "auto" stands for here."""
        return device_and_precision(self.device, self.precision)

    def encode(self, paths: Sequence[Path]) -> np.ndarray:
        """See `FileEncoder.encode`.

        Raises:
            InputError: a vector is not finite although its picture could be read.
        """
        import torch

        device, precision = self.device_and_precision
        half = torch.autocast(device.partition(":")[0], dtype=torch.bfloat16, enabled=precision == "bfloat16")
        vectors = np.full((len(paths), self.dim), np.nan, np.float32)

        def read(path: Path) -> np.ndarray | None:
            picture = read_picture(path)
            return None if picture is None else self.pixels(picture)

        with ThreadPoolExecutor(4) as pool, torch.inference_mode(), half:
            for start in range(0, len(paths), self.batch_size):
                read_now = enumerate(pool.map(read, paths[start : start + self.batch_size]), start)
                whole = {row: picture for row, picture in read_now if picture is not None}
                if whole:
                    batch = torch.from_numpy(np.stack(list(whole.values()))).to(device)
                    rows = self.forward(batch).flatten(1).float().cpu().numpy()
                    if not np.isfinite(rows).all():
                        raise InputError(
                            f"{type(self).__name__} gave a vector that is not finite: try precision float32, "
                            "or check the model's weights"
                        )
                    vectors[list(whole)] = rows
        return vectors


class TransformersImageEncoder(ImageNetwork):
    """A vision model of transformers: CLIP's projected image vector, or the pooled output of ResNet, ViT, DINO ...

    Pictures are prepared as the model's preprocessor_config.json says, by Pillow: torchvision is not needed.

    Args:
        model: folder with a transformers model, or its name on the Hugging Face hub.
        batch_size: pictures in one forward pass.
        precision: see `msmrec.text.encoder.TransformersEncoder`.
        device: "auto" is CUDA where there is one, else the CPU; or a torch device name.

    Raises:
        InputError: from the first use: the model is nowhere to be found, lacks weights, or has no pooled output.
    """

    def __init__(
        self,
        model: str = "openai/clip-vit-base-patch32",
        batch_size: int = 64,
        precision: Precision = "auto",
        device: str = "auto",
    ) -> None:
        super().__init__(batch_size, precision, device)
        self.model = model

    @cached_property
    def root(self) -> Path:
        """The model's files."""
        return model_folder(self.model, "preprocessor_config.json")

    @cached_property
    def fingerprint(self) -> str:
        """The content of the model's files."""
        precision = self.device_and_precision[1]
        return f"TransformersImageEncoder(files={files_sha256(self.root)}, precision={precision})"

    @cached_property
    def clip(self) -> Any:
        """The configuration of CLIP's image half, whose vectors are projected to the space of its texts; else None."""
        from transformers import CLIPVisionConfig

        about = json.loads((self.root / "config.json").read_text())
        if about.get("model_type") not in ("clip", "clip_vision_model"):
            return None
        config = CLIPVisionConfig.from_pretrained(self.root)
        if about["model_type"] == "clip":  # both halves: the width that counts is the common one
            config.projection_dim = about.get("projection_dim", config.projection_dim)
        return config

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        from transformers import AutoConfig

        if self.clip is not None:
            return int(self.clip.projection_dim)
        config = AutoConfig.from_pretrained(self.root)
        sizes = getattr(config, "hidden_sizes", None)
        if not sizes and not hasattr(config, "hidden_size"):
            raise InputError(f"{self.model} has no single vector of a picture: only CLIP and plain image models do")
        return int(sizes[-1] if sizes else config.hidden_size)

    def pixels(self, picture: Image) -> np.ndarray:
        """(3, H, W), as preprocessor_config.json says."""
        result: np.ndarray = self._processor(picture, return_tensors="np")["pixel_values"][0]
        return np.ascontiguousarray(result, np.float32)

    @cached_property
    def _processor(self) -> Any:
        import transformers

        # transformers 4 calls the same thing "slow"
        pillow = {"backend": "pil"} if int(transformers.__version__.split(".")[0]) >= 5 else {"use_fast": False}
        processor: Any = transformers.AutoImageProcessor
        return processor.from_pretrained(self.root, **pillow)

    @cached_property
    def network(self) -> nn.Module:
        """The vision model alone."""
        import torch
        from transformers import AutoModel, CLIPVisionModelWithProjection
        from transformers.utils import logging

        transformers_logging: Any = logging
        kind: Any = AutoModel if self.clip is None else CLIPVisionModelWithProjection
        options: Any = {} if self.clip is None else {"config": self.clip}
        dtype = torch.float32 if self.device_and_precision[1] == "float32" else "auto"
        level = transformers_logging.get_verbosity()
        transformers_logging.set_verbosity_error()  # of CLIP, the text half's weights are left where they are
        try:
            network, info = kind.from_pretrained(self.root, dtype=dtype, output_loading_info=True, **options)
        except (OSError, ValueError, RuntimeError) as error:  # damaged files, or weights of other sizes
            raise InputError(
                f"model folder {self.root} cannot be loaded ({first_line(error)}): put the model's own files there"
            ) from error
        finally:
            transformers_logging.set_verbosity(level)
        if absent := sorted(info["missing_keys"]):
            raise InputError(f"model folder {self.root} lacks {len(absent)} weights of its network, e.g. {absent[0]}")
        return network.eval().to(self.device_and_precision[0])  # type: ignore[no-any-return]

    def forward(self, batch: Tensor) -> Tensor:
        """(B, D)."""
        output = self.network(pixel_values=batch.to(next(self.network.parameters()).dtype))
        vectors: Tensor | None = getattr(output, "pooler_output" if self.clip is None else "image_embeds", None)
        if vectors is None:
            raise InputError(f"{self.model} has no pooled output: only CLIP and models with a pooling layer are read")
        return vectors
