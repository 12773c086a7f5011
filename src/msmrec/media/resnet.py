"""torchvision's ResNet-50, the only place that imports torchvision."""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from msmrec.artifacts import InputError, file_digest, first_line
from msmrec.media.image_networks import ImageNetwork
from msmrec.text.encoder import Precision

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn

log = logging.getLogger(__name__)

MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # of ImageNet, by channel
STD = np.array([0.229, 0.224, 0.225], np.float32)
RESIZE, CROP = 232, 224  # pixels: what IMAGENET1K_V2 is evaluated with
WEIGHTS = "IMAGENET1K_V2"


class ResNet50(ImageNetwork):
    """torchvision's ResNet-50 without its classifier: the 2,048 averaged activations before it.

    Pictures: shorter side to 232 pixels (bilinear), the middle 224 x 224, ImageNet's mean and deviation.
    `TransformersImageEncoder("microsoft/resnet-50")` is the same network and needs no torchvision.

    Args:
        weights: "pretrained" (torchvision's IMAGENET1K_V2, downloaded once by torch.hub), "random" (says nothing of
            the pictures' content: for tests and as a control, with a warning), or a file of weights for
            torchvision's resnet50 (.pth, or .safetensors).
        batch_size: pictures in one forward pass.
        precision: see `msmrec.text.encoder.TransformersEncoder`.
        device: "auto" is CUDA where there is one, else the CPU; or a torch device name.
        seed: of random weights.

    Raises:
        InputError: no such file; when encoding: torchvision cannot be imported, or the weights cannot be had or used.
    """

    def __init__(
        self,
        weights: str = "pretrained",
        batch_size: int = 64,
        precision: Precision = "auto",
        device: str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, precision, device)
        if weights not in ("pretrained", "random") and not Path(weights).is_file():
            raise InputError(f"weights {weights}: no such file; give one, pretrained, or random")
        if weights == "random":
            self.caveat = "ResNet50 has random weights: its vectors know nothing of what pictures show"
            log.warning(self.caveat)
        self.weights, self.seed = weights, seed

    @cached_property
    def fingerprint(self) -> str:
        """Which weights: torchvision's name for its own, the content of a file, or that they are random."""
        weights = {"pretrained": WEIGHTS, "random": f"random-{self.seed}"}.get(self.weights)
        return f"ResNet50(weights={weights or file_digest(Path(self.weights))}, {self._precision()})"

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return 2048

    def pixels(self, picture: Image) -> np.ndarray:
        """(3, 224, 224): resized, cropped to the middle, standardised."""
        scaled = (np.asarray(middle(picture), np.float32) / 255 - MEAN) / STD
        return np.ascontiguousarray(scaled.transpose(2, 0, 1))

    def forward(self, batch: Tensor) -> Tensor:
        """(B, 2048)."""
        pooled: Tensor = self.network(batch)
        return pooled

    @cached_property
    def network(self) -> nn.Module:
        """ResNet-50 with nothing in the classifier's place."""
        import torch

        models = _torchvision_models()
        try:
            if self.weights == "random":
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(self.seed)
                    network = models.resnet50(weights=None)
            elif self.weights == "pretrained":
                network = models.resnet50(weights=models.ResNet50_Weights[WEIGHTS])
            else:
                network = models.resnet50(weights=None)
                network.load_state_dict(_state(Path(self.weights)))
        except Exception as error:  # no network, a broken download, another network's weights: a type for each
            raise InputError(
                f"ResNet-50 weights {self.weights} cannot be loaded ({first_line(error)}): name a file of weights "
                "for torchvision's resnet50"
            ) from error
        network.fc = torch.nn.Identity()
        return network.eval().to(self.device_and_precision[0])  # type: ignore[no-any-return]

    def _precision(self) -> str:
        return f"precision={self.device_and_precision[1]}, resize={RESIZE}, crop={CROP}"


def middle(picture: Image) -> Image:
    """The middle 224 x 224 pixels of the picture whose shorter side is brought to 232."""
    from PIL import Image

    width, height = picture.size
    scale = RESIZE / min(width, height)
    size = max(RESIZE, int(width * scale)), max(RESIZE, int(height * scale))
    left, top = ((side - CROP) // 2 for side in size)
    return picture.resize(size, Image.Resampling.BILINEAR).crop((left, top, left + CROP, top + CROP))


def _state(path: Path) -> dict[str, Tensor]:
    """Weights from a file; a classifier that is missing or of another size is of no use here anyway."""
    import torch
    from safetensors.torch import load_file

    state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    state.update({"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)})
    return dict(state)


def _torchvision_models() -> Any:
    """torchvision.models, imported where it is used."""
    try:
        from torchvision import models
    except Exception as error:  # beside a torch of another build it fails with a RuntimeError
        reason = first_line(error)
        raise InputError(
            f'ResNet50 needs a torchvision that fits torch ({reason}): pip install -e ".[torchvision]" from the index '
            "that torch came from, or use TransformersImageEncoder"
        ) from None
    return models
