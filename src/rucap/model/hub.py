"""Models from the Hugging Face hub: fetched once, kept in the user's cache, never asked for again.

This module is the one that speaks to the network for models. A model is complete when its folder in the cache exists:
it is made beside it under another name, by one process at a time, and renamed.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from rucap.errors import ModelError, RucapError
from rucap.model.config import read_config
from rucap.model.folder import TEXT_TOWER
from rucap.model.names import NamedModel, named_models


def cache_folder() -> Path:
    """Where models are kept: $RUCAP_CACHE, or `rucap` in the user's cache folder."""
    if chosen := os.environ.get("RUCAP_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("LOCALAPPDATA") if sys.platform == "win32" else os.environ.get("XDG_CACHE_HOME")
    return Path(base or "~/.cache").expanduser() / "rucap"


def cached(name: str) -> Path:
    """Where a model of this name or hub id is kept, whether it is there or not."""
    return cache_folder() / "models" / name.replace("/", "--")


def fetch(name: str) -> Path:
    """The folder of a named model or hub id; the first time it is downloaded, and imported and exported if need be.

    Raises ModelError saying what to fetch and where to put it when the hub cannot be reached.
    """
    folder = cached(name)
    if folder.is_dir():
        return folder
    from filelock import FileLock

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(folder.name + ".lock")):
            if not folder.is_dir():  # another process may have made it in the meantime
                made = folder.with_name(folder.name + ".making")
                if row := named_models().get(name):
                    _build(row, made, folder)
                else:
                    _download_model(name, made, folder)
                made.replace(folder)
    except OSError as error:
        raise ModelError(
            f"{folder}: cannot be written: {error.strerror or error}; set RUCAP_CACHE to a folder with room for models"
        ) from None
    return folder


def download(repository: str, patterns: Sequence[str], place: Path | None = None) -> Path:
    """The folder with those files of a hub repository that match; a download that was cut goes on where it stopped.

    Files go to `place`, or to the hub library's own cache. Raises ModelError saying what to fetch when it cannot be.
    """
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(repository, allow_patterns=list(patterns), local_dir=place))
    except Exception as error:  # the library and its HTTP client raise a dozen kinds
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelError(
            f"{repository}: no such folder here, and it cannot be fetched from the hub: {reason.rstrip('.')};"
            f" on a machine that can, run `hf download {repository} --local-dir DIR`, and give DIR in its place"
        ) from None


def _download_model(repository: str, made: Path, folder: Path) -> None:
    """Downloads a model folder as this package writes them: first its configuration, then the files it speaks of."""
    download(repository, ["config.json"], made)
    try:
        config = read_config(made / "config.json")
    except ModelError as error:
        raise ModelError(
            f"{repository}: not a captioner of rucap's ({error}); one of ClipCap's kind comes in by"
            " `rucap models import`"
        ) from None
    named = config.files
    download(repository, [*named, "model.safetensors", TEXT_TOWER, "onnx/*"], made)
    either = [["model.safetensors"], ["onnx/encoder.onnx", "onnx/decoder.onnx"]]
    either.append([name.replace(".onnx", ".int8.onnx") for name in either[1]])
    if not _all_there(made, named) or not any(_all_there(made, files) for files in either):
        raise ModelError(f"{repository}: not all of its files could be fetched; try again, or put them into {folder}")
    shutil.rmtree(made / ".cache", ignore_errors=True)  # the hub library's notes on the download


def _all_there(folder: Path, names: Sequence[str]) -> bool:
    return all((folder / name).is_file() for name in names)


def _build(row: NamedModel, made: Path, folder: Path) -> None:
    """Downloads a named model's parts, imports and exports them."""
    parts = ", ".join(f"{source} ({part})" for part, source in row.sources.items())
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None:
        raise ModelError(f'{row.name}: the first time it is put together from {parts}: pip install "rucap[train]"')
    from rucap.importing import import_checkpoint, write_graphs

    shutil.rmtree(made, ignore_errors=True)  # what a run that was cut off left
    say = _reporter(row.name)
    say(f"the first time, {row.megabytes} MB are fetched: {parts}")
    try:
        weights = download(row.sources["captioner weights"], [row.checkpoint]) / row.checkpoint
        language_model, vision = row.sources["language model"], row.sources["vision encoder"]
        language: Literal["ru", "en"] = "ru" if "ru" in row.languages else "en"
        import_checkpoint(weights, language_model, vision, made, name=row.name, language=language, report=say)
        write_graphs(made, say)
    except RucapError as error:
        raise ModelError(
            f"{row.name}: {error}. It is made of {parts}; elsewhere fetched, they come in by"
            f" `rucap models import {row.checkpoint} --lm DIR --vision DIR {folder}`"
        ) from None


def _reporter(name: str) -> Callable[[str], None]:
    """Says a line on the terminal where there is one, to the log where there is none."""

    def say(line: str) -> None:
        if sys.stderr.isatty():
            print(f"{name}: {line}", file=sys.stderr)
        else:
            logging.getLogger(__name__).info("%s: %s", name, line)

    return say
