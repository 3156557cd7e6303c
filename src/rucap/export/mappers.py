"""Mapping networks (see `rucap.network.mapper`) as parts of a graph."""

from __future__ import annotations

from torch import nn

from rucap.engines.protocol import Floats
from rucap.export.layers import Layers, query_scale
from rucap.export.weights import array
from rucap.network.mapper import GridMapper, MLPMapper, TransformerLayer, TransformerMapper, TransformerStack


def mapper_nodes(layers: Layers, mapper: nn.Module, cells: str) -> str:
    """Appends a mapper: cells [batch, cells, width] to a prefix [batch, prefix_length, outputs]."""
    if isinstance(mapper, GridMapper):
        return _grid(layers, mapper, cells)
    embedding = layers.graph.add("Squeeze", cells, layers.graph.integers(1))
    if isinstance(mapper, TransformerMapper):
        return _transformer(layers, mapper, embedding)
    assert isinstance(mapper, MLPMapper)
    return _mlp(layers, mapper, embedding)


def _mlp(layers: Layers, mapper: MLPMapper, embedding: str) -> str:
    graph, hidden = layers.graph, embedding
    for number, layer in enumerate(mapper.model):
        if isinstance(layer, nn.Linear):
            hidden = layers.linear(hidden, layer, f"mapper.{number}")
        else:
            hidden = graph.add("Tanh", hidden)
    return graph.add("Reshape", hidden, graph.integers(-1, mapper.prefix_length, mapper.outputs))


def _transformer(layers: Layers, mapper: TransformerMapper, embedding: str) -> str:
    graph = layers.graph
    made = layers.linear(embedding, mapper.linear, "mapper.linear")
    made = graph.add("Reshape", made, graph.integers(-1, mapper.constant_length, mapper.outputs))
    return _read_out(layers, mapper.transformer, array(mapper.prefix_const), made)


def _grid(layers: Layers, mapper: GridMapper, cells: str) -> str:
    graph = layers.graph
    read = layers.linear(cells, mapper.project, "mapper.project")
    read = graph.add("Add", read, graph.constant(array(mapper.positions), "mapper.positions"))
    mixed = _read_out(layers, mapper.transformer, array(mapper.queries), read)
    return layers.linear(layers.norm(mixed, mapper.norm, "mapper.norm"), mapper.output, "mapper.output")


def _read_out(layers: Layers, stack: TransformerStack, learned: Floats, inputs: str) -> str:
    """What a transformer, which knows no order, makes of learned vectors beside its inputs."""
    graph = layers.graph
    shape = graph.add("Concat", graph.add("Shape", inputs, start=0, end=1), graph.integers(*learned.shape), axis=0)
    hidden = graph.add("Concat", graph.add("Expand", graph.constant(learned, "mapper.learned"), shape), inputs, axis=1)
    for number, layer in enumerate(stack.layers):
        assert isinstance(layer, TransformerLayer)
        wanted = len(learned) if number == len(stack.layers) - 1 else None
        hidden = _layer(layers, layer, hidden, f"mapper.layers.{number}", wanted)
    return hidden


def _layer(layers: Layers, layer: TransformerLayer, hidden: str, name: str, wanted: int | None) -> str:
    """A pre-norm layer, of the first `wanted` positions alone where that is given."""
    graph, attention = layers.graph, layer.attn
    width, heads = attention.to_queries.in_features, attention.heads
    read = layers.norm(hidden, layer.norm1, f"{name}.norm1")
    asking = read
    if wanted is not None:
        first = (graph.integers(0), graph.integers(wanted), graph.integers(1))
        asking, hidden = graph.add("Slice", read, *first), graph.add("Slice", hidden, *first)
    weight = array(attention.to_queries.weight).T * query_scale(width, heads)
    (queries,) = layers.heads(layers.matrix(asking, weight, None, f"{name}.queries"), 1, heads)
    keys, values = layers.heads(layers.linear(read, attention.to_keys_values, f"{name}.keys_values"), 2, heads)
    mixed = layers.linear(layers.attention(queries, keys, values), attention.project, f"{name}.project")
    hidden = graph.add("Add", hidden, mixed)
    read = layers.norm(hidden, layer.norm2, f"{name}.norm2")
    read = graph.add("Relu", layers.linear(read, layer.mlp.fc1, f"{name}.widen"))
    return graph.add("Add", hidden, layers.linear(read, layer.mlp.fc2, f"{name}.narrow"))
