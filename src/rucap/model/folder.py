"""A model as a folder of files, and where a model's name leads.

config.json, tokenizer.json       always
the file of config.hints          where the model takes hints
onnx/{encoder,decoder}.onnx       for running, float32
onnx/{encoder,decoder}.int8.onnx  for running, quantised
onnx/text_tower[.int8].onnx       where labels are compared by similarity
onnx/*.onnx.data                  the weights of a large graph
model.safetensors                 for training and the torch engine
text_tokenizer.json               where labels are compared by similarity
text_tower.safetensors            for that, for export and the torch engine
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from os import PathLike, fspath
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from rucap.errors import ModelError, OptionError
from rucap.model.config import ModelConfig, read_config
from rucap.model.hints import Hints
from rucap.model.names import named_models
from rucap.model.tokenizer import Tokenizer, read_tokenizer

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
Part = Literal["encoder", "decoder", "text_tower"]
Precision = Literal["int8", "float32"]
TEXT_TOWER = "text_tower.safetensors"
SUFFIXES: dict[str, str] = {"int8": ".int8.onnx", "float32": ".onnx"}


@dataclass(frozen=True)
class ModelFolder:
    """An opened model folder: its small files read, its large ones by path."""

    path: Path
    config: ModelConfig
    tokenizer: Tokenizer
    hints: Hints | None

    @classmethod
    def open(cls, path: Path) -> ModelFolder:
        """Reads a folder. Raises ModelError naming the file that is missing, broken or does not fit the others."""
        if not path.is_dir():
            raise ModelError(
                f"{path}: no such folder; a model is a folder with config.json, tokenizer.json and weights"
            )
        config = read_config(path / "config.json")
        tokenizer = Tokenizer.from_file(path / "tokenizer.json")
        if len(tokenizer) > config.language_model.vocabulary:
            raise ModelError(
                f"{path}: tokenizer.json has {len(tokenizer)} tokens, more than the {config.language_model.vocabulary}"
                " of config.json: they do not belong together"
            )
        for token in (*config.generation.end_tokens, *config.generation.suppressed_tokens):
            tokenizer.id_of(token)
        hints = Hints.from_file(_inside(path, config.hints.file), config.hints) if config.hints else None
        return cls(path, config, tokenizer, hints)

    def onnx_file(self, part: Part, precision: Precision | None = None) -> Path:
        """The graph of a part: int8 where there is one, unless `precision` says which.

        Raises ModelError when it is missing, OptionError when `precision` is not a known one.
        """
        files = self._graphs(part, precision)
        for file in files:
            if file.is_file():
                return file
        raise ModelError(f"{files[-1]}: no such file; `rucap export {self.path}` makes it from model.safetensors")

    def text_tower_graph(self, precision: Precision | None = None) -> Path | None:
        """The text tower's graph, chosen as by `onnx_file`, where there is one."""
        files = self._graphs("text_tower", precision) if self.config.text_tower else []
        return next(filter(Path.is_file, files), None)

    def _graphs(self, part: Part, precision: Precision | None) -> list[Path]:
        if precision is not None and precision not in SUFFIXES:
            raise OptionError(f"precision {precision!r}: it is one of {', '.join(SUFFIXES)}")
        return [self.path / "onnx" / (part + SUFFIXES[kind]) for kind in ([precision] if precision else SUFFIXES)]

    def text_tokens(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """Tokens [texts, length] as the text tower reads them: cut and padded. Raises ModelError as `Tokenizer`."""
        tokenizer = read_tokenizer(self.path / "text_tokenizer.json")
        tokenizer.encode_special_tokens = True  # their names in a text are plain characters
        return np.array([read.ids for read in tokenizer.encode_batch(list(texts))], dtype=np.int64)

    @property
    def text_tower_file(self) -> Path | None:
        """The text tower's torch weights, where there are some."""
        file = self.path / TEXT_TOWER
        return file if self.config.text_tower and file.is_file() else None

    @property
    def weights_file(self) -> Path:
        """The torch weights. Raises ModelError when they are missing."""
        file = self.path / "model.safetensors"
        if not file.is_file():
            raise ModelError(f"{file}: no such file; a model without it can be run from onnx/, not trained or exported")
        return file


def bundled(name: str) -> Path | None:
    """The folder of a model inside the package, or None when there is none of that name."""
    if not re.fullmatch(r"[\w-]+", name):  # never a path that leads out of the package
        return None
    folder = Path(str(resources.files("rucap"))) / "bundled" / name
    return folder if (folder / "config.json").is_file() else None


def find_model(model: str | PathLike[str]) -> Path:
    """The folder of a model by path, bundled name, table name or hub id, in this order.

    The last two are fetched the first time (see `hub.fetch`). Raises ModelError saying what to fetch and where to put
    it when the hub cannot be reached.
    """
    path = Path(model).expanduser()
    if (path / "config.json").is_file():
        return path
    name = fspath(model)
    if (inside := bundled(name)) is not None:
        return inside
    if not isinstance(model, str) or path.exists():
        raise ModelError(f"{path}: not a model folder: it holds no config.json")
    row = named_models().get(name)
    if row and not row.sources:
        raise ModelError(f"{name}: this installation lacks its files; reinstall rucap")
    if row or HUB_ID.fullmatch(name):
        from rucap.model.hub import fetch

        return fetch(name)
    known = ", ".join(named_models())
    raise ModelError(f"{name}: no such folder and no model of that name; names are: {known}")


def _inside(folder: Path, name: str) -> Path:
    """A file that config.json names, kept from pointing out of its folder."""
    if Path(name).name != name:
        raise ModelError(f"{folder / 'config.json'}: {name!r} must be the name of a file in the same folder")
    return folder / name
