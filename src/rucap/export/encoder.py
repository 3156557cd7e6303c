"""A vision encoder and a mapping network as one ONNX graph: pixels to a prefix and label logits."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
import torch
from torch import nn

from rucap.errors import ModelError
from rucap.export.graph import Graph, value
from rucap.export.layers import Layers
from rucap.export.mappers import mapper_nodes
from rucap.export.weights import Weights, array
from rucap.network.efficientnet_lite import EfficientNetLite, InvertedBottleneck, SameConv, Tail
from rucap.network.prefix_captioner import PrefixCaptioner

SENSITIVE = ("stem", "trunk.0.")
"""The names that the first convolutions begin with, whose values spread widest: they suffer most in int8."""


def encoder_graph(network: PrefixCaptioner, weights: Weights) -> onnx.ModelProto:
    """The graph of a captioner's encoder and mapper; convolutions are float32, matrices are stored by `weights`."""
    config, encoder = network.config, network.encoder
    if not isinstance(encoder, EfficientNetLite):
        raise ModelError(
            f"config.json: encoder: {config.encoder.kind} has no ONNX export, only efficientnet_lite has; run it with"
            " the torch engine"
        )
    side = config.encoder.preprocessing.size
    graph = Graph()
    stem = _relu6(graph, _convolution(graph, Images("pixels", side), encoder.stem, "stem"))
    features = _stages(graph, stem, encoder.stages, "trunk")
    grid = _tail(graph, features, encoder.tail, "tail")

    cells = graph.add("Reshape", grid.name, graph.integers(0, 0, -1))
    cells = graph.add("Transpose", cells, perm=(0, 2, 1))
    if config.mapper.normalize:
        cells = _normalised(graph, cells)
    layers = Layers(graph, weights)
    graph.add("Identity", mapper_nodes(layers, network.mapper, cells), output="prefix")
    outputs = [value("prefix", "float32", "batch", config.mapper.prefix_length, config.language_model.width)]
    if config.hints:
        if not _equal(encoder.tail, encoder.label_tail):
            grid = _tail(graph, features, encoder.label_tail, "label_tail")
        pooled = graph.add("Flatten", graph.add("GlobalAveragePool", grid.name))
        graph.add("Identity", layers.linear(pooled, encoder.classifier, "classifier"), output="label_logits")
        outputs.append(value("label_logits", "float32", "batch", encoder.labels))
    return graph.model([value("pixels", "float32", "batch", 3, side, side)], outputs)


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


def _normalised(graph: Graph, cells: str) -> str:
    """As torch's `normalize`: by the L2 norm, of at least 1e-12."""
    norm = graph.add("ReduceL2", cells, graph.integers(-1), keepdims=1)
    return graph.add("Div", cells, graph.add("Max", norm, graph.number(1e-12)))


def _equal(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
