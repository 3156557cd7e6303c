"""Convolutions in int8: photos say how wide values spread, and the graph is rewritten in the QDQ form of ONNX.

Weights have a scale for each output channel, values one for each tensor (Jacob et al., arXiv:1712.05877). What rounded
weights add to a channel's mean is taken off its bias (Nagel et al., arXiv:1906.04721, section 4.2). Which weights are
safe on which processors: see `weights`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference

from rucap.engines.protocol import Floats
from rucap.export.graph import Graph
from rucap.export.weights import SAFE_WEIGHT, dequantised, quantised

LARGEST_WEIGHT = 127
LEVELS = 255
_LEAST_WIDTH = 1e-6
_IMAGE_NODES = ("Conv", "Clip", "Add")
_BIAS_ROOM = 2.0**30
"""An int32 bias stays below, so that the sum it is added to has room."""


@dataclass
class Spread:
    """What photos show of a tensor."""

    low: float = 0.0
    high: float = 0.0
    means: list[Floats] = field(default_factory=list)
    """Of each batch, [channels]."""

    @property
    def scale(self) -> np.float32:
        """What one of 255 levels stands for."""
        return np.float32(max(self.high - self.low, _LEAST_WIDTH) / LEVELS)

    def see(self, values: Floats) -> None:
        """Widens it by a batch of images, [batch, channels, height, width]."""
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        self.means.append(values.mean(axis=(0, 2, 3)))


def calibrate(model: onnx.ModelProto, batches: Iterable[Floats]) -> dict[str, Spread]:
    """The spread of each image tensor of a float32 graph over batches of pixels, [batch, 3, side, side]."""
    import onnxruntime

    made = {node.output[0] for node in model.graph.node if node.op_type in _IMAGE_NODES}
    inferred = shape_inference.infer_shapes(model).graph.value_info
    images = [each for each in inferred if each.name in made and len(each.type.tensor_type.shape.dim) == 4]
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.ClearField("output")
    shown.graph.output.extend(images)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
    pixels = model.graph.input[0].name
    spreads = {name: Spread() for name in (pixels, *(value.name for value in images))}
    for batch in batches:
        spreads[pixels].see(batch)
        for value, found in zip(images, session.run(None, {pixels: batch}), strict=True):
            spreads[value.name].see(found)
    return spreads


def quantise_convolutions(
    model: onnx.ModelProto, spreads: Mapping[str, Spread], kept: Sequence[str] = (), largest: int = SAFE_WEIGHT
) -> onnx.ModelProto:
    """The graph with its convolutions in int8, but for those whose names begin with one of `kept`.

    `largest`: of the weights where products may saturate.
    """
    rewriting = _Rewriting(model, spreads, largest)
    for node in model.graph.node:
        rewriting.node(node, is_kept=node.op_type == "Clip" or node.name.startswith(tuple(kept)))
    return rewriting.graph.model(model.graph.input, model.graph.output)


class _Rewriting:
    """A graph on its way to int8: image tensors are read as levels of 0 to 255 where a node may take them so."""

    def __init__(self, model: onnx.ModelProto, spreads: Mapping[str, Spread], largest: int) -> None:
        self.graph = Graph()
        self._spreads, self._largest = spreads, largest
        self._constants = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
        for name, values in self._constants.items():
            self.graph.constant(values, name)
        self._read: dict[str, str] = {}

    def node(self, node: onnx.NodeProto, is_kept: bool) -> None:
        """Appends a node, in int8 unless it is kept as it is."""
        if is_kept:
            self.graph.copy(node, node.input)
        elif node.op_type == "Conv":
            image, weight, bias = node.input
            self.graph.copy(node, [self._levels(image), *self._parameters(node, image, weight, bias)])
        else:
            self.graph.copy(node, [self._levels(name) if name in self._spreads else name for name in node.input])

    def _levels(self, name: str) -> str:
        if name not in self._read:
            spread = self._spreads[name]
            scale = self.graph.constant(np.array(spread.scale), f"{name}.scale")
            zero = self.graph.constant(np.array(np.rint(-spread.low / spread.scale), np.uint8), f"{name}.zero")
            levels = self.graph.add("QuantizeLinear", name, scale, zero, name=f"{name}.levels")
            self._read[name] = self.graph.add("DequantizeLinear", levels, scale, zero, name=f"{name}.read")
        return self._read[name]

    def _parameters(self, node: onnx.NodeProto, image: str, weight: str, bias: str) -> tuple[str, str]:
        weights, biases = self._constants[weight], self._constants[bias]
        spread, is_depthwise = self._spreads[image], weights.shape[1] == 1
        # Depthwise kernels widen to 16 bits before they multiply: nothing saturates there.
        values, scales = quantised(weights, (1, 2, 3), LARGEST_WEIGHT if is_depthwise else self._largest)
        scales = np.maximum(scales, np.abs(biases) / (spread.scale * _BIAS_ROOM)).astype(np.float32)
        values = np.rint(weights / scales[:, None, None, None]).astype(np.int8)
        added = (weights - values * scales[:, None, None, None]).sum(axis=(2, 3))
        mean = np.mean(spread.means, axis=0)
        biases = biases + (added[:, 0] * mean if is_depthwise else added @ mean)
        bias_scales = scales * spread.scale
        biases = np.rint(biases / bias_scales).astype(np.int32)
        return (
            dequantised(self.graph, values, scales, f"{node.name}.weight.int8", axis=0),
            dequantised(self.graph, biases, bias_scales, f"{node.name}.bias.int32", axis=0),
        )
