"""OpenAI CLIP's ResNets (see `rucap.network.clip_resnet`) as parts of a graph."""

from __future__ import annotations

from torch import nn

from rucap.export.graph import Graph
from rucap.export.layers import Layers, beside, parameters, query_scale
from rucap.export.weights import array
from rucap.network.clip_resnet import HEAD_WIDTH, AttentionPool, Bottleneck, ClipResNet


def resnet_nodes(layers: Layers, tower: ClipResNet, pixels: str) -> str:
    """Appends the tower: pixels to embeddings, [batch, width]. Its convolutions are float32."""
    graph, hidden = layers.graph, pixels
    for name in ("conv1", "conv2", "conv3"):
        hidden = graph.add("Relu", _convolution(graph, hidden, getattr(tower, name), f"tower.{name}"))
    hidden = _shrunk(graph, hidden, 2)
    for name in ("layer1", "layer2", "layer3", "layer4"):
        for number, block in enumerate(getattr(tower, name)):
            hidden = _block(graph, hidden, block, f"tower.{name}.{number}")
    return _attention_pool(layers, tower.attnpool, hidden)


def _convolution(graph: Graph, images: str, layer: nn.Conv2d, name: str) -> str:
    assert layer.bias is not None and not isinstance(layer.padding, str)
    return graph.add(
        "Conv",
        images,
        graph.constant(array(layer.weight), f"{name}.weight"),
        graph.constant(array(layer.bias), f"{name}.bias"),
        kernel_shape=layer.kernel_size,
        strides=layer.stride,
        pads=layer.padding * 2,
    )


def _shrunk(graph: Graph, images: str, factor: int) -> str:
    if factor == 1:
        return images
    return graph.add("AveragePool", images, kernel_shape=(factor, factor), strides=(factor, factor))


def _block(graph: Graph, images: str, block: Bottleneck, name: str) -> str:
    hidden = graph.add("Relu", _convolution(graph, images, block.conv1, f"{name}.conv1"))
    hidden = graph.add("Relu", _convolution(graph, hidden, block.conv2, f"{name}.conv2"))
    hidden = _convolution(graph, _shrunk(graph, hidden, block.stride), block.conv3, f"{name}.conv3")
    if block.downsample is not None:
        (convolution,) = block.downsample
        assert isinstance(convolution, nn.Conv2d)
        images = _convolution(graph, _shrunk(graph, images, block.stride), convolution, f"{name}.downsample")
    return graph.add("Relu", graph.add("Add", hidden, images))


def _attention_pool(layers: Layers, pool: AttentionPool, grid: str) -> str:
    graph, name, width = layers.graph, "tower.pool", pool.q_proj.in_features
    heads = width // HEAD_WIDTH
    cells = graph.add("Transpose", graph.add("Reshape", grid, graph.integers(0, 0, -1)), perm=(0, 2, 1))
    mean = graph.add("ReduceMean", cells, graph.integers(1), keepdims=1)
    positions = graph.constant(array(pool.positional_embedding), f"{name}.positions")
    cells = graph.add("Add", graph.add("Concat", mean, cells, axis=1), positions)
    asking = graph.add("Slice", cells, graph.integers(0), graph.integers(1), graph.integers(1))
    scale = query_scale(width, heads)
    queries, keys, values = (parameters(layer) for layer in (pool.q_proj, pool.k_proj, pool.v_proj))
    (asked,) = layers.heads(layers.matrix(asking, queries[0] * scale, queries[1] * scale, f"{name}.queries"), 1, heads)
    known, said = layers.heads(layers.matrix(cells, *beside(keys, values), f"{name}.keys_values"), 2, heads)
    mixed = graph.add("Squeeze", layers.attention(asked, known, said), graph.integers(1))
    return layers.linear(mixed, pool.c_proj, f"{name}.output")
