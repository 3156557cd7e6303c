"""Builds an ONNX graph node by node.

It knows ONNX, and nothing of the networks that are written in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
"""The first with Gelu; onnxruntime 1.20, the oldest that rucap takes, runs up to 21."""
IR_VERSION = 10
"""The newest that onnxruntime 1.20 reads."""
LARGE = 2**16
"""Bytes of a constant that is weights, not a shape or a number."""

Array = npt.NDArray[Any]

_TYPES = {
    "bool": TensorProto.BOOL,
    "float32": TensorProto.FLOAT,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "int8": TensorProto.INT8,
    "uint8": TensorProto.UINT8,
}


class Graph:
    """A graph under construction. Values go by their names."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, Array] = {}

    def add(self, operation: str, *inputs: str, output: str = "", name: str = "", **attributes: Any) -> str:  # noqa: ANN401
        """Appends a node of one output, named `output` if given, and returns the output."""
        return self._append(operation, inputs, [output], name, attributes)[0]

    def split(self, inputs: str, parts: int, axis: int) -> list[str]:
        """Appends a node that cuts a value into equal parts."""
        return self._append("Split", (inputs,), [""] * parts, "", {"axis": axis, "num_outputs": parts})

    def cast(self, inputs: str, kind: str) -> str:
        """Appends a conversion to a type."""
        return self.add("Cast", inputs, to=_TYPES[kind])

    def constant(self, values: Array, name: str = "") -> str:
        """A tensor stored in the file, once however often it is asked for; small ones need no name."""
        name = name or f"{values.dtype}_{list(values.shape)}_{values.tobytes().hex()}"
        known = self._constants.setdefault(name, np.asarray(values, order="C"))
        if not np.array_equal(known, values):
            raise ValueError(f"two different constants are named {name}")
        return name

    def number(self, value: float) -> str:
        """A constant float32."""
        return self.constant(np.array(value, np.float32))

    def integers(self, *values: int) -> str:
        """A constant list of int64."""
        return self.constant(np.array(values, np.int64))

    def copy(self, node: onnx.NodeProto, inputs: Sequence[str]) -> None:
        """Appends a node of another graph, reading other values."""
        made = onnx.NodeProto()
        made.CopyFrom(node)
        made.ClearField("input")
        made.input.extend(inputs)
        self._nodes.append(made)

    def model(self, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]) -> onnx.ModelProto:
        """The finished model, checked."""
        read = {name for node in self._nodes for name in node.input}
        constants = {name: values for name, values in self._constants.items() if name in read}
        # Checked with its large constants declared as inputs: the checker takes no more than 2 GB.
        large = [value(name, v.dtype.name, *v.shape) for name, v in constants.items() if v.nbytes > LARGE]
        small = {name: values for name, values in constants.items() if values.nbytes <= LARGE}
        onnx.checker.check_model(self._model([*inputs, *large], outputs, small), full_check=True)
        return self._model(inputs, outputs, constants)

    def _model(
        self,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
        constants: Mapping[str, Array],
    ) -> onnx.ModelProto:
        model = helper.make_model(
            helper.make_graph(self._nodes, "rucap", inputs, outputs),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="rucap",
        )
        for name, values in constants.items():  # given to onnx's helpers, each would be copied twice more
            model.graph.initializer.append(numpy_helper.from_array(values, name))
        return model

    def _append(
        self, operation: str, inputs: Sequence[str], outputs: Sequence[str], name: str, attributes: dict[str, Any]
    ) -> list[str]:
        name = name or f"{operation.lower()}_{len(self._nodes)}"
        made = [output or f"{name}:{number}" for number, output in enumerate(outputs)]
        self._nodes.append(helper.make_node(operation, inputs, made, name, **attributes))
        return made


def value(name: str, kind: str, *shape: int | str) -> onnx.ValueInfoProto:
    """An input or output of a type, by numpy's name; a dimension by name may have any size."""
    return helper.make_tensor_value_info(name, _TYPES[kind], shape)
