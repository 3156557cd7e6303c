"""CLIP's and SigLIP's vision transformers, as transformers has them, as parts of a graph."""

from __future__ import annotations

from typing import Any

from rucap.engines.protocol import Floats
from rucap.export.clip_layers import layer_nodes, mlp_nodes
from rucap.export.layers import Layers, query_scale
from rucap.export.weights import array


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
        hidden = layer_nodes(layers, layer, hidden, f"tower.{number}", wanted)
    hidden = layers.norm(graph.add("Squeeze", hidden, graph.integers(1)), vision.post_layernorm, "tower.output_norm")
    return layers.linear(hidden, tower.visual_projection, "tower.projection")


def siglip_nodes(layers: Layers, tower: Any, pixels: str) -> str:  # noqa: ANN401
    """Appends SigLIP's: pixels to what its head pools, [batch, width]. Raises NoExportError as `clip_nodes` does."""
    vision = getattr(tower, "vision_model", tower)  # an inner module until transformers 5.2x
    positions = array(vision.embeddings.position_embedding.weight)
    hidden = _patches(layers, vision.embeddings, pixels, positions)
    for number, layer in enumerate(vision.encoder.layers):
        hidden = layer_nodes(layers, layer, hidden, f"tower.{number}")
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
    hidden = graph.add("Add", hidden, mlp_nodes(layers, head.mlp, read, "tower.head.mlp"))
    return graph.add("Squeeze", hidden, graph.integers(1))
