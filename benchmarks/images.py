"""Milliseconds from an encoded photo to the encoder's pixels, with and without JPEG's reduced-scale decoding.

    python benchmarks/images.py

One thread, median of 15. The photo is scikit-image's `astronaut`, enlarged and grained as a phone's sensor would.
"""

from __future__ import annotations

import io
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL
from PIL import Image
from skimage.data import astronaut

from rucap.images import load_pixels, open_photo, preprocess
from rucap.model.config import Preprocessing

PREPROCESSING = Preprocessing(224, "squash", "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SIZES = {
    "12 MP, 4032 x 3024": (4032, 3024),
    "12 MP, sides not even, 4031 x 3023": (4031, 3023),
    "2 MP, 1920 x 1080": (1920, 1080),
    "0.2 MP, 500 x 375": (500, 375),
}


def main() -> None:
    print(f"{_processor()}, {os.cpu_count()} cores; Python {platform.python_version()}, Pillow {PIL.__version__}\n")
    print("| JPEG | whole, ms | reduced, ms | ratio | mean difference, of 255 |\n|---|---:|---:|---:|---:|")
    for name, size in SIZES.items():
        data = _jpeg(size)
        whole = _median_ms(lambda data=data: preprocess(open_photo(data), PREPROCESSING))
        reduced = _median_ms(lambda data=data: load_pixels(data, PREPROCESSING))
        difference = np.abs(preprocess(open_photo(data), PREPROCESSING) - load_pixels(data, PREPROCESSING))
        levels = float((difference.mean(axis=(1, 2)) * PREPROCESSING.std).mean() * 255)
        print(f"| {name} | {whole:.1f} | {reduced:.1f} | {whole / reduced:.1f} | {levels:.2f} |")


def _jpeg(size: tuple[int, int]) -> bytes:
    photo = np.asarray(Image.fromarray(astronaut()).resize(size, Image.Resampling.BICUBIC), np.float32)
    grain = np.random.default_rng(0).normal(0, 5, (*photo.shape[:2], 1))
    file = io.BytesIO()
    Image.fromarray(np.clip(photo + grain, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def _median_ms(work: Callable[[], object], repeats: int = 15) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1000


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


if __name__ == "__main__":
    main()
