"""EfficientNet-Lite (see `rucap.network.efficientnet_lite`) as part of a graph."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from rucap.export.graph import Graph
from rucap.export.layers import Layers
from rucap.export.weights import array
from rucap.network.efficientnet_lite import (
    CELL_SIDE,
    COLOUR_PATCH,
    EfficientNetLite,
    InvertedBottleneck,
    SameConv,
    Tail,
)

SENSITIVE = ("stem", "trunk.0.", "trunk.1.", "colours")
"""The names that nodes begin with which stay float32: the first stages, whose values spread widest, and the
colours, which are read straight from the pixels."""


def efficientnet_nodes(layers: Layers, encoder: EfficientNetLite, side: int, hints: bool) -> tuple[str, str | None]:
    """Appends the encoder: pixels to cells [batch, cells, 1328] and, for hints, label logits [batch, labels]."""
    graph = layers.graph
    stem = _relu6(graph, _convolution(graph, Images("pixels", side), encoder.stem, "stem"))
    features = _stages(graph, stem, encoder.stages, "trunk")
    grid = _tail(graph, features, encoder.tail, "tail")
    cells = graph.add("Reshape", grid.name, graph.integers(0, 0, -1))
    cells = graph.add("Transpose", cells, perm=(0, 2, 1))
    cells = graph.add("Concat", cells, _colours(graph, side), axis=2)
    if not hints:
        return cells, None
    if not _equal(encoder.tail, encoder.label_tail):
        grid = _tail(graph, features, encoder.label_tail, "label_tail")
    pooled = graph.add("Flatten", graph.add("GlobalAveragePool", grid.name))
    return cells, layers.linear(pooled, encoder.classifier, "classifier")


def _colours(graph: Graph, side: int) -> str:
    """The mean colours of each cell's patches, [batch, cells, 48], in the order that two `pixel_unshuffle`s give."""
    cells, patches = side // CELL_SIDE, CELL_SIDE // COLOUR_PATCH
    sides = (COLOUR_PATCH, COLOUR_PATCH)
    pooled = graph.add("AveragePool", "pixels", name="colours", kernel_shape=sides, strides=sides)
    split = graph.add("Reshape", pooled, graph.integers(0, 3, *2 * (cells, patches // 2, 2)))
    ordered = graph.add("Transpose", split, perm=(0, 2, 5, 1, 4, 7, 3, 6))
    return graph.add("Reshape", ordered, graph.integers(0, cells**2, 3 * patches**2))


@dataclass(frozen=True)
class Images:
    """A value of shape [batch, channels, side, side]."""

    name: str
    side: int


def _convolution(graph: Graph, images: Images, layer: SameConv, name: str) -> Images:
    (kernel, _), (stride, _) = layer.kernel_size, layer.stride
    made = -(-images.side // stride)
    padding = max((made - 1) * stride + kernel - images.side, 0)
    before, after = padding // 2, padding - padding // 2
    assert layer.bias is not None
    output = graph.add(
        "Conv",
        images.name,
        graph.constant(array(layer.weight), f"{name}.weight"),
        graph.constant(array(layer.bias), f"{name}.bias"),
        name=name,
        kernel_shape=(kernel, kernel),
        strides=(stride, stride),
        pads=(before, before, after, after),
        group=layer.groups,
    )
    return Images(output, made)


def _relu6(graph: Graph, images: Images) -> Images:
    return Images(graph.add("Clip", images.name, graph.number(0), graph.number(6)), images.side)


def _block(graph: Graph, images: Images, block: InvertedBottleneck, name: str) -> Images:
    hidden = images
    if block.expand is not None:
        hidden = _relu6(graph, _convolution(graph, hidden, block.expand, f"{name}.expand"))
    hidden = _relu6(graph, _convolution(graph, hidden, block.depthwise, f"{name}.depthwise"))
    narrow = _convolution(graph, hidden, block.project, f"{name}.project")
    return Images(graph.add("Add", images.name, narrow.name), narrow.side) if block.skip else narrow


def _stages(graph: Graph, images: Images, stages: nn.Sequential, name: str) -> Images:
    for number, stage in enumerate(stages):
        assert isinstance(stage, nn.Sequential)
        for repeat, block in enumerate(stage):
            assert isinstance(block, InvertedBottleneck)
            images = _block(graph, images, block, f"{name}.{number}.{repeat}")
    return images


def _tail(graph: Graph, features: Images, tail: Tail, name: str) -> Images:
    return _relu6(graph, _convolution(graph, _stages(graph, features, tail.stages, name), tail.head, f"{name}.head"))


def _equal(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
