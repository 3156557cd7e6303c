"""A vision encoder and a mapping network as one ONNX graph: pixels to a prefix and label logits."""

from __future__ import annotations

import onnx

from rucap.errors import ModelError
from rucap.export.efficientnet_lite import efficientnet_nodes
from rucap.export.graph import Graph, value
from rucap.export.layers import Layers
from rucap.export.mappers import mapper_nodes
from rucap.export.weights import Weights
from rucap.network.efficientnet_lite import EfficientNetLite
from rucap.network.prefix_captioner import PrefixCaptioner


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
    layers = Layers(graph, weights)
    cells, label_logits = efficientnet_nodes(layers, encoder, side, config.hints is not None)
    if config.mapper.normalize:
        cells = _normalised(graph, cells)
    graph.add("Identity", mapper_nodes(layers, network.mapper, cells), output="prefix")
    outputs = [value("prefix", "float32", "batch", config.mapper.prefix_length, config.language_model.width)]
    if label_logits is not None:
        graph.add("Identity", label_logits, output="label_logits")
        outputs.append(value("label_logits", "float32", "batch", encoder.labels))
    return graph.model([value("pixels", "float32", "batch", 3, side, side)], outputs)


def _normalised(graph: Graph, cells: str) -> str:
    """As torch's `normalize`: by the L2 norm, of at least 1e-12."""
    norm = graph.add("ReduceL2", cells, graph.integers(-1), keepdims=1)
    return graph.add("Div", cells, graph.add("Max", norm, graph.number(1e-12)))
