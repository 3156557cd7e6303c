"""A graph's file: large weights lie in a second file beside it, which onnxruntime maps instead of reading."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx.external_data_helper import set_external_data

from rucap.export.graph import LARGE

APART = 2**26
"""Bytes of weights that go to a file of their own; protobuf's own limit is 2 GB."""
ALIGNMENT = 2**16
"""Where a mapping may begin, on every system (64 KiB on Windows, a page elsewhere)."""


def write_graph(model: onnx.ModelProto, path: Path) -> int:
    """Writes a graph, and `PATH.data` where its weights are many, both under temporary names first.

    Returns the bytes written. The model is used up: its weights go.
    """
    data = path.with_name(path.name + ".data")
    size = 0
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) > APART:
        size = _write_weights(model, data)
    else:
        data.unlink(missing_ok=True)
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(model.SerializeToString())
    partial.replace(path)
    return size + path.stat().st_size


def _write_weights(model: onnx.ModelProto, path: Path) -> int:
    partial = path.with_name(path.name + ".part")
    with partial.open("wb") as file:
        for tensor in model.graph.initializer:
            if len(tensor.raw_data) > LARGE:
                file.seek(-file.tell() % ALIGNMENT, 1)
                set_external_data(tensor, path.name, file.tell(), len(tensor.raw_data))
                file.write(tensor.raw_data)
                tensor.ClearField("raw_data")
    partial.replace(path)
    return path.stat().st_size
