"""How near two runs of one model are: its graphs to its torch network, and int8 to float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rucap.captioner import Captioner
from rucap.data.records import Record
from rucap.encoding import encode_photos
from rucap.engines.protocol import Encoded, Engine
from rucap.evaluation.cider import cider_d
from rucap.images import Limits, Source
from rucap.model import prompts
from rucap.model.folder import ModelFolder
from rucap.options import CaptionOptions, generation_settings
from rucap.writing import Writer


@dataclass(frozen=True)
class Parity:
    """How two engines differ on photos: the largest absolute differences, and captions written greedily."""

    photos: int
    prefix: float
    label_logits: float
    logits: float
    same_tokens: int
    """Photos whose captions are the same, token for token."""


def compare_engines(folder: ModelFolder, one: Engine, other: Engine, photos: Sequence[Source]) -> Parity:
    """Encodes and captions photos with both engines; logits are compared along what `one` writes.

    Raises ImageError for a photo that cannot be opened.
    """
    settings = generation_settings(folder, {"beams": 1}, CaptionOptions)
    prompt = prompts.caption_tokens(folder.tokenizer, folder.config.prompts)
    differences = np.zeros(3)
    same = 0
    of_other = encode_photos(photos, other, folder.config.encoder.preprocessing, Limits())
    for batch in encode_photos(photos, one, folder.config.encoder.preprocessing, Limits()):
        theirs = next(of_other)
        for error in batch.failed.values():
            raise error
        asked = [prompt] * len(batch.indices)
        written, copied = (
            [
                hypotheses[0].tokens
                for hypotheses in Writer(folder, engine).write(encoded, asked, settings, batch.indices)
            ]
            for engine, encoded in ((one, batch.encoded), (other, theirs.encoded))
        )
        same += sum(a == b for a, b in zip(written, copied, strict=True))
        differences = np.maximum(
            differences, _differences(folder, (one, other), (batch.encoded, theirs.encoded), written)
        )
    prefix, label_logits, logits = map(float, differences)
    return Parity(len(photos), prefix, label_logits, logits, same)


def _differences(
    folder: ModelFolder,
    engines: tuple[Engine, Engine],
    encoded: tuple[Encoded, Encoded],
    written: Sequence[tuple[int, ...]],
) -> list[float]:
    one, other = encoded
    tokens, mask = prompts.pad_left(written, folder.tokenizer.pad_id)
    labels, copied_labels = one.label_logits, other.label_logits
    logits, copied = (engine.score(one.prefix, tokens, mask)[mask] for engine in engines)
    return [
        np.abs(one.prefix - other.prefix).max(),
        0.0 if labels is None or copied_labels is None else np.abs(labels - copied_labels).max(),
        np.abs(logits - copied).max(initial=0.0),
    ]


@dataclass(frozen=True)
class Int8Cost:
    """What int8 changes in a data set's captions."""

    name: str
    photos: int
    same_captions: int
    float32_cider: float
    int8_cider: float

    @property
    def loss(self) -> float:
        """The share of CIDEr-D that int8 loses; below 0 where it gains."""
        return 1 - self.int8_cider / self.float32_cider if self.float32_cider else 0.0


def int8_cost(folder: ModelFolder, name: str, records: Sequence[Record]) -> Int8Cost:
    """Captions photos by both precisions of a folder's graphs, as the model does by default, and scores them."""
    photos = [record.image for record in records]
    exact, rounded = (
        [caption.text for caption in Captioner(folder.path, precision=precision).caption(photos)]
        for precision in ("float32", "int8")
    )
    same = sum(a == b for a, b in zip(exact, rounded, strict=True))
    references = [record.captions for record in records]
    return Int8Cost(name, len(photos), same, cider_d(exact, references)[0], cider_d(rounded, references)[0])
