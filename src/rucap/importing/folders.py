"""Where parts of a model come from: a hub id or a folder on this machine, through one door; and small files in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rucap.errors import ModelError
from rucap.model.hub import download

SMALL_FILES = ("*.json", "merges.txt", "vocab.txt", "*.model")
MAX_JSON_BYTES = 64 * 2**20
_PASSING = {"transformers_version", "dtype", "torch_dtype", "architectures", "_name_or_path"}


def part_folder(source: str | Path, weights: bool) -> Path:
    """The folder (or file) of a part, downloaded if `source` is a hub id; its weights too if they are wanted.

    Raises ModelError when it is neither there nor can be fetched.
    """
    folder = Path(source).expanduser()
    if folder.exists():
        return folder
    name = str(source)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(f"{name}: no such folder; give one, or a hub id like openai/clip-vit-base-patch32")
    folder = download(name, SMALL_FILES)
    if weights:
        _fetch_weights(name, folder)
    return folder


def _fetch_weights(name: str, folder: Path) -> None:
    """The weights in one of the forms that transformers reads: whole or in shards, safetensors before pickles."""
    for stem in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{stem}.index.json"
        if index.is_file():
            shards = sorted(set(read_json(index).get("weight_map", {}).values()))
            download(name, [str(shard) for shard in shards])
            return
        if (download(name, [stem]) / stem).is_file():
            return
    raise ModelError(f"{name}: has neither model.safetensors nor pytorch_model.bin, or they are not on this machine")


def read_json(path: Path) -> dict[str, Any]:
    """A small JSON file's object. Raises ModelError when it is missing, too large or no object."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ModelError(f"{path}: too large (at most {MAX_JSON_BYTES} bytes)")
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; the folder must be as transformers writes it") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(values, dict):
        raise ModelError(f"{path}: an object is expected, not {type(values).__name__}")
    return values


def lasting(settings: dict[str, Any]) -> dict[str, Any]:
    """A configuration of transformers without what tells of the moment it was written in."""
    return {name: value for name, value in settings.items() if name not in _PASSING}
