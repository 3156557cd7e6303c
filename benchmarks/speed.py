"""How fast a model captions, where the time goes, and how far that is from what the machine could do.

    python benchmarks/speed.py [MODEL] [--photos FOLDER] [--threads N] [--torch]

Photos are JPEGs of 640 x 480 cut from scikit-image's, unless a folder is given. MODEL: `tiny` unless given.
Times on a machine that does other work say little: its load is printed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import shape_inference
from PIL import Image
from skimage import data

from rucap import Captioner
from rucap.engines.protocol import Booleans, Encoded, Engine, Floats, Integers, State
from rucap.export.graph import Graph, value
from rucap.images import load_pixels, open_photo
from rucap.model.folder import ModelFolder, find_model

SINGLE, FOLDER, COLD = 24, 160, 5
MEASURE = """
import resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""Run by a small process of its own: a child counts the memory of the parent that it is split from as its own, too."""
TARGETS = {
    "cold process to caption, s": 1.2,
    "its peak memory, MB": 300,
    "`rucap --help`, s": 0.3,
    "one photo, beam 3, median ms": 60,
    "folder, photos/s": 40,
}


def main() -> None:
    options = _options()
    print(machine(), f"\nonnxruntime {onnxruntime.__version__}, {options.threads} threads\n")
    with tempfile.TemporaryDirectory() as made:
        photos = sorted(options.photos.iterdir()) if options.photos else write_photos(Path(made))
        photos = (photos * (1 + FOLDER // len(photos)))[:FOLDER]
        folder = find_model(options.model)
        captioner = Captioner(folder, threads=options.threads)
        steps = Stages(captioner.engine)
        found = {
            **_cold(folder, photos[0]),
            "one photo, beam 3, median ms": 1000 * _each(captioner, photos[:SINGLE]),
            "folder, photos/s": FOLDER / seconds_of(lambda: captioner.caption(photos)),
        }
        print("| | found | target |\n|---|---:|---:|")
        for name, figure in found.items():
            print(f"| {name} | {figure:.3g} | {TARGETS[name]} |")
        single = _stages(captioner, steps, photos[:SINGLE])
        written = steps.written / SINGLE
        whole = _stages(captioner, steps, photos, together=True)
        _print_stages(single, whole)
        _print_floor(folder, options.threads, single, written)
        if options.torch:
            _print_torch(folder, options.threads, photos, found)


def write_photos(folder: Path, count: int = 40) -> list[Path]:
    """JPEGs as a camera's small ones, of different parts of free photos."""
    sources = [Image.fromarray(photo()) for photo in (data.astronaut, data.chelsea, data.coffee, data.rocket, data.cat)]
    random = np.random.default_rng(0)
    paths = []
    for number in range(count):
        source = sources[number % len(sources)]
        width = int(random.uniform(0.6, 1) * min(source.width, source.height * 4 / 3))
        height = width * 3 // 4
        left, top = (
            int(random.integers(0, whole - part + 1))
            for whole, part in ((source.width, width), (source.height, height))
        )
        photo = source.crop((left, top, left + width, top + height)).resize((640, 480), Image.Resampling.BICUBIC)
        paths.append(folder / f"{number:02}.jpg")
        photo.save(paths[-1], quality=90)
    return paths


class Stages(Engine):
    """An engine that adds up what its parts take."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.seconds = engine, Counter[str]()
        self.written = 0

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] += time.perf_counter() - start

    def encode(self, pixels: Floats) -> Encoded:
        with self.timed("encoder"):
            return self.engine.encode(pixels)

    def embed_texts(self, tokens: Integers) -> Floats | None:
        return self.engine.embed_texts(tokens)

    def start(self, prefix: Floats, tokens: Integers, mask: Booleans) -> tuple[Floats, State]:
        with self.timed("prompt"):
            return self.engine.start(prefix, tokens, mask)

    def step(self, tokens: Integers, state: State) -> tuple[Floats, State]:
        self.written += 1
        with self.timed("steps"):
            return self.engine.step(tokens, state)

    def select(self, state: State, rows: Integers) -> State:
        with self.timed("reordering"):
            return self.engine.select(state, rows)

    def score(self, prefix: Floats, tokens: Integers, mask: Booleans) -> Floats:
        return self.engine.score(prefix, tokens, mask)


def _stages(captioner: Captioner, stages: Stages, photos: list[Path], together: bool = False) -> dict[str, float]:
    """Milliseconds a photo of each stage; of all cores where they are captioned together."""
    preprocessing = captioner.config.encoder.preprocessing
    timed = Captioner(captioner.folder.path, engine=stages)
    timed.caption(photos[0])
    stages.seconds.clear()
    stages.written = 0
    total = (
        seconds_of(lambda: timed.caption(photos))
        if together
        else seconds_of(lambda: [timed.caption(p) for p in photos])
    )
    decoding = seconds_of(lambda: [open_photo(photo, target=preprocessing.size) for photo in photos])
    loading = seconds_of(lambda: [load_pixels(photo, preprocessing) for photo in photos])
    found = {"JPEG decoding": decoding, "preprocessing": loading - decoding, **stages.seconds}
    if not together:
        found["Python: prompts, search, text"] = total - sum(found.values())
    return {stage: 1000 * seconds / len(photos) for stage, seconds in {**found, "all": total}.items()}


def _print_stages(single: dict[str, float], whole: dict[str, float]) -> None:
    print("\n| ms a photo | one by one | a folder (photos are decoded beside the rest) |\n|---|---:|---:|")
    for stage, figure in single.items():
        print(f"| {stage} | {figure:.1f} | {f'{whole[stage]:.1f}' if stage in whole else ''} |")


def _print_floor(folder: Path, threads: int, single: dict[str, float], steps: float) -> None:
    opened = ModelFolder.open(folder)
    encoder, decoder = opened.onnx_file("encoder"), opened.onnx_file("decoder")
    rates = {kind: multiply_rate(kind, threads) for kind in ("float32", "int8")}
    kind = "int8" if ".int8" in encoder.name else "float32"
    work, bandwidth = multiplications(onnx.load(encoder)), memory_rate()
    print(
        f"\nMeasured: {rates['float32'] / 1e9:.0f} billion float32 and {rates['int8'] / 1e9:.0f} billion int8"
        f" multiplications a second in large matrix products; {bandwidth / 1e9:.0f} GB/s read from memory.\n"
    )
    print("| ms a photo | floor | found | times |\n|---|---:|---:|---:|")
    weights = decoder.stat().st_size
    rows = {
        f"encoder: {work / 1e6:.0f} million multiplications, {kind}": (1000 * work / rates[kind], single["encoder"]),
        f"steps: {steps:.1f} times {weights / 1e6:.1f} MB of weights": (
            1000 * steps * weights / bandwidth,
            single["steps"],
        ),
    }
    for name, (floor, figure) in rows.items():
        print(f"| {name} | {floor:.2f} | {figure:.2f} | {figure / floor:.1f} |")


def _print_torch(folder: Path, threads: int, photos: list[Path], found: dict[str, float]) -> None:
    import torch

    torch.set_num_threads(threads)
    captioner = Captioner(folder, engine="torch")
    ours, whole = found["one photo, beam 3, median ms"], found["folder, photos/s"]
    theirs, all_theirs = (
        1000 * _each(captioner, photos[:SINGLE]),
        FOLDER / seconds_of(lambda: captioner.caption(photos)),
    )
    print("\n| | onnx | torch, float32 | times |\n|---|---:|---:|---:|")
    print(f"| one photo, ms | {ours:.1f} | {theirs:.1f} | {theirs / ours:.1f} |")
    print(f"| folder, photos/s | {whole:.1f} | {all_theirs:.1f} | {whole / all_theirs:.1f} |")


def _cold(folder: Path, photo: Path) -> dict[str, float]:
    caption = [sys.executable, "-m", "rucap", "caption", "--model", str(folder), str(photo)]
    runs = [run_process(caption) for _ in range(COLD)]
    helps = [run_process([sys.executable, "-m", "rucap", "--help"]) for _ in range(COLD)]
    return {
        "cold process to caption, s": statistics.median(seconds for seconds, _ in runs),
        "its peak memory, MB": statistics.median(memory for _, memory in runs),
        "`rucap --help`, s": statistics.median(seconds for seconds, _ in helps),
    }


def run_process(command: list[str]) -> tuple[float, float]:
    """Seconds, and megabytes at most, of a process that must succeed."""
    measured = subprocess.run([sys.executable, "-I", "-S", "-c", MEASURE, *command], capture_output=True, text=True)
    if measured.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {measured.stderr.strip()}")
    seconds, kilobytes = measured.stdout.split()
    return float(seconds), float(kilobytes) / 1024


def _each(captioner: Captioner, photos: list[Path]) -> float:
    captioner.caption(photos[0], beams=3)
    return statistics.median(seconds_of(lambda photo=photo: captioner.caption(photo, beams=3)) for photo in photos)


def seconds_of(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def multiplications(model: onnx.ModelProto) -> int:
    """Of the convolutions and matrix products of a graph, for a batch of one."""
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*graph.value_info, *graph.output)}
    shapes |= {constant.name: list(constant.dims) for constant in graph.initializer}
    total = 0
    for node in graph.node:
        if node.op_type == "Conv":
            total += int(np.prod(shapes[node.output[0]]) * np.prod(shapes[node.input[1]][1:]))
        elif node.op_type == "MatMul":
            total += int(np.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1])
    return total


def multiply_rate(kind: str, threads: int, size: int = 1024) -> float:
    """Multiplications a second of a large matrix product."""
    graph, random = Graph(), np.random.default_rng(0)
    if kind == "int8":
        graph.add(
            "MatMulInteger",
            "a",
            graph.constant(random.integers(-64, 64, (size, size)).astype(np.int8), "b"),
            output="c",
        )
        inputs, outputs = value("a", "uint8", size, size), value("c", "int32", size, size)
        a = random.integers(0, 255, (size, size)).astype(np.uint8)
    else:
        graph.add("MatMul", "a", graph.constant(random.normal(size=(size, size)).astype(np.float32), "b"), output="c")
        inputs, outputs = value("a", "float32", size, size), value("c", "float32", size, size)
        a = random.normal(size=(size, size)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(graph.model([inputs], [outputs]).SerializeToString(), options)
    return size**3 / min(seconds_of(lambda: session.run(None, {"a": a})) for _ in range(15))


def memory_rate(megabytes: int = 256) -> float:
    """Bytes a second read by one thread from what no cache holds."""
    block = np.ones(megabytes * 2**17)
    return block.nbytes / min(seconds_of(block.sum) for _ in range(5))


def machine() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = [line.partition(":") for line in cpuinfo.read_text().splitlines()] if cpuinfo.exists() else []
    found = {name.strip(): text.strip() for name, _, text in lines}
    flags = found.get("flags", "").split()
    widest = next((f for f in ("avx512_vnni", "avx_vnni", "avx512f", "avx2") if f in flags), "unknown")
    vnni = "yes" if {"avx512_vnni", "avx_vnni"} & set(flags) else "no"
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    name = found.get("model name", "unknown processor")
    return f"{name}, {os.cpu_count()} cores, {widest}, VNNI: {vnni}; load {load:.1f}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", nargs="?", default="tiny")
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--torch", action="store_true", help="compare with the torch engine, too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
