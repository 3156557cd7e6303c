"""CLIP's and SigLIP's text towers (see `rucap.network.text_tower`) as a graph: tokens to embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from rucap.export.clip_layers import layer_nodes
from rucap.export.graph import Graph, value
from rucap.export.layers import NEVER, Layers
from rucap.export.weights import Weights, array

_HIGHEST = 2
"""The end token of OpenAI's files, by mistake: transformers then takes the token of the highest number for the end."""


def text_tower_graph(tower: Any, weights: Weights) -> onnx.ModelProto:  # noqa: ANN401
    """The graph of a text tower. Raises NoExportError for one with settings that have no export."""
    text = getattr(tower, "text_model", tower)  # SigLIP's is an inner module until transformers 5.2x
    clip = hasattr(tower, "text_projection")
    graph = Graph()
    layers, add = Layers(graph, weights), graph.add
    length = add("Shape", "tokens", start=1, end=2)
    read = weights.look_up(graph, array(text.embeddings.token_embedding.weight), "tokens", "vocabulary")
    positions = graph.constant(array(text.embeddings.position_embedding.weight), "positions")
    hidden = add("Add", read, add("Slice", positions, graph.integers(0), length, graph.integers(0)))
    bias = _backwards(graph, length, text.config.max_position_embeddings) if clip else None
    for number, layer in enumerate(text.encoder.layers):
        hidden = layer_nodes(layers, layer, hidden, f"tower.{number}", bias=bias)
    if clip:
        pooled = add("GatherND", hidden, _ends(graph, text.config.eos_token_id), batch_dims=1)
    else:
        pooled = add("Gather", hidden, graph.constant(np.array(-1)), axis=1)
    pooled = layers.norm(pooled, text.final_layer_norm, "tower.norm")
    head = tower.text_projection if clip else text.head
    add("Identity", layers.linear(pooled, head, "tower.head"), output="embeddings")
    embeddings = value("embeddings", "float32", "texts", head.out_features)
    return graph.model([value("tokens", "int64", "texts", "length")], [embeddings])


def _backwards(graph: Graph, length: str, longest: int) -> str:
    """[length, length]: 0 at the positions that one may look at, itself and before it, lowest at those after it."""
    bias = graph.constant(np.triu(np.full((longest, longest), NEVER, np.float32), k=1), "tower.backwards")
    both = graph.add("Concat", length, length, axis=0)
    return graph.add("Slice", bias, graph.integers(0, 0), both, graph.integers(0, 1))


def _ends(graph: Graph, end: int) -> str:
    """The place of each text's first end token, [texts, 1]."""
    tokens = graph.cast("tokens", "int32")
    if end != _HIGHEST:
        tokens = graph.cast(graph.add("Equal", tokens, graph.constant(np.array(end, np.int32))), "int32")
    return graph.add("ArgMax", tokens, axis=1)
