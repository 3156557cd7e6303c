"""Hints: Russian names of the encoder's likeliest classes, as text that stands between the prefix and the caption."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rucap.errors import ModelError
from rucap.model.config import HintsConfig

MAX_FILE_BYTES = 16 * 2**20
"""The largest file of labels that is read: room for the 21,000 classes of the whole ImageNet ten times over."""

_EDGES = " ,;:-–—"
"""Separators of a template that are dropped at its ends where a field is empty."""


class Hints:
    """Label logits to hint text."""

    def __init__(self, labels: Sequence[tuple[str, str]], config: HintsConfig) -> None:
        """`labels` holds (name, general word or "") of each class, in the order of the logits."""
        self.labels = tuple(labels)
        self.config = config

    @classmethod
    def from_file(cls, path: Path, config: HintsConfig) -> Hints:
        """Reads one label a line: name, tab, general word. Raises ModelError naming the file and the line."""
        try:
            size = path.stat().st_size
            if size > MAX_FILE_BYTES:
                raise ModelError(f"{path}: {size} bytes are too many for labels (at most {MAX_FILE_BYTES})")
            lines = path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            raise ModelError(f"{path}: no such file; config.json names it in hints.file") from None
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"{path}: cannot be read: {error}") from None
        labels = []
        for number, line in enumerate(lines, start=1):
            name, tab, general = line.partition("\t")
            if not name.strip() or not tab or "\t" in general:
                raise ModelError(f"{path}:{number}: a line is a name, a tab and a general word (may be empty)")
            labels.append((name.strip(), general.strip()))
        return cls(labels, config)

    def texts(self, logits: npt.NDArray[np.float32]) -> list[str]:
        """The hint of each photo, for label logits [batch, labels]. Raises ModelError when the widths differ."""
        if logits.ndim != 2 or logits.shape[1] != len(self.labels):
            raise ModelError(f"{len(self.labels)} labels do not fit label logits of shape {list(logits.shape)}")
        exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
        return [self._text(of_photo) for of_photo in exponents / exponents.sum(axis=1, keepdims=True)]

    def _text(self, probabilities: npt.NDArray[np.float32]) -> str:
        ranked = np.argsort(-probabilities, kind="stable")
        names: dict[str, str] = {}  # several classes may share a Russian name
        for index in ranked:
            probability = probabilities[index]
            if len(names) == self.config.count or (names and probability < self.config.least):
                break
            name = self.labels[index][0]
            names.setdefault(name, name + self.config.mark if probability > self.config.sure else name)
        general = self.labels[ranked[0]][1]
        if general in names:
            general = ""
        joined = self.config.separator.join(names.values())
        text = self.config.template.replace("{names}", joined).replace("{general}", general)
        return text.strip(_EDGES)
