"""What a vision encoder is to the rest: three functions and three facts. `build_encoder` makes one.

An encoder is cut where training stops: `trunk` is never changed by it, so that its output can be cached once and for
all; `cells` and `label_logits` start from that output.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from rucap.errors import ModelError
from rucap.model.config import EncoderConfig


class VisionEncoder(nn.Module):
    """Photos to features, features to what the mapper reads and to logits of labels."""

    frozen: ClassVar[tuple[str, ...]]
    """Prefixes of the names of tensors that training never changes."""
    packaged: ClassVar[bool]
    """Whether the frozen tensors come from a package (`load_packaged`) and are not written with each model."""
    labels: int
    """How many label logits there are; 0 for an encoder that knows no labels."""

    def trunk(self, pixels: Tensor) -> Tensor:
        """Maps pixels [batch, 3, size, size] to features [batch, ...]."""
        raise NotImplementedError

    def cells(self, features: Tensor) -> Tensor:
        """Maps features to the mapper's input, [batch, cells, width]."""
        raise NotImplementedError

    def label_logits(self, features: Tensor) -> Tensor | None:
        """Maps features to logits [batch, labels], or to None where there are no labels."""
        raise NotImplementedError

    def load_packaged(self) -> None:
        """Loads the tensors that come from a package; nothing where `packaged` is false."""

    def load_pretrained(self) -> None:
        """Loads what the encoder knows before it is trained on captions. Raises ModelError when it is not at hand."""
        raise NotImplementedError


def build_encoder(config: EncoderConfig) -> VisionEncoder:
    """The encoder of a configuration, with fresh weights. Raises ModelError for settings that make no encoder."""
    if config.kind == "efficientnet_lite":
        from rucap.network.efficientnet_lite import CELL_CHANNELS, CELL_SIDE, EfficientNetLite

        if config.preprocessing.size % CELL_SIDE:
            raise ModelError(
                f"encoder.preprocessing.size: {config.preprocessing.size} is not a multiple of {CELL_SIDE}, as the grid"
                " of this encoder needs"
            )
        if config.width != CELL_CHANNELS:
            raise ModelError(f"encoder.width: {config.width} is given and this encoder makes {CELL_CHANNELS}")
        return EfficientNetLite()
    from rucap.network.clip import ClipVision

    return ClipVision(config)
