"""`rucap export`: the graphs of a trained model folder, checked against its network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from rucap.data.records import Record, read_records
from rucap.engines.onnx import OnnxEngine
from rucap.engines.torch import TorchEngine
from rucap.errors import ModelError
from rucap.export.decoder import decoder_graph
from rucap.export.efficientnet_lite import SENSITIVE
from rucap.export.encoder import encoder_graph
from rucap.export.files import write_graph
from rucap.export.parity import Int8Cost, Parity, compare_engines, int8_cost
from rucap.export.quantise import calibrate, quantise_convolutions
from rucap.export.weights import Float32, Int8
from rucap.images import load_pixels
from rucap.model.folder import SUFFIXES, ModelFolder, Precision
from rucap.network.efficientnet_lite import EfficientNetLite
from rucap.network.prefix_captioner import PrefixCaptioner, load_network

CALIBRATION_PHOTOS = 64
PARITY_PHOTOS = 200
TOLERANCE = 1e-4
"""How far float32 logits may be from torch's."""


@dataclass(frozen=True)
class ExportReport:
    """What was written and how it compares."""

    files: tuple[tuple[Path, int], ...]
    """Graphs and their sizes in bytes."""
    parity: Parity | None
    """Float32 graphs and torch; None without photos."""
    costs: tuple[Int8Cost, ...]
    """int8 and float32 on each data set's dev photos."""

    def __str__(self) -> str:
        lines = [f"{path}: {size / 1e6:.1f} MB" for path, size in self.files]
        if self.parity is None:
            lines.append("no photos given: nothing compared, convolutions left in float32 in encoder.int8.onnx")
        else:
            found = self.parity
            lines.append(
                f"float32 and torch on {found.photos} photos: {found.same_tokens} captions the same; at most, prefixes"
                f" differ by {found.prefix:.1e}, label logits by {found.label_logits:.1e}, logits by {found.logits:.1e}"
            )
        for cost in self.costs:
            lines.append(
                f"int8 on {cost.name}, {cost.photos} dev photos: CIDEr {cost.int8_cider:.2f}, float32"
                f" {cost.float32_cider:.2f} (loss {cost.loss:.1%}); {cost.same_captions} captions the same"
            )
        return "\n".join(lines)


def export_model(path: Path, data: Sequence[Path] = (), dev_photos: int | None = None) -> ExportReport:
    """Writes the four graphs of a model folder from its weights, each under a temporary name first.

    `data`: jsonl files whose train photos say how values spread, and whose dev photos (`dev_photos` of each; None for
    all) say how graphs compare. Without it EfficientNet's convolutions stay in float32, as others' always do. Raises
    NoExportError before anything is written, ModelError when the folder is incomplete or the float32 graphs are not as
    the network; DataError, ImageError.
    """
    folder = ModelFolder.open(path)
    network = load_network(folder.config, folder.weights_file)
    sets = {each.stem: read_records(each) for each in data}
    language_model = network.language_model
    exact = _written((encoder_graph(network, Float32()), decoder_graph(language_model, Float32())), path, "float32")
    dev = {name: [r for r in records if r.split == "dev"][:dev_photos] for name, records in sets.items()}
    parity = _checked_parity(folder, network, [r for records in dev.values() for r in records])
    train = [record for records in sets.values() for record in records if record.split == "train"]
    rounded = _written((_int8_encoder(folder, network, train), decoder_graph(language_model, Int8())), path, "int8")
    costs = tuple(int8_cost(folder, name, records) for name, records in dev.items() if records)
    return ExportReport((*exact, *rounded), parity, costs)


def _written(
    graphs: tuple[onnx.ModelProto, onnx.ModelProto], path: Path, precision: Precision
) -> list[tuple[Path, int]]:
    """Writes an encoder and a decoder; returns their files and sizes."""
    (path / "onnx").mkdir(exist_ok=True)
    files = [path / "onnx" / f"{part}{SUFFIXES[precision]}" for part in ("encoder", "decoder")]
    return [(file, write_graph(graph, file)) for file, graph in zip(files, graphs, strict=True)]


def _checked_parity(folder: ModelFolder, network: PrefixCaptioner, records: Sequence[Record]) -> Parity | None:
    if not records:
        return None
    photos = [record.image for record in spread(records, PARITY_PHOTOS)]
    exported = OnnxEngine(folder.onnx_file("encoder", "float32"), folder.onnx_file("decoder", "float32"))
    parity = compare_engines(folder, TorchEngine(network), exported, photos)
    if parity.logits > TOLERANCE:
        raise ModelError(f"{folder.path}/onnx: the graphs' logits differ from the network's by {parity.logits:.1e}")
    return parity


def _int8_encoder(folder: ModelFolder, network: PrefixCaptioner, train: Sequence[Record]) -> onnx.ModelProto:
    model = encoder_graph(network, Int8())
    if not train or not isinstance(network.encoder, EfficientNetLite):
        return model
    preprocessing = folder.config.encoder.preprocessing
    photos = [record.image for record in spread(train, CALIBRATION_PHOTOS)]
    return quantise_convolutions(
        model, calibrate(model, (load_pixels(p, preprocessing)[None] for p in photos)), SENSITIVE
    )


def spread(records: Sequence[Record], count: int) -> list[Record]:
    """`count` of the records, from all over the list."""
    places = np.linspace(0, len(records) - 1, min(count, len(records))).round().astype(int)
    return [records[place] for place in places]
