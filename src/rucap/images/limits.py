"""How much a photo may cost before it is refused. This module knows bytes and seconds, not files or images."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields

from rucap.errors import ImageError, OptionError


@dataclass(frozen=True)
class Limits:
    """What a photo may cost. Raises OptionError unless every limit is positive."""

    max_bytes: int = 100_000_000
    """Bytes of the encoded photo, in a file, in memory or over the network."""
    max_pixels: int = 120_000_000
    """Width times height, read from the header before anything is decoded; the default lets 108-megapixel phones in."""
    timeout_seconds: float = 20.0
    """Seconds that a URL may take in all: name look-up, redirects and body together."""

    def __post_init__(self) -> None:
        for limit in fields(self):
            if not getattr(self, limit.name) > 0:
                raise OptionError(f"{limit.name}: must be more than 0, not {getattr(self, limit.name)}")


DEFAULT_LIMITS = Limits()


def read_within(read: Callable[[int], bytes], name: str, limits: Limits, deadline: float = float("inf")) -> bytes:
    """Calls `read(size)` until it gives nothing. Raises ImageError past `max_bytes`, TimeoutError past `deadline`."""
    chunks, total = [], 0
    while chunk := read(1 << 18):
        chunks.append(chunk)
        total += len(chunk)
        if total > limits.max_bytes:
            raise too_large(name, limits)
        if time.monotonic() > deadline:
            raise TimeoutError
    return b"".join(chunks)


def too_large(name: str, limits: Limits) -> ImageError:
    """The error for more bytes than `limits` allows."""
    return ImageError(f"{name}: more than {limits.max_bytes:,} bytes; make the photo smaller or raise the limit")
