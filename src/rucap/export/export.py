"""`rucap export`: the graphs of a trained model folder, checked against its network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn
from torch.nn import functional

from rucap.data.records import Record, read_records
from rucap.engines.load import load_engine
from rucap.engines.torch import TorchEngine
from rucap.errors import ModelError
from rucap.export.decoder import decoder_graph
from rucap.export.efficientnet_lite import SENSITIVE
from rucap.export.encoder import encoder_graph
from rucap.export.files import write_graph
from rucap.export.parity import Int8Cost, Parity, compare_engines, int8_cost
from rucap.export.quantise import calibrate, quantise_convolutions
from rucap.export.text_tower import text_tower_graph
from rucap.export.weights import Float32, Int8, Weights
from rucap.images import load_pixels
from rucap.model.folder import SUFFIXES, ModelFolder, Part, Precision
from rucap.network.efficientnet_lite import EfficientNetLite
from rucap.network.prefix_captioner import PrefixCaptioner, load_network
from rucap.network.text_tower import load_text_tower, text_embeddings

CALIBRATION_PHOTOS = 64
PARITY_PHOTOS = 200
TOLERANCE = 1e-4
"""How far float32 logits, and embeddings of length one, may be from torch's."""
PARITY_TEXTS = ("a red cat on a sofa", "рыжая кошка на диване", "2", "two dogs in the snow, a man and a ball")
"""Of several lengths, to compare text towers on."""


@dataclass(frozen=True)
class ExportReport:
    """What was written and how it compares."""

    files: tuple[tuple[Path, int], ...]
    """Graphs and their sizes in bytes."""
    parity: Parity | None
    """Float32 graphs and torch; None without photos."""
    text_tower: float | None
    """How far embeddings of texts, of length one, are from torch's at most; None without a text tower."""
    costs: tuple[Int8Cost, ...]
    """int8 and float32 on each data set's dev photos."""

    def __str__(self) -> str:
        lines = [f"{path}: {size / 1e6:.1f} MB" for path, size in self.files]
        if self.parity is None:
            lines.append("no photos given: captions not compared, convolutions left in float32 in encoder.int8.onnx")
        else:
            found = self.parity
            lines.append(
                f"float32 and torch on {found.photos} photos: {found.same_tokens} captions the same; at most, prefixes"
                f" differ by {found.prefix:.1e}, label logits by {found.label_logits:.1e}, logits by {found.logits:.1e}"
            )
        if self.text_tower is not None:
            texts = len(PARITY_TEXTS)
            lines.append(f"float32 and torch on {texts} texts: embeddings differ by {self.text_tower:.1e} at most")
        for cost in self.costs:
            lines.append(
                f"int8 on {cost.name}, {cost.photos} dev photos: CIDEr {cost.int8_cider:.2f}, float32"
                f" {cost.float32_cider:.2f} (loss {cost.loss:.1%}); {cost.same_captions} captions the same"
            )
        return "\n".join(lines)


def export_model(path: Path, data: Sequence[Path] = (), dev_photos: int | None = None) -> ExportReport:
    """Writes the graphs of a model folder from its weights, two or three of each precision.

    `data`: jsonl files whose train photos say how values spread, and whose dev photos (`dev_photos` of each; None for
    all) say how graphs compare. Without it EfficientNet's convolutions stay in float32, as others' always do. Raises
    NoExportError before anything is written, ModelError when the folder is incomplete or the float32 graphs are not as
    the network; DataError, ImageError.
    """
    folder = ModelFolder.open(path)
    network = load_network(folder.config, folder.weights_file)
    sets = {each.stem: read_records(each) for each in data}
    language_model = network.language_model
    tower = None
    if folder.config.text_tower is not None and folder.text_tower_file is not None:
        tower = load_text_tower(folder.config.text_tower, folder.text_tower_file)

    def with_encoder(encoder: onnx.ModelProto, weights: Weights) -> dict[Part, onnx.ModelProto]:
        graphs: dict[Part, onnx.ModelProto] = {"encoder": encoder, "decoder": decoder_graph(language_model, weights)}
        return graphs if tower is None else {**graphs, "text_tower": text_tower_graph(tower, weights)}

    exact = _written(with_encoder(encoder_graph(network, Float32()), Float32()), path, "float32")
    dev = {name: [r for r in records if r.split == "dev"][:dev_photos] for name, records in sets.items()}
    parity = _checked_parity(folder, network, [r for records in dev.values() for r in records])
    texts = None if tower is None else _checked_text_tower(folder, tower)
    train = [record for records in sets.values() for record in records if record.split == "train"]
    rounded = _written(with_encoder(_int8_encoder(folder, network, train), Int8()), path, "int8")
    costs = tuple(int8_cost(folder, name, records) for name, records in dev.items() if records)
    return ExportReport((*exact, *rounded), parity, texts, costs)


def _written(graphs: Mapping[Part, onnx.ModelProto], path: Path, precision: Precision) -> list[tuple[Path, int]]:
    """Writes graphs, each under a temporary name first; returns their files and sizes."""
    (path / "onnx").mkdir(exist_ok=True)
    files = {path / "onnx" / f"{part}{SUFFIXES[precision]}": graph for part, graph in graphs.items()}
    return [(file, write_graph(graph, file)) for file, graph in files.items()]


def _checked_parity(folder: ModelFolder, network: PrefixCaptioner, records: Sequence[Record]) -> Parity | None:
    if not records:
        return None
    photos = [record.image for record in spread(records, PARITY_PHOTOS)]
    parity = compare_engines(folder, TorchEngine(network), load_engine(folder, precision="float32"), photos)
    if parity.logits > TOLERANCE:
        raise ModelError(f"{folder.path}/onnx: the graphs' logits differ from the network's by {parity.logits:.1e}")
    return parity


def _checked_text_tower(folder: ModelFolder, tower: nn.Module) -> float:
    tokens = folder.text_tokens(PARITY_TEXTS)
    exported = load_engine(folder, precision="float32").embed_texts(tokens)
    with torch.inference_mode():
        expected = text_embeddings(tower, torch.from_numpy(tokens))
    one, other = (functional.normalize(each) for each in (expected, torch.tensor(exported)))
    difference = float((one - other).abs().max())
    if difference > TOLERANCE:
        raise ModelError(f"{folder.path}/onnx: the graph's embeddings differ from the tower's by {difference:.1e}")
    return difference


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
