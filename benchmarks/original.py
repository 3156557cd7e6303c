"""How fast the original's model runs here: CLIP ViT-B/32, MLP mapper and ruGPT-3 small, at their true size.

    python benchmarks/original.py [FOLDER] [--threads N]

FOLDER is a model folder with its ONNX files; without one, parts of the true size with random weights are written as
transformers writes them, imported and exported (6 GB of a temporary folder, some minutes). With random weights
captions mean nothing and times mean what they mean with real ones; the likeliest tokens are closer to each other than
a trained model's, so agreement is a lower bound.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer
from skimage import data
from speed import machine, memory_rate, multiplications, multiply_rate, run_process, seconds_of, write_photos

from rucap.decoding import GenerationSettings, generate
from rucap.engines.onnx import OnnxEngine
from rucap.engines.protocol import Engine, Floats, Integers
from rucap.engines.torch import TorchEngine
from rucap.export.decoder import decoder_graph
from rucap.export.graph import Graph
from rucap.export.weights import Float32
from rucap.images import load_pixels
from rucap.model.folder import ModelFolder
from rucap.network.prefix_captioner import PrefixCaptioner, load_network

ORIGINAL_STEPS, NUCLEUS = 67, 0.8
"""Of the original's loop: how much it wrote, and the share of probability for which it sorted the vocabulary."""
CAPTION_STEPS = 20
"""Tokens of a caption of ten words and a full stop, with some to spare: where ours stops."""
BATCH, PHOTOS, REPEATS = 16, 8, 5
NO_TOKEN = 0
"""Neither written nor waited for: every sequence goes on to its limit."""


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    print(machine(), f"\nonnxruntime {onnxruntime.__version__}, torch {torch.__version__}, {options.threads} threads\n")
    with _folder(options.folder) as folder:
        photos = [load_pixels(photo, folder.config.encoder.preprocessing) for photo in _photos()]
        network = load_network(folder.config, folder.weights_file)
        exact, rounded = (_engine(folder, precision, options.threads) for precision in ("float32", "int8"))
        single = np.stack(photos[:1])
        _print_captions(network, exact, rounded, single)
        _print_batch(rounded, single, np.stack((photos * BATCH)[:BATCH]))
        _print_floor(folder, rounded, single, options.threads)
        _print_weights(folder, network, exact, rounded, np.stack(photos[:PHOTOS]), options.threads)
        _print_process(folder)


def original_caption(network: PrefixCaptioner, pixels: Floats, steps: int = ORIGINAL_STEPS) -> list[int]:
    """The original's loop: the whole sequence through the whole network at every step, and a sort of the vocabulary."""
    model = network.language_model
    table = model.get_input_embeddings()
    with torch.inference_mode():
        read = network.prefix(network.encoder.trunk(torch.from_numpy(pixels)))
        tokens = []
        for _ in range(steps):
            logits = model(inputs_embeds=read, use_cache=False).logits[:, -1]
            ordered, places = torch.sort(logits, descending=True)
            beyond = torch.cumsum(torch.softmax(ordered, -1), -1) > NUCLEUS
            beyond[..., 1:] = beyond[..., :-1].clone()
            beyond[..., 0] = False
            logits[:, places[beyond]] = -torch.inf
            token = torch.argmax(logits, -1)
            read = torch.cat([read, table(token)[:, None]], 1)
            tokens.append(int(token))
    return tokens


def caption(engine: Engine, pixels: Floats, steps: int, beams: int = 1) -> list[tuple[int, ...]]:
    """The best sequence of so many tokens for each photo."""
    settings = GenerationSettings(end_tokens=(NO_TOKEN,), suppressed=(NO_TOKEN,), max_tokens=steps, beams=beams)
    empty = np.zeros((len(pixels), 0), np.int64)
    found = generate(engine, engine.encode(pixels).prefix, empty, empty > 0, settings)
    return [hypotheses[0].tokens for hypotheses in found]


def _print_captions(network: PrefixCaptioner, exact: Engine, rounded: Engine, pixels: Floats) -> None:
    engines = {"torch with a cache": TorchEngine(network), "ONNX float32": exact, "ONNX int8": rounded}
    original = _median(lambda: original_caption(network, pixels), 2)
    print("| one photo, pixels to tokens | tokens | s | times faster than the original | than torch with a cache |")
    print("|---|---:|---:|---:|---:|")
    print(f"| the original's loop, torch | {ORIGINAL_STEPS} | {original:.3f} | 1.0 | |")
    for steps, beams in ((ORIGINAL_STEPS, 1), (CAPTION_STEPS, 1), (CAPTION_STEPS, 3)):
        how = f"{beams} beams" if beams > 1 else "greedy"
        taken = {
            name: _median(lambda engine=engine, steps=steps, beams=beams: caption(engine, pixels, steps, beams))
            for name, engine in engines.items()
        }
        for name, seconds in taken.items():
            times = f"{original / seconds:.1f} | {taken['torch with a cache'] / seconds:.1f}"
            print(f"| {name}, {how} | {steps} | {seconds:.3f} | {times} |")
    wanted = original_caption(network, pixels)
    for name in ("torch with a cache", "ONNX float32"):
        found = list(caption(engines[name], pixels, ORIGINAL_STEPS)[0])
        print(f"\nThe original's {len(wanted)} tokens and {name}'s: {'the same' if found == wanted else 'differ'}.")


def _print_batch(engine: Engine, single: Floats, many: Floats) -> None:
    print(f"\n| int8, {CAPTION_STEPS} tokens | one at a time, photos/s | {len(many)} together | times |")
    print("|---|---:|---:|---:|")
    for beams in (1, 3):
        alone = 1 / _median(lambda beams=beams: caption(engine, single, CAPTION_STEPS, beams))
        together = len(many) / _median(lambda beams=beams: caption(engine, many, CAPTION_STEPS, beams))
        print(f"| {beams} beams | {alone:.1f} | {together:.1f} | {together / alone:.1f} |")


def _print_floor(folder: ModelFolder, engine: Engine, pixels: Floats, threads: int) -> None:
    encoder, decoder = (folder.onnx_file(part, "int8") for part in ("encoder", "decoder"))
    work, bandwidth, rate = multiplications(onnx.load(encoder)), memory_rate(), multiply_rate("int8", threads)
    encoding = _median(lambda: engine.encode(pixels))
    stepping = (_median(lambda: caption(engine, pixels, CAPTION_STEPS)) - encoding) / CAPTION_STEPS
    size = _read_bytes(decoder)
    print(
        f"\nMeasured: {rate / 1e9:.0f} billion int8 multiplications a second; {bandwidth / 1e9:.0f} GB/s of one thread."
    )
    print("\n| int8, ms | floor | found | times |\n|---|---:|---:|---:|")
    for name, floor, found in (
        (f"encoder: {work / 1e9:.2f} billion multiplications", work / rate, encoding),
        (f"step: {size / 1e6:.0f} MB of weights", size / bandwidth, stepping),
    ):
        print(f"| {name} | {1000 * floor:.1f} | {1000 * found:.1f} | {found / floor:.1f} |")


class _Multiplied(Float32):
    """The vocabulary's matrix a second time, as a product that weight-only quantisation knows."""

    def compare(self, graph: Graph, table: Floats, inputs: str, name: str) -> str:
        return graph.add("MatMul", inputs, graph.constant(table.T, f"{name}.compared"))


def _print_weights(
    folder: ModelFolder, network: PrefixCaptioner, exact: OnnxEngine, rounded: OnnxEngine, pixels: Floats, threads: int
) -> None:
    """Ways to store the decoder's weights: their size, time a step, and how often the likeliest token is float32's."""
    written = np.array(caption(exact, pixels, CAPTION_STEPS))
    prefix = exact.encode(pixels).prefix
    wanted = exact.score(prefix, written, np.ones_like(written, bool))
    encoder = folder.onnx_file("encoder", "int8")
    with tempfile.TemporaryDirectory() as made:
        files = {
            "float32": folder.onnx_file("decoder", "float32"),
            "int8, weights and values": folder.onnx_file("decoder", "int8"),
        }
        for bits in (8, 4):
            files[f"{bits} bits, weights alone"] = _weight_only(network, bits, Path(made) / f"{bits}.onnx")
        print("\n| decoder | MB read a step | ms a step, 1 row | 3 rows | same likeliest token, % | logits off, % |")
        print("|---|---:|---:|---:|---:|---:|")
        for name, file in files.items():
            engine = OnnxEngine(encoder, file, threads=threads)
            single, triple = (_step(engine, prefix[:rows], written[:rows]) for rows in (1, 3))
            found = engine.score(prefix, written, np.ones_like(written, bool))
            same = 100 * float(np.mean(found.argmax(-1) == wanted.argmax(-1)))
            off = 100 * float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))
            print(f"| {name} | {_read_bytes(file) / 1e6:.0f} | {single:.1f} | {triple:.1f} | {same:.1f} | {off:.2f} |")


def _weight_only(network: PrefixCaptioner, bits: int, file: Path) -> Path:
    logging.getLogger(DefaultWeightOnlyQuantConfig.__module__).setLevel(logging.WARNING)
    graph = decoder_graph(network.language_model, _Multiplied())
    settings = DefaultWeightOnlyQuantConfig(block_size=32, is_symmetric=True, accuracy_level=4, bits=bits)
    quantiser = MatMulNBitsQuantizer(graph, algo_config=settings)
    quantiser.process()
    onnx.save(quantiser.model.model, file)
    return file


def _read_bytes(file: Path) -> int:
    """Of a graph's constants, those that a step reads: all but the table of which it looks up a row."""
    graph = onnx.load(file).graph
    looked_up = {node.input[0] for node in graph.node if node.op_type == "Gather"}
    elsewhere = {name for node in graph.node if node.op_type != "Gather" for name in node.input}
    return sum(len(c.raw_data) for c in graph.initializer if c.name in elsewhere or c.name not in looked_up)


def _step(engine: Engine, prefix: Floats, tokens: Integers) -> float:
    """Milliseconds of a step."""
    empty = np.zeros((len(prefix), 0), np.int64)

    def write() -> None:
        _, state = engine.start(prefix, empty, empty > 0)
        for place in range(tokens.shape[1]):
            _, state = engine.step(tokens[:, place], state)

    return 1000 * (_median(write) - _median(lambda: engine.start(prefix, empty, empty > 0))) / tokens.shape[1]


def _print_process(folder: ModelFolder) -> None:
    with tempfile.TemporaryDirectory() as made:
        photo = write_photos(Path(made), 1)[0]
        runs = [
            run_process([sys.executable, "-m", "rucap", "caption", "--model", str(folder.path), str(photo)])
            for _ in range(3)
        ]
    print("\n| new process, one photo, int8, 3 beams | |\n|---|---:|")
    print(f"| s | {statistics.median(seconds for seconds, _ in runs):.2f} |")
    print(f"| peak memory, MB | {statistics.median(megabytes for _, megabytes in runs):.0f} |")


def _engine(folder: ModelFolder, precision: str, threads: int) -> OnnxEngine:
    return OnnxEngine(*(folder.onnx_file(part, precision) for part in ("encoder", "decoder")), threads=threads)


def _photos() -> list[Floats]:
    sources = (data.astronaut, data.chelsea, data.coffee, data.rocket, data.cat)
    return [np.ascontiguousarray(source()[:, shift:]) for shift in (0, 60) for source in sources]


def _median(work: Callable[[], object], repeats: int = REPEATS) -> float:
    work()
    return statistics.median(seconds_of(work) for _ in range(repeats))


@contextmanager
def _folder(given: Path | None) -> Iterator[ModelFolder]:
    if given:
        yield ModelFolder.open(given)
        return
    from rucap.export.export import export_model
    from rucap.importing.run import import_checkpoint

    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        _write_parts(root)
        import_checkpoint(root / "captioner.pt", root / "lm", root / "vision", root / "model")
        export_model(root / "model")
        yield ModelFolder.open(root / "model")


def _write_parts(root: Path) -> None:
    """A vision encoder, a language model and a captioner's checkpoint as their authors' programs write them."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    torch.manual_seed(0)
    transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig()).save_pretrained(root / "vision")
    transformers.CLIPImageProcessor().save_pretrained(root / "vision")
    settings = transformers.GPT2Config(
        vocab_size=50264, n_positions=2048, bos_token_id=1, eos_token_id=2, pad_token_id=0
    )
    gpt = transformers.GPT2LMHeadModel(settings)
    settings.save_pretrained(root / "lm")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        special_tokens=["<pad>", "<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["Собака бежит по траве."], trainer)
    tokenizer.save(str(root / "lm" / "tokenizer.json"))
    first, second = torch.nn.Linear(512, 3840), torch.nn.Linear(3840, 7680)
    mapper = {f"0.{name}": t for name, t in first.state_dict().items()}
    mapper |= {f"2.{name}": t for name, t in second.state_dict().items()}
    state = {f"gpt.{name}": tensor for name, tensor in gpt.state_dict().items()}
    torch.save(state | {f"clip_project.model.{name}": t for name, t in mapper.items()}, root / "captioner.pt")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    return parser.parse_args()


if __name__ == "__main__":
    main()
