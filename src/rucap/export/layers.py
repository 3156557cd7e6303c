"""What transformers are made of, as nodes of a graph: norms, linear layers, attention."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import nn

from rucap.engines.protocol import Floats
from rucap.export.graph import Graph
from rucap.export.weights import Weights, array

GELU = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}
"""transformers' names of activations -> ONNX's ways to compute Gelu."""
NEVER = float(np.finfo(np.float32).min)
"""The bias of what must not be looked at."""


@dataclass(frozen=True)
class Layers:
    """Appends layers to a graph, their matrices stored by `weights`."""

    graph: Graph
    weights: Weights

    def matrix(self, inputs: str, weight: Floats, bias: Floats | None, name: str) -> str:
        """Maps [..., in] to [..., out] by `weight` [in, out]."""
        return self.weights.linear(self.graph, inputs, weight, bias, name)

    def linear(self, inputs: str, layer: nn.Linear, name: str) -> str:
        """A linear layer of torch."""
        return self.matrix(inputs, array(layer.weight).T, None if layer.bias is None else array(layer.bias), name)

    def norm(self, inputs: str, layer: nn.LayerNorm, name: str) -> str:
        """A layer norm of torch."""
        scale = self.graph.constant(array(layer.weight), f"{name}.scale")
        shift = self.graph.constant(array(layer.bias), f"{name}.shift")
        return self.graph.add("LayerNormalization", inputs, scale, shift, epsilon=layer.eps)

    def heads(self, inputs: str, parts: int, heads: int) -> list[str]:
        """Cuts [batch, length, parts * width] into parts, [batch, heads, length, width / heads] each."""
        add, integers = self.graph.add, self.graph.integers
        made = add("Reshape", inputs, integers(0, 0, parts, heads, -1))
        made = add("Transpose", made, perm=(2, 0, 3, 1, 4))
        cut = self.graph.split(made, parts, axis=0) if parts > 1 else [made]
        return [add("Squeeze", part, integers(0)) for part in cut]

    def attention(self, queries: str, keys: str, values: str, bias: str | None = None) -> str:
        """Mixes values by the softmax of scores, `bias` added: [batch, heads, length, ...] to [batch, length, width].

        The scores' scale is in the queries already.
        """
        add = self.graph.add
        scores = add("MatMul", queries, add("Transpose", keys, perm=(0, 1, 3, 2)))
        shares = add("Softmax", scores if bias is None else add("Add", scores, bias), axis=-1)
        mixed = add("Transpose", add("MatMul", shares, values), perm=(0, 2, 1, 3))
        return add("Reshape", mixed, self.graph.integers(0, 0, -1))


def query_scale(width: int, heads: int) -> np.float32:
    """1 / sqrt(head width) (Vaswani et al., arXiv:1706.03762, equation 1)."""
    return np.float32((width // heads) ** -0.5)


def parameters(layer: nn.Linear) -> tuple[Floats, Floats]:
    """Weight [in, out] and bias of a linear layer that has one."""
    return array(layer.weight).T, array(layer.bias)


def beside(*layers: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    """The parameters of layers of the same inputs as one layer's."""
    weights, biases = zip(*layers, strict=True)
    return np.concatenate(weights, axis=1), np.concatenate(biases)
