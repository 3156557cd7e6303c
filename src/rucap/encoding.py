"""Photos to encoded batches: pixels are loaded in threads, a batch ahead of the encoder. Knows nothing of text."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from rucap.engines.protocol import Encoded, Engine, Floats
from rucap.errors import ImageError
from rucap.images import Limits, Source, load_pixels
from rucap.model.config import Preprocessing

BATCH = 16
"""Photos encoded at once: beyond it a processor gains nothing, and memory grows."""
LOADERS = 4
"""Threads that decode photos; Pillow lets go of Python's lock while it does."""


@dataclass(frozen=True)
class EncodedBatch:
    """Some of the photos, in order."""

    indices: tuple[int, ...]
    """Which of the photos given are encoded here."""
    encoded: Encoded
    failed: dict[int, ImageError]
    """Index of a photo that could not be loaded -> why."""


def encode_photos(
    photos: Sequence[Source], engine: Engine, preprocessing: Preprocessing, limits: Limits
) -> Iterator[EncodedBatch]:
    """Loads and encodes photos, BATCH at a time; a batch without a single good photo holds failures alone."""

    def load(photo: Source) -> Floats | ImageError:
        try:
            return load_pixels(photo, preprocessing, limits)
        except ImageError as error:
            return error

    if len(photos) == 1:
        yield _encode(0, [load(photos[0])], engine)
        return
    with ThreadPoolExecutor(LOADERS, thread_name_prefix="rucap-photos") as pool:
        waiting: deque[tuple[int, list[Future[Floats | ImageError]]]] = deque()
        try:
            for start in range(0, len(photos), BATCH):
                waiting.append((start, [pool.submit(load, photo) for photo in photos[start : start + BATCH]]))
                if len(waiting) > 1:
                    first, loading = waiting.popleft()
                    yield _encode(first, [future.result() for future in loading], engine)
            for first, loading in waiting:
                yield _encode(first, [future.result() for future in loading], engine)
        finally:
            pool.shutdown(cancel_futures=True)


def _encode(first: int, loaded: list[Floats | ImageError], engine: Engine) -> EncodedBatch:
    numbered = list(enumerate(loaded, start=first))
    failed = {index: result for index, result in numbered if isinstance(result, ImageError)}
    good = [(index, result) for index, result in numbered if not isinstance(result, ImageError)]
    if not good:
        return EncodedBatch((), Encoded(np.zeros((0, 0, 0), np.float32), None), failed)
    return EncodedBatch(tuple(index for index, _ in good), engine.encode(np.stack([p for _, p in good])), failed)
