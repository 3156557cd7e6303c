"""CLIP's and SigLIP's vision transformers, as transformers has them, as parts of a graph."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from rucap.engines.protocol import Floats
from rucap.errors import NoExportError
from rucap.export.layers import Layers, query_scale
from rucap.export.weights import array

_GELU = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}
QUICK_GELU_SLOPE = 1.702
"""Hendrycks & Gimpel, arXiv:1606.08415, section 2."""


def clip_nodes(layers: Layers, tower: Any, pixels: str) -> str:  # noqa: ANN401
    """Appends CLIP's: pixels to projected embeddings, [batch, width]. Raises NoExportError for settings without one."""
    graph, vision = layers.graph, tower.vision_model
    positions = array(vision.embeddings.position_embedding.weight)
    first = (array(vision.embeddings.class_embedding) + positions[0])[None, None]
    cells = _patches(layers, vision.embeddings, pixels, positions[1:])
    shape = graph.add("Concat", graph.add("Shape", cells, end=1), graph.integers(*first.shape[1:]), axis=0)
    read = graph.add("Expand", graph.constant(first, "tower.class"), shape)
    hidden = layers.norm(graph.add("Concat", read, cells, axis=1), vision.pre_layrnorm, "tower.norm")
    for number, layer in enumerate(vision.encoder.layers):
        # Only the class's vector is read in the end.
        wanted = 1 if number == len(vision.encoder.layers) - 1 else None
        hidden = _layer(layers, layer, hidden, f"tower.{number}", wanted)
    hidden = layers.norm(graph.add("Squeeze", hidden, graph.integers(1)), vision.post_layernorm, "tower.output_norm")
    return layers.linear(hidden, tower.visual_projection, "tower.projection")


def siglip_nodes(layers: Layers, tower: Any, pixels: str) -> str:  # noqa: ANN401
    """Appends SigLIP's: pixels to what its head pools, [batch, width]. Raises NoExportError as `clip_nodes` does."""
    vision = getattr(tower, "vision_model", tower)  # an inner module until transformers 5.2x
    positions = array(vision.embeddings.position_embedding.weight)
    hidden = _patches(layers, vision.embeddings, pixels, positions)
    for number, layer in enumerate(vision.encoder.layers):
        hidden = _layer(layers, layer, hidden, f"tower.{number}")
    return _pooled(layers, vision.head, layers.norm(hidden, vision.post_layernorm, "tower.output_norm"))


def _patches(layers: Layers, embeddings: Any, pixels: str, positions: Floats) -> str:  # noqa: ANN401
    """Pixels to patches with their positions, [batch, patches, width]."""
    graph, convolution = layers.graph, embeddings.patch_embedding
    parameters = [graph.constant(array(convolution.weight), "tower.patches")]
    if convolution.bias is not None:
        parameters.append(graph.constant(array(convolution.bias), "tower.patches.bias"))
    grid = graph.add("Conv", pixels, *parameters, kernel_shape=convolution.kernel_size, strides=convolution.stride)
    cells = graph.add("Reshape", grid, graph.integers(0, 0, -1))
    return graph.add("Add", graph.add("Transpose", cells, perm=(0, 2, 1)), graph.constant(positions, "tower.positions"))


def _layer(layers: Layers, layer: Any, hidden: str, name: str, wanted: int | None = None) -> str:  # noqa: ANN401
    """A pre-norm layer, of the first `wanted` positions alone where that is given."""
    graph, attention = layers.graph, layer.self_attn
    heads, scale = attention.num_heads, query_scale(attention.embed_dim, attention.num_heads)
    read = layers.norm(hidden, layer.layer_norm1, f"{name}.attention.norm")
    queries, keys, values = (_parameters(p) for p in (attention.q_proj, attention.k_proj, attention.v_proj))
    queries = queries[0] * scale, queries[1] * scale
    if wanted is None:
        made = layers.matrix(read, *_beside(queries, keys, values), f"{name}.attention.inputs")
        asked, known, said = layers.heads(made, 3, heads)
    else:
        first = (graph.integers(0), graph.integers(wanted), graph.integers(1))
        asking, hidden = graph.add("Slice", read, *first), graph.add("Slice", hidden, *first)
        (asked,) = layers.heads(layers.matrix(asking, *queries, f"{name}.attention.queries"), 1, heads)
        made = layers.matrix(read, *_beside(keys, values), f"{name}.attention.keys_values")
        known, said = layers.heads(made, 2, heads)
    mixed = layers.linear(layers.attention(asked, known, said), attention.out_proj, f"{name}.attention.output")
    hidden = graph.add("Add", hidden, mixed)
    read = layers.norm(hidden, layer.layer_norm2, f"{name}.mlp.norm")
    return graph.add("Add", hidden, _mlp(layers, layer.mlp, read, f"{name}.mlp"))


def _mlp(layers: Layers, mlp: Any, inputs: str, name: str) -> str:  # noqa: ANN401
    hidden = _activated(layers, layers.linear(inputs, mlp.fc1, f"{name}.widen"), mlp.config.hidden_act)
    return layers.linear(hidden, mlp.fc2, f"{name}.narrow")


def _activated(layers: Layers, inputs: str, activation: str) -> str:
    graph = layers.graph
    if activation == "quick_gelu":
        return graph.add("Mul", inputs, graph.add("Sigmoid", graph.add("Mul", inputs, graph.number(QUICK_GELU_SLOPE))))
    if activation not in _GELU:
        raise NoExportError(
            f"config.json: encoder.settings.hidden_act: {activation} has no ONNX export; run the model with the torch"
            " engine"
        )
    return graph.add("Gelu", inputs, approximate=_GELU[activation])


def _pooled(layers: Layers, head: Any, cells: str) -> str:  # noqa: ANN401
    """A learned query's view of the cells (Lee et al., arXiv:1810.00825, section 3.3): [batch, width]."""
    graph, attention = layers.graph, head.attention
    width, heads = attention.embed_dim, attention.num_heads
    weight, bias = array(attention.in_proj_weight).T, array(attention.in_proj_bias)
    query = (array(head.probe)[0] @ weight[:, :width] + bias[:width]) * query_scale(width, heads)
    asked = graph.constant(query.reshape(1, 1, heads, -1).transpose(0, 2, 1, 3), "tower.head.query")
    made = layers.matrix(cells, weight[:, width:], bias[width:], "tower.head.keys_values")
    mixed = layers.attention(asked, *layers.heads(made, 2, heads))
    hidden = layers.linear(mixed, attention.out_proj, "tower.head.output")
    read = layers.norm(hidden, head.layernorm, "tower.head.norm")
    hidden = graph.add("Add", hidden, _mlp(layers, head.mlp, read, "tower.head.mlp"))
    return graph.add("Squeeze", hidden, graph.integers(1))


def _parameters(layer: nn.Linear) -> tuple[Floats, Floats]:
    """Weight [in, out] and bias."""
    return array(layer.weight).T, array(layer.bias)


def _beside(*parameters: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    """Layers of the same inputs as one."""
    weights, biases = zip(*parameters, strict=True)
    return np.concatenate(weights, axis=1), np.concatenate(biases)
