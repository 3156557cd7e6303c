"""A vision encoder's folder, as transformers writes it, to the encoder's configuration and tensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from rucap.errors import ModelError
from rucap.importing.checkpoint import read_tensors
from rucap.importing.folders import lasting, read_json
from rucap.model.config import EncoderConfig, Preprocessing
from rucap.network.clip import build_tower
from rucap.network.clip_resnet import from_openai
from rucap.network.pretrained import pretrained_tower

INTERPOLATIONS: dict[int, Literal["bilinear", "bicubic", "lanczos"]] = {1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""PIL's numbers, which preprocessor_config.json is written in."""
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
"""Of the colours of CLIP's training photos (`clip/clip.py`)."""


@dataclass(frozen=True)
class Vision:
    """A vision encoder, read."""

    config: EncoderConfig
    tensors: dict[str, Tensor]


def read_vision(source: Path) -> Vision:
    """Reads an encoder: a folder, or a file of OpenAI's tensors (`visual.*`) for the ResNets that transformers lacks.

    Raises ModelError naming the file or tensor at fault.
    """
    return _openai_resnet(source) if source.is_file() else _tower_of_folder(source)


def _openai_resnet(path: Path) -> Vision:
    tensors = {n.removeprefix("visual."): t for n, t in read_tensors(path).items() if n.startswith("visual.")}
    try:
        settings, folded = from_openai(tensors)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    tower, width = build_tower(settings)
    try:
        tower.load_state_dict(folded)
    except RuntimeError as error:
        raise ModelError(f"{path}: not whole: {str(error).splitlines()[-1].strip()}") from None
    preprocessing = Preprocessing(settings["image_size"], "crop", "bicubic", OPENAI_MEAN, OPENAI_STD)
    return Vision(EncoderConfig("clip", 1, width, preprocessing, settings), folded)


def _tower_of_folder(folder: Path) -> Vision:
    tower = pretrained_tower(folder)
    settings = lasting(tower.config.to_diff_dict())  # type: ignore[union-attr, operator]
    _, width = build_tower(settings)
    preprocessing = read_preprocessing(folder)
    if preprocessing.size != settings["image_size"]:
        raise ModelError(
            f"{folder}: photos are prepared {preprocessing.size} pixels wide and the encoder takes"
            f" {settings['image_size']}: its files do not belong together"
        )
    return Vision(EncoderConfig("clip", 1, width, preprocessing, settings), dict(tower.state_dict()))


def read_preprocessing(folder: Path) -> Preprocessing:
    """Reads preprocessor_config.json. Raises ModelError for a way of preparing photos that is not supported."""
    path = folder / "preprocessor_config.json"
    if not path.is_file() and (folder / "processor_config.json").is_file():
        path = folder / "processor_config.json"
    values = read_json(path)
    values = values.get("image_processor", values)
    try:
        size = values["size"]
        crops = bool(values.get("do_center_crop"))
        side = _side(values["crop_size"] if crops else size)
        shortest = size["shortest_edge"] if isinstance(size, dict) and "shortest_edge" in size else _side(size)
        if crops and shortest != side:
            raise ModelError(f"{path}: a crop of {side} from a photo resized to {shortest} is not supported")
        if not crops and isinstance(size, dict) and "shortest_edge" in size:
            raise ModelError(f"{path}: photos that are resized but not cut to a square are not supported")
        red, green, blue = (float(mean) for mean in values["image_mean"])
        return Preprocessing(
            size=side,
            resize="crop" if crops else "squash",
            interpolation=INTERPOLATIONS[int(values.get("resample", 3))],
            mean=(red, green, blue),
            std=tuple(float(deviation) for deviation in values["image_std"]),  # type: ignore[arg-type]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: not the configuration of an image processor: {error!r}") from None


def _side(size: object) -> int:
    """The side of a square, written as a number or as height and width."""
    if isinstance(size, dict):
        height, width = int(size["height"]), int(size["width"])
        if height != width:
            raise ValueError(f"{height} by {width} is no square")
        return height
    return int(size)  # type: ignore[call-overload, no-any-return]
