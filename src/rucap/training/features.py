"""The cache of encoder features: each view of each photo goes through the frozen part of the encoder once.

One folder an encoder (named by a digest of its weights and preprocessing), in it one folder a view: `features` and
`labels` are raw float16 rows, `index` the SHA-256 of each row's photo, one a line. Rows are only ever appended and the
index is written last, so a run that was cut off goes on where it stopped.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch

from rucap.errors import DataError, ImageError
from rucap.images import open_photo, preprocess
from rucap.model.config import Preprocessing
from rucap.network.vision_encoder import VisionEncoder
from rucap.training.views import apply, view_of

Halves = npt.NDArray[np.float16]
CHUNK = 64
"""Photos that are encoded, and written, at a time."""


def digest_of(path: Path) -> str:
    """The hexadecimal SHA-256 of a file. Raises DataError when it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}; correct the data set's line or its folder"
        ) from None


def encoder_key(encoder: VisionEncoder, preprocessing: Preprocessing, shape: Sequence[int]) -> str:
    """A digest of all that decides the features: the frozen weights, the preprocessing and the features' shape."""
    digest = hashlib.sha256(json.dumps([asdict(preprocessing), *shape], sort_keys=True).encode())
    for name, tensor in encoder.state_dict().items():
        if name.startswith(encoder.frozen):
            digest.update(name.encode())
            digest.update(tensor.detach().numpy().tobytes())
    return digest.hexdigest()[:16]


class ViewFile:
    """The cached rows of one view, open for reading and appending."""

    def __init__(self, folder: Path, feature_shape: tuple[int, ...], labels: int) -> None:
        self.folder, self.feature_shape, self.labels = folder, feature_shape, labels
        folder.mkdir(parents=True, exist_ok=True)
        index = folder / "index"
        lines = index.read_text().splitlines(keepends=True) if index.exists() else []
        complete = [line.strip() for line in lines if line.endswith("\n")]
        self.rows = {digest: row for row, digest in enumerate(complete)}
        self.count = len(complete)

    @property
    def _row_bytes(self) -> tuple[int, int]:
        return 2 * int(np.prod(self.feature_shape)), 2 * self.labels

    def append(self, digests: Sequence[str], features: Halves, labels: Halves) -> None:
        """Adds rows; whatever a killed run left after the last complete row is overwritten."""
        for name, values, size in zip(("features", "labels"), (features, labels), self._row_bytes, strict=True):
            with _open_at(self.folder / name, self.count * size) as file:
                file.write(values.tobytes())
        with _open_at(self.folder / "index", self.count * 65) as file:
            file.write("".join(f"{digest}\n" for digest in digests).encode())
        for digest in digests:
            self.rows[digest] = self.count
            self.count += 1

    def map(self) -> tuple[Halves, Halves]:
        """All features and all label logits, memory-mapped for reading."""
        features = np.memmap(self.folder / "features", np.float16, "r", shape=(self.count, *self.feature_shape))
        if not self.labels:  # an empty file cannot be mapped
            return features, np.zeros((self.count, 0), np.float16)
        return features, np.memmap(self.folder / "labels", np.float16, "r", shape=(self.count, self.labels))


@contextmanager
def _open_at(path: Path, offset: int) -> Iterator[IO[bytes]]:
    path.touch()
    with path.open("r+b") as file:
        file.truncate(offset)
        file.seek(offset)
        yield file


class FeatureCache:
    """Features of photos by content: `fill` computes what is missing, `read` finds rows."""

    def __init__(self, folder: Path, encoder: VisionEncoder, preprocessing: Preprocessing, views: int) -> None:
        self.encoder, self.preprocessing = encoder, preprocessing
        with torch.inference_mode():
            probe = encoder.trunk(torch.zeros(1, 3, preprocessing.size, preprocessing.size))
        shape, labels = tuple(probe.shape[1:]), encoder.labels
        self.folder = folder / encoder_key(encoder, preprocessing, shape)
        self.views = [ViewFile(self.folder / f"view-{number}", shape, labels) for number in range(views)]
        self._maps: list[tuple[Halves, Halves] | None] = [None] * views

    def fill(
        self,
        photos: Iterable[tuple[str, Path]],
        views: int | None = None,
        progress: Callable[[int], None] = lambda count: None,
    ) -> dict[str, str]:
        """Computes the missing views of (digest, path) photos; `progress` is told how many are done.

        A photo that cannot be opened is left out; returned is {path: reason} of those. Another process that fills the
        same cache is waited for.
        """
        failures: dict[str, str] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock, ThreadPoolExecutor(2) as pool:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for chunk in _chunks(photos, CHUNK):
                for number, view in enumerate(self.views[:views]):
                    missing = {digest: path for digest, path in chunk if digest not in view.rows}
                    opened = partial(self._pixels, number=number, failures=failures)
                    pixels = list(pool.map(opened, missing.keys(), missing.values()))
                    kept = [(digest, p) for digest, p in zip(missing, pixels, strict=True) if p is not None]
                    if kept:
                        view.append([digest for digest, _ in kept], *self._encode(np.stack([p for _, p in kept])))
                        self._maps[number] = None
                progress(len(chunk))
        return failures

    def _pixels(self, digest: str, path: Path, number: int, failures: dict[str, str]) -> npt.NDArray[np.float32] | None:
        try:
            view = view_of(number, digest)
            # The whole photo is opened as captioning opens it; a crop leaves fewer pixels, so more are decoded.
            target = self.preprocessing.size if view.whole else 2 * self.preprocessing.size
            return preprocess(apply(view, open_photo(path, target=target)), self.preprocessing)
        except ImageError as error:
            failures[str(path)] = str(error)
            return None

    def _encode(self, pixels: npt.NDArray[np.float32]) -> tuple[Halves, Halves]:
        batch = torch.from_numpy(pixels).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=_bfloat16_is_fast()):
            features = self.encoder.trunk(batch)
            labels = self.encoder.label_logits(features)
        halves = features.float().numpy().astype(np.float16)
        if labels is None:
            return halves, np.zeros((len(halves), 0), np.float16)
        return halves, labels.float().numpy().astype(np.float16)

    def has(self, digest: str, view: int) -> bool:
        """Whether this view of the photo is cached."""
        return digest in self.views[view].rows

    def read(self, digests: Sequence[str], views: Sequence[int]) -> tuple[Halves, Halves]:
        """Features [batch, *shape] and label logits [batch, labels], one photo and view a row."""
        features, labels = [], []
        for digest, number in zip(digests, views, strict=True):
            view = self.views[number]
            maps = self._maps[number] = self._maps[number] or view.map()
            features.append(maps[0][view.rows[digest]])
            labels.append(maps[1][view.rows[digest]])
        return np.stack(features), np.stack(labels)


def _chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


def _bfloat16_is_fast() -> bool:
    return torch.cpu._is_avx512_bf16_supported()
