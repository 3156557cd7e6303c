"""A graph's file, its weights within it or in a second one beside it."""

import numpy as np
import onnx
import pytest

import rucap.export.files
from rucap.export.files import write_graph
from rucap.export.graph import LARGE, Graph, value
from rucap.export.weights import Float32

WIDTH = 200  # 160 kB a matrix


def product(*shapes, seed=0):
    """Inputs by matrices one after another."""
    graph, hidden = Graph(), "inputs"
    random = np.random.default_rng(seed)
    for number, shape in enumerate(shapes):
        weight = random.normal(size=shape).astype(np.float32)
        hidden = Float32().linear(graph, hidden, weight, weight[0], f"matrix.{number}")
    graph.add("Identity", hidden, output="outputs")
    return graph.model(
        [value("inputs", "float32", "batch", shapes[0][0])], [value("outputs", "float32", "batch", shapes[-1][1])]
    )


def run(path):
    import onnxruntime

    inputs = np.random.default_rng(1).normal(size=(3, WIDTH)).astype(np.float32)
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"inputs": inputs})[0]


def test_few_weights_stay_in_one_file(tmp_path):
    size = write_graph(product((WIDTH, WIDTH)), tmp_path / "graph.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["graph.onnx"]
    assert size == (tmp_path / "graph.onnx").stat().st_size > 4 * WIDTH**2


def test_many_weights_lie_beside_it_where_they_can_be_mapped(tmp_path, monkeypatch):
    shapes = (WIDTH, WIDTH), (WIDTH, WIDTH)
    write_graph(product(*shapes), tmp_path / "graph.onnx")
    expected = run(tmp_path / "graph.onnx")
    monkeypatch.setattr(rucap.export.files, "APART", 4 * WIDTH**2)
    size = write_graph(product(*shapes), tmp_path / "graph.onnx")
    files = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(files) == {"graph.onnx", "graph.onnx.data"} and size == sum(files.values())
    assert files["graph.onnx"] < LARGE
    np.testing.assert_array_equal(run(tmp_path / "graph.onnx"), expected)
    stored = onnx.load(tmp_path / "graph.onnx", load_external_data=False).graph.initializer
    offsets = [int(entry.value) for tensor in stored for entry in tensor.external_data if entry.key == "offset"]
    assert len(offsets) == 2 and all(offset % 2**16 == 0 for offset in offsets)
    monkeypatch.undo()
    write_graph(product(*shapes), tmp_path / "graph.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["graph.onnx"], "old weights are removed"
    np.testing.assert_array_equal(run(tmp_path / "graph.onnx"), expected)


def test_the_check_reads_no_large_constants_and_sees_their_shapes(monkeypatch):
    checked = []
    check = onnx.checker.check_model
    monkeypatch.setattr(
        onnx.checker,
        "check_model",
        lambda model, **options: checked.append(model.ByteSize()) or check(model, **options),
    )
    product((WIDTH, WIDTH))
    assert checked and max(checked) < LARGE, "protobuf and the checker take 2 GB at most"
    with pytest.raises(onnx.shape_inference.InferenceError):
        product((WIDTH, WIDTH), (WIDTH + 1, WIDTH))
