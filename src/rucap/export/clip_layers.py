"""The layers of CLIP's and SigLIP's transformers, of photos and of texts alike, as transformers has them."""

from __future__ import annotations

from typing import Any

from rucap.errors import NoExportError
from rucap.export.layers import GELU, Layers, beside, parameters, query_scale

QUICK_GELU_SLOPE = 1.702
"""Hendrycks & Gimpel, arXiv:1606.08415, section 2."""


def layer_nodes(
    layers: Layers,
    layer: Any,  # noqa: ANN401
    hidden: str,
    name: str,
    wanted: int | None = None,
    bias: str | None = None,
) -> str:
    """Appends a pre-norm layer, of the first `wanted` positions alone where that is given.

    `bias` is added to the scores of attention. Raises NoExportError for an activation without one.
    """
    graph, attention = layers.graph, layer.self_attn
    heads, scale = attention.num_heads, query_scale(attention.embed_dim, attention.num_heads)
    read = layers.norm(hidden, layer.layer_norm1, f"{name}.attention.norm")
    queries, keys, values = (parameters(p) for p in (attention.q_proj, attention.k_proj, attention.v_proj))
    queries = queries[0] * scale, queries[1] * scale
    if wanted is None:
        made = layers.matrix(read, *beside(queries, keys, values), f"{name}.attention.inputs")
        asked, known, said = layers.heads(made, 3, heads)
    else:
        first = (graph.integers(0), graph.integers(wanted), graph.integers(1))
        asking, hidden = graph.add("Slice", read, *first), graph.add("Slice", hidden, *first)
        (asked,) = layers.heads(layers.matrix(asking, *queries, f"{name}.attention.queries"), 1, heads)
        made = layers.matrix(read, *beside(keys, values), f"{name}.attention.keys_values")
        known, said = layers.heads(made, 2, heads)
    mixed = layers.linear(layers.attention(asked, known, said, bias), attention.out_proj, f"{name}.attention.output")
    hidden = graph.add("Add", hidden, mixed)
    read = layers.norm(hidden, layer.layer_norm2, f"{name}.mlp.norm")
    return graph.add("Add", hidden, mlp_nodes(layers, layer.mlp, read, f"{name}.mlp"))


def mlp_nodes(layers: Layers, mlp: Any, inputs: str, name: str) -> str:  # noqa: ANN401
    """Appends two linear layers with the configuration's activation between them."""
    hidden = _activated(layers, layers.linear(inputs, mlp.fc1, f"{name}.widen"), mlp.config.hidden_act)
    return layers.linear(hidden, mlp.fc2, f"{name}.narrow")


def _activated(layers: Layers, inputs: str, activation: str) -> str:
    graph = layers.graph
    if activation == "quick_gelu":
        return graph.add("Mul", inputs, graph.add("Sigmoid", graph.add("Mul", inputs, graph.number(QUICK_GELU_SLOPE))))
    if activation not in GELU:
        raise NoExportError(
            f"config.json: settings.hidden_act: {activation} has no ONNX export; run the model with the torch engine"
        )
    return graph.add("Gelu", inputs, approximate=GELU[activation])
