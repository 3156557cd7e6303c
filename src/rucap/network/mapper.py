"""Mapping networks: features of a photo to a prefix of pseudo-words.

`MLPMapper` and `TransformerMapper` are ClipCap's two (Mokady et al., arXiv:2111.09734, section 3.2), with the parameter
names of its published checkpoints. `GridMapper` reads a grid of cells with learned queries.
Dropout is none until training sets the modules' `dropout`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from rucap.model.config import MapperConfig


class MLPMapper(nn.Module):
    """One or two linear layers with tanh between; `hidden` 0 makes a single linear layer (ClipCap's older form)."""

    def __init__(self, inputs: int, outputs: int, prefix_length: int, hidden: int) -> None:
        super().__init__()
        self.prefix_length, self.outputs = prefix_length, outputs
        flat = prefix_length * outputs
        self.model = (
            nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, flat))
            if hidden
            else nn.Sequential(nn.Linear(inputs, flat))
        )

    def forward(self, cells: Tensor) -> Tensor:
        """Maps [batch, 1, inputs] to [batch, prefix_length, outputs]."""
        return self.model(cells[:, 0]).unflatten(1, (self.prefix_length, self.outputs))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Multi-head self-attention; queries, keys and values without bias, as in ClipCap."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.dropout = heads, 0.0
        self.to_queries = nn.Linear(width, width, bias=False)
        self.to_keys_values = nn.Linear(width, width * 2, bias=False)
        self.project = nn.Linear(width, width)

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps [batch, length, width] to the same shape."""
        queries = self.to_queries(inputs).unflatten(2, (self.heads, -1)).transpose(1, 2)
        keys_values = self.to_keys_values(inputs).unflatten(2, (2, self.heads, -1))
        keys, values = keys_values[:, :, 0].transpose(1, 2), keys_values[:, :, 1].transpose(1, 2)
        dropout = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(queries, keys, values, dropout_p=dropout)
        return self.project(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """Two linear layers with ReLU between."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, width * ratio)
        self.fc2 = nn.Linear(width * ratio, width)

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps [batch, length, width] to the same shape."""
        return self.fc2(functional.relu(self.fc1(inputs)))  # type: ignore[no-any-return]


class TransformerLayer(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, width: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.mlp = FeedForward(width, ratio)
        self.dropout = 0.0

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps [batch, length, width] to the same shape."""
        inputs = inputs + functional.dropout(self.attn(self.norm1(inputs)), self.dropout, self.training)
        return inputs + functional.dropout(self.mlp(self.norm2(inputs)), self.dropout, self.training)


class TransformerStack(nn.Module):
    """Layers one after another, under the name that ClipCap's checkpoints give them."""

    def __init__(self, width: int, heads: int, layers: int, ratio: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TransformerLayer(width, heads, ratio) for _ in range(layers))

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps [batch, length, width] to the same shape."""
        for layer in self.layers:
            inputs = layer(inputs)
        return inputs


class TransformerMapper(nn.Module):
    """ClipCap's transformer mapper: the embedding becomes `constant_length` vectors, learned constants follow.

    The prefix is what the transformer makes of the constants.
    """

    def __init__(
        self, inputs: int, outputs: int, prefix_length: int, constant_length: int, layers: int, heads: int
    ) -> None:
        super().__init__()
        self.constant_length, self.outputs = constant_length, outputs
        self.linear = nn.Linear(inputs, constant_length * outputs)
        self.prefix_const = nn.Parameter(torch.randn(prefix_length, outputs))
        self.transformer = TransformerStack(outputs, heads, layers, ratio=2)

    def forward(self, cells: Tensor) -> Tensor:
        """Maps [batch, 1, inputs] to [batch, prefix_length, outputs]."""
        made = self.linear(cells[:, 0]).unflatten(1, (self.constant_length, self.outputs))
        constants = self.prefix_const.expand(len(cells), -1, -1)
        return self.transformer(torch.cat([made, constants], 1))[:, self.constant_length :]  # type: ignore[no-any-return]


class GridMapper(nn.Module):
    """Learned queries and the grid's cells, with learned positions, go through one transformer; the queries stay."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        cells: int,
        prefix_length: int,
        width: int,
        layers: int,
        heads: int,
    ) -> None:
        super().__init__()
        self.prefix_length, self.dropout = prefix_length, 0.0
        self.project = nn.Linear(inputs, width)
        self.positions = nn.Parameter(torch.randn(cells, width) * 0.02)
        self.queries = nn.Parameter(torch.randn(prefix_length, width) * 0.02)
        self.transformer = TransformerStack(width, heads, layers, ratio=4)
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, outputs)

    def forward(self, cells: Tensor) -> Tensor:
        """Maps [batch, cells, inputs] to [batch, prefix_length, outputs]."""
        read = functional.dropout(self.project(cells), self.dropout, self.training) + self.positions
        queries = self.queries.expand(len(cells), -1, -1)
        mixed = self.transformer(torch.cat([queries, read], 1))[:, : self.prefix_length]
        return self.output(self.norm(mixed))  # type: ignore[no-any-return]


def build_mapper(config: MapperConfig, inputs: int, cells: int, outputs: int) -> nn.Module:
    """The mapping network from `cells` vectors of `inputs` numbers to a prefix of vectors of `outputs` numbers."""
    if config.kind == "mlp":
        return MLPMapper(inputs, outputs, config.prefix_length, config.width)
    if config.kind == "transformer":
        return TransformerMapper(
            inputs, outputs, config.prefix_length, config.constant_length, config.layers, config.heads
        )
    return GridMapper(inputs, outputs, cells, config.prefix_length, config.width, config.layers, config.heads)
