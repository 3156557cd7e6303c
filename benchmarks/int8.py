"""What int8 costs, with weights of 8 bits and of the 7 that no processor saturates on.

    python benchmarks/int8.py MODEL DATA.jsonl [--limit PHOTOS]

MODEL is a folder with model.safetensors. DATA's train photos say how values spread; captions are of its dev photos.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from rucap import Captioner
from rucap.data.records import Record, read_records
from rucap.engines.onnx import OnnxEngine
from rucap.engines.protocol import Encoded, Floats
from rucap.evaluation.cider import cider_d
from rucap.export.decoder import decoder_graph
from rucap.export.efficientnet_lite import SENSITIVE
from rucap.export.encoder import encoder_graph
from rucap.export.export import CALIBRATION_PHOTOS, spread
from rucap.export.quantise import calibrate, quantise_convolutions
from rucap.export.weights import SAFE_WEIGHT, Float32, Int8
from rucap.images import load_pixels
from rucap.model.folder import ModelFolder
from rucap.network.prefix_captioner import load_network

BATCH = 16
SATURATED = 2
"""Photos whose sums are looked at one by one."""
WEIGHTS = {"8 bits": 127, "7 bits": SAFE_WEIGHT}


def main() -> None:
    options = _options()
    folder = ModelFolder.open(options.model)
    records = read_records(options.data)
    dev = [record for record in records if record.split == "dev"][: options.limit]
    train = spread([record for record in records if record.split == "train"], CALIBRATION_PHOTOS)
    network = load_network(folder.config, folder.weights_file)
    pixels = np.stack([load_pixels(record.image, folder.config.encoder.preprocessing) for record in dev])
    calibration = [load_pixels(record.image, folder.config.encoder.preprocessing)[None] for record in train]
    with tempfile.TemporaryDirectory() as made:
        exact = encoder_graph(network, Float32()), decoder_graph(network.language_model, Float32())
        spreads = calibrate(encoder_graph(network, Int8()), calibration)
        graphs = {"float32": exact}
        for name, largest in WEIGHTS.items():
            rounded = quantise_convolutions(encoder_graph(network, Int8(largest)), spreads, SENSITIVE, largest)
            graphs[f"int8, {name}"] = rounded, decoder_graph(network.language_model, Int8(largest))
        wanted: Run | None = None
        print("| | MB | encoder, ms of one core | same first class | least cosine | same captions | CIDEr | change |")
        print("|---|---:|---:|---:|---:|---:|---:|---:|")
        for name, (encoder, decoder) in graphs.items():
            run = captions(folder, encoder, decoder, pixels, Path(made))
            wanted = wanted or run
            print(
                f"| {name} | {run.megabytes:.1f} | {run.encoder_ms:.1f} | {comparison(run, wanted, dev)} |", flush=True
            )
    print(
        "\nSums of two products that saturate in 16 bits, as processors without VNNI add them, in 1x1 convolutions:\n"
    )
    print("| weights | in a million | worst relative error of a layer |\n|---|---:|---:|")
    for name in WEIGHTS:
        share, error = saturation(graphs[f"int8, {name}"][0], pixels[:SATURATED])
        print(f"| {name} | {1e6 * share:.1f} | {error:.4f} |", flush=True)


@dataclass(frozen=True)
class Run:
    """What a pair of graphs makes of the photos."""

    megabytes: float
    encoder_ms: float
    encoded: Encoded
    texts: list[str]


def captions(
    folder: ModelFolder, encoder: onnx.ModelProto, decoder: onnx.ModelProto, pixels: Floats, made: Path
) -> Run:
    """Encodes photos one by one and captions them as the model does by default, on one core."""
    files = made / "encoder.onnx", made / "decoder.onnx"
    for graph, file in zip((encoder, decoder), files, strict=True):
        file.write_bytes(graph.SerializeToString())
    engine = OnnxEngine(*files, threads=1)
    engine.encode(pixels[:1])
    start = time.process_time()
    parts = [engine.encode(photo[None]) for photo in pixels]
    milliseconds = 1000 * (time.process_time() - start) / len(pixels)
    labels = [part.label_logits for part in parts if part.label_logits is not None]
    encoded = Encoded(np.concatenate([p.prefix for p in parts]), np.concatenate(labels) if labels else None)
    captioner = Captioner(folder.path, engine=engine)
    batches = (np.arange(start, min(start + BATCH, len(pixels))) for start in range(0, len(pixels), BATCH))
    texts = [each.text for rows in batches for each in captioner.caption_encoded(encoded.take(rows))]
    return Run(sum(file.stat().st_size for file in files) / 1e6, milliseconds, encoded, texts)


def comparison(run: Run, wanted: Run, records: Sequence[Record]) -> str:
    """The cells of a table's row; the change of CIDEr with its standard error."""
    one, other = run.encoded, wanted.encoded
    products = (one.prefix * other.prefix).sum(axis=(1, 2))
    cosines = products / np.sqrt((one.prefix**2).sum(axis=(1, 2)) * (other.prefix**2).sum(axis=(1, 2)))
    classes = 1.0
    if one.label_logits is not None and other.label_logits is not None:
        classes = float((one.label_logits.argmax(axis=1) == other.label_logits.argmax(axis=1)).mean())
    same = np.mean([a == b for a, b in zip(run.texts, wanted.texts, strict=True)])
    references = [record.captions for record in records]
    (cider, each), (_, wanted_each) = cider_d(run.texts, references), cider_d(wanted.texts, references)
    changes = np.array(each) - wanted_each
    error = changes.std() / np.sqrt(len(changes))
    return f"{classes:.1%} | {cosines.min():.5f} | {same:.1%} | {cider:.2f} | {changes.mean():+.2f} ± {error:.2f}"


def saturation(model: onnx.ModelProto, pixels: Floats) -> tuple[float, float]:
    """The share of sums that saturate and the worst relative error of a layer that this makes."""
    constants = {constant.name: numpy_helper.to_array(constant) for constant in model.graph.initializer}
    by_output = {node.output[0]: node for node in model.graph.node}
    layers = {}
    for node in model.graph.node:
        if node.op_type == "Conv" and node.name + ".weight.int8" in constants:
            weights = constants[node.name + ".weight.int8"]
            if weights.shape[1] > 1:
                layers[by_output[node.input[0]].input[0]] = weights[:, :, 0, 0].astype(np.int32)
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None) for name in layers)
    session = onnxruntime.InferenceSession(shown.SerializeToString(), providers=["CPUExecutionProvider"])
    saturated, sums, worst = 0, 0, 0.0
    for photo in pixels:
        for (_, weights), levels in zip(
            layers.items(), session.run(list(layers), {"pixels": photo[None]}), strict=True
        ):
            values = levels[0].reshape(levels.shape[1], -1).astype(np.int32)
            exact, cut = np.zeros((2, len(weights), values.shape[1]), np.int64)
            for pair in range(0, len(values), 2):
                added = weights[:, pair : pair + 2] @ values[pair : pair + 2]
                kept = np.clip(added, -(2**15), 2**15 - 1)
                saturated, sums = saturated + int((kept != added).sum()), sums + added.size
                exact += added
                cut += kept
            worst = max(worst, float(np.linalg.norm(exact - cut) / np.linalg.norm(exact)))
    return saturated / sums, worst


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--limit", type=int, help="dev photos; all unless given")
    return parser.parse_args()


if __name__ == "__main__":
    main()
