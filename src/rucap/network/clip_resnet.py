"""OpenAI CLIP's ResNets (Radford et al., arXiv:2103.00020, section 2.4): RN50x4, whose 640 features ClipCap also used.

transformers lacks them. The network is written after OpenAI's `clip/model.py`, with its names; batch normalisation is
folded into the convolutions when a file is read (`from_openai`), as these towers stay frozen.
"""

from __future__ import annotations

import re
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rucap.errors import ModelError

BATCH_NORM_EPSILON = 1e-5
HEAD_WIDTH = 64
EXPANSION = 4
REDUCTION = 32
"""The image's side over that of the grid that is pooled."""
NORMS = {"bn1": "conv1", "bn2": "conv2", "bn3": "conv3", "downsample.1": "downsample.0"}
"""Batch norms and the convolutions before them."""


class Bottleneck(nn.Module):
    """A residual block; where it halves the image it averages, after its 3x3 convolution and in its skip."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.stride, outputs = stride, width * EXPANSION
        self.conv1 = nn.Conv2d(inputs, width, 1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.conv3 = nn.Conv2d(width, outputs, 1)
        self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1)) if stride > 1 or inputs != outputs else None

    def forward(self, images: Tensor) -> Tensor:
        """Maps [batch, inputs, height, width] to [batch, outputs, height / stride, width / stride]."""
        hidden = functional.relu(self.conv2(functional.relu(self.conv1(images))))
        hidden = self.conv3(self._shrunk(hidden))
        skip = images if self.downsample is None else self.downsample(self._shrunk(images))
        return functional.relu(hidden + skip)

    def _shrunk(self, images: Tensor) -> Tensor:
        return functional.avg_pool2d(images, self.stride) if self.stride > 1 else images


class AttentionPool(nn.Module):
    """The mean of a grid attends to its cells and to itself."""

    def __init__(self, cells: int, width: int, outputs: int) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.randn(cells + 1, width) / width**0.5)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.c_proj = nn.Linear(width, outputs)

    def forward(self, grid: Tensor) -> Tensor:
        """Maps [batch, width, height, width] to [batch, outputs]."""
        cells = grid.flatten(2).transpose(1, 2)
        cells = torch.cat([cells.mean(1, keepdim=True), cells], 1) + self.positional_embedding
        projected = (self.q_proj(cells[:, :1]), self.k_proj(cells), self.v_proj(cells))
        queries, keys, values = (each.unflatten(2, (-1, HEAD_WIDTH)).transpose(1, 2) for each in projected)
        mixed = functional.scaled_dot_product_attention(queries, keys, values)
        return self.c_proj(mixed.transpose(1, 2).flatten(2)[:, 0])  # type: ignore[no-any-return]


class ClipResNet(nn.Module):
    """Pixels to CLIP's embedding. The stem is three convolutions and a mean, as of no other ResNet."""

    def __init__(self, layers: list[int], width: int, outputs: int, image_size: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1)
        inputs, stages = width, []
        for number, blocks in enumerate(layers):
            made = []
            for block in range(blocks):
                made.append(Bottleneck(inputs, width * 2**number, 2 if number and not block else 1))
                inputs = width * 2**number * EXPANSION
            stages.append(nn.Sequential(*made))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.attnpool = AttentionPool((image_size // REDUCTION) ** 2, inputs, outputs)

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps [batch, 3, image_size, image_size] to [batch, outputs]."""
        hidden = functional.relu(self.conv1(pixels))
        hidden = functional.relu(self.conv2(hidden))
        hidden = functional.avg_pool2d(functional.relu(self.conv3(hidden)), 2)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            hidden = stage(hidden)
        return self.attnpool(hidden)  # type: ignore[no-any-return]


def build_resnet(settings: dict[str, Any]) -> tuple[nn.Module, int]:
    """The tower and the width of its embedding. Raises ModelError for settings that are not `from_openai`'s."""
    try:
        return ClipResNet(**settings), int(settings["outputs"])
    except (TypeError, ValueError, KeyError) as error:
        raise ModelError(f"config.json: encoder.settings: not a CLIP ResNet's: {error}") from None


def from_openai(tensors: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings and tensors of the tower from OpenAI's (without their `visual.`), all sizes read from them.

    Raises ModelError naming a tensor that is missing.
    """
    try:
        cells = len(tensors["attnpool.positional_embedding"]) - 1
        settings = {
            "layers": [next(n for n in count() if f"layer{k}.{n}.conv1.weight" not in tensors) for k in (1, 2, 3, 4)],
            "width": len(tensors["layer1.0.conv1.weight"]),
            "outputs": len(tensors["attnpool.c_proj.weight"]),
            "image_size": round(cells**0.5) * REDUCTION,
        }
        folded = {}
        for name, tensor in tensors.items():
            if name.startswith("attnpool."):
                folded[name] = tensor.float()
            elif found := re.fullmatch(r"(.*?)(bn[123]|downsample\.1)\.weight", name):
                norm, convolution = found[1] + found[2], found[1] + NORMS[found[2]]
                scale = tensor.float() / (tensors[f"{norm}.running_var"].float() + BATCH_NORM_EPSILON).sqrt()
                folded[f"{convolution}.weight"] = tensors[f"{convolution}.weight"].float() * scale[:, None, None, None]
                folded[f"{convolution}.bias"] = (
                    tensors[f"{norm}.bias"].float() - tensors[f"{norm}.running_mean"].float() * scale
                )
    except KeyError as error:
        raise ModelError(f"not a ResNet of OpenAI's CLIP: the tensor visual.{error.args[0]} is missing") from None
    return {"model_type": "clip_resnet", **settings}, folded
