"""How matrices are stored in a graph and multiplied by: in float32, or in int8.

int8 products pair a signed weight with an unsigned activation. Processors without VNNI instructions add two such
products in 16 bits and saturate there (vpmaddubsw, which onnxruntime's AVX2 kernels use): weights of at most 64 keep
every sum, 2 x 255 x 64, within 32,767, so a file computes the same on any processor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from rucap.engines.protocol import Floats
from rucap.export.graph import Graph

if TYPE_CHECKING:
    from torch import Tensor

SAFE_WEIGHT = 64
_LEVELS = 127
_MIDDLE = 128
_TINY = float(np.finfo(np.float32).tiny)


class Weights(Protocol):
    """A way to store matrices. A table [rows, width] that is both looked up and compared with is stored once."""

    def linear(self, graph: Graph, inputs: str, weight: Floats, bias: Floats | None, name: str) -> str:
        """Maps [..., in] to [..., out] by `weight` [in, out] and `bias` [out]."""
        ...

    def look_up(self, graph: Graph, table: Floats, rows: str, name: str) -> str:
        """Rows of the table: [batch, length] int64 to [batch, length, width]."""
        ...

    def compare(self, graph: Graph, table: Floats, inputs: str, name: str) -> str:
        """Products with all rows of the table: [batch, length, width] to [batch, length, rows]."""
        ...


class Float32:
    """Matrices as they are."""

    def linear(self, graph: Graph, inputs: str, weight: Floats, bias: Floats | None, name: str) -> str:
        """See `Weights.linear`."""
        product = graph.add("MatMul", inputs, graph.constant(weight, name))
        return product if bias is None else graph.add("Add", product, graph.constant(bias, f"{name}.bias"))

    def look_up(self, graph: Graph, table: Floats, rows: str, name: str) -> str:
        """See `Weights.look_up`."""
        return graph.add("Gather", graph.constant(table, name), rows)

    def compare(self, graph: Graph, table: Floats, inputs: str, name: str) -> str:
        """See `Weights.compare`."""
        rows, width = table.shape
        # Gemm, unlike MatMul, reads the table as it lies for the look-up.
        flat = graph.add("Reshape", inputs, graph.integers(-1, width))
        products = graph.add("Gemm", flat, graph.constant(table, name), transB=1)
        shape = graph.add("Concat", graph.add("Shape", inputs, end=2), graph.integers(rows), axis=0)
        return graph.add("Reshape", products, shape)


@dataclass(frozen=True)
class Int8:
    """Weights in int8 with a scale for each output; activations in uint8 with a scale for each row, as they come.

    With scales of rows, what is computed for one photo does not depend on the others of its batch.
    """

    largest: int = SAFE_WEIGHT

    def linear(self, graph: Graph, inputs: str, weight: Floats, bias: Floats | None, name: str) -> str:
        """See `Weights.linear`."""
        product = self._product(graph, inputs, *quantised(weight, 0, self.largest), name)
        return product if bias is None else graph.add("Add", product, graph.constant(bias, f"{name}.bias"))

    def look_up(self, graph: Graph, table: Floats, rows: str, name: str) -> str:
        """See `Weights.look_up`."""
        values, scales = quantised(table.T, 0, self.largest)
        columns = graph.add("Gather", graph.constant(values, name), rows, axis=1)
        found = graph.add("Transpose", graph.cast(columns, "float32"), perm=(1, 2, 0))
        scale = graph.add("Gather", graph.constant(scales, f"{name}.scales"), rows)
        return graph.add("Mul", found, graph.add("Unsqueeze", scale, graph.integers(-1)))

    def compare(self, graph: Graph, table: Floats, inputs: str, name: str) -> str:
        """See `Weights.compare`."""
        return self._product(graph, inputs, *quantised(table.T, 0, self.largest), name)

    def _product(self, graph: Graph, inputs: str, values: npt.NDArray[np.int8], scales: Floats, name: str) -> str:
        largest = graph.add("ReduceMax", graph.add("Abs", inputs), graph.integers(-1), keepdims=1)
        largest = graph.add("Max", largest, graph.number(_TINY))
        step, zero = graph.number(1 / _LEVELS), graph.constant(np.array(_MIDDLE, np.uint8))
        levels = graph.add("QuantizeLinear", graph.add("Div", inputs, largest), step, zero)
        rows = graph.add("DequantizeLinear", levels, step, zero)
        # onnxruntime joins the three to one product of integers.
        product = graph.add("MatMul", rows, dequantised(graph, values, scales, name, axis=1))
        return graph.add("Mul", product, largest)


def dequantised(graph: Graph, values: npt.NDArray[Any], scales: Floats, name: str, axis: int) -> str:
    """Appends an integer constant and its conversion to float32, with a scale for each index along `axis`."""
    zeros = graph.constant(np.zeros(len(scales), values.dtype), f"zeros.{values.dtype}.{len(scales)}")
    stored, scale = graph.constant(values, name), graph.constant(scales, f"{name}.scales")
    return graph.add("DequantizeLinear", stored, scale, zeros, axis=axis, name=f"{name}.read")


def quantised(weights: Floats, axis: int | tuple[int, ...], largest: int) -> tuple[npt.NDArray[np.int8], Floats]:
    """Integers of at most `largest`, and the scales, one for all along `axis`: symmetric, rounded to the nearest."""
    scales = np.maximum(np.abs(weights).max(axis=axis, keepdims=True) / largest, _TINY).astype(np.float32)
    return np.rint(weights / scales).astype(np.int8), scales.ravel()


def array(tensor: Tensor) -> Floats:
    """A network's parameter as float32."""
    values: Floats = tensor.detach().float().cpu().numpy()
    return values
