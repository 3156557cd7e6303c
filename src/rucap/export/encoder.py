"""A vision encoder and a mapping network as one ONNX graph: pixels to a prefix, label logits, an embedding."""

from __future__ import annotations

import onnx
from torch.nn import functional

from rucap.export.clip_resnet import resnet_nodes
from rucap.export.efficientnet_lite import efficientnet_nodes
from rucap.export.graph import Graph, value
from rucap.export.layers import Layers
from rucap.export.mappers import mapper_nodes
from rucap.export.vision_transformer import clip_nodes, siglip_nodes
from rucap.export.weights import Weights, array
from rucap.network.clip import LABEL_SCALE, ClipVision
from rucap.network.clip_resnet import ClipResNet
from rucap.network.efficientnet_lite import EfficientNetLite
from rucap.network.prefix_captioner import PrefixCaptioner


def encoder_graph(network: PrefixCaptioner, weights: Weights) -> onnx.ModelProto:
    """The graph of a captioner's encoder and mapper; convolutions are float32, matrices are stored by `weights`.

    Raises NoExportError for a tower with settings that have no export.
    """
    config, encoder = network.config, network.encoder
    side = config.encoder.preprocessing.size
    graph = Graph()
    layers = Layers(graph, weights)
    if isinstance(encoder, EfficientNetLite):
        cells, label_logits = efficientnet_nodes(layers, encoder, side, config.hints is not None)
    else:
        assert isinstance(encoder, ClipVision)
        cells, label_logits = _clip_nodes(layers, encoder, config.hints is not None)
    if config.text_tower is not None:
        graph.add("Squeeze", cells, graph.integers(1), output="embedding")
    if config.mapper.normalize:
        cells = _normalised(graph, cells)
    graph.add("Identity", mapper_nodes(layers, network.mapper, cells), output="prefix")
    outputs = [value("prefix", "float32", "batch", config.mapper.prefix_length, config.language_model.width)]
    if label_logits is not None:
        graph.add("Identity", label_logits, output="label_logits")
        outputs.append(value("label_logits", "float32", "batch", encoder.labels))
    if config.text_tower is not None:
        outputs.append(value("embedding", "float32", "batch", config.encoder.width))
    return graph.model([value("pixels", "float32", "batch", 3, side, side)], outputs)


def _clip_nodes(layers: Layers, encoder: ClipVision, hints: bool) -> tuple[str, str | None]:
    """Appends an encoder of CLIP's family: pixels to one cell, [batch, 1, width], and to label logits for hints."""
    graph, tower = layers.graph, encoder.tower
    if isinstance(tower, ClipResNet):
        embedding = resnet_nodes(layers, tower, "pixels")
    elif hasattr(tower, "visual_projection"):
        embedding = clip_nodes(layers, tower, "pixels")
    else:
        embedding = siglip_nodes(layers, tower, "pixels")
    label_logits = None
    if hints and encoder.label_embeddings is not None:
        labels = LABEL_SCALE * functional.normalize(encoder.label_embeddings, dim=-1).T
        label_logits = layers.matrix(_normalised(graph, embedding), array(labels), None, "labels")
    return graph.add("Unsqueeze", embedding, graph.integers(1)), label_logits


def _normalised(graph: Graph, vectors: str) -> str:
    """As torch's `normalize`: by the L2 norm, of at least 1e-12."""
    norm = graph.add("ReduceL2", vectors, graph.integers(-1), keepdims=1)
    return graph.add("Div", vectors, graph.add("Max", norm, graph.number(1e-12)))
