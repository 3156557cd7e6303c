"""An engine by its name, over the files of a model folder."""

from __future__ import annotations

from rucap.engines.protocol import Engine
from rucap.errors import OptionError
from rucap.model.folder import ModelFolder, Precision

GRAPHS = ("gpt2",)
"""Language models that have ONNX graphs."""


def load_engine(
    folder: ModelFolder,
    engine: str = "onnx",
    *,
    precision: Precision | None = None,
    threads: int | None = None,
    device: str = "cpu",
    spin: bool = True,
) -> Engine:
    """The engine `onnx` (see `OnnxEngine` for the options) or `torch`. Raises ModelError for a missing file.

    A language model that no graph can be made of runs in torch in any case.
    """
    if engine == "onnx" and folder.config.language_model.kind in GRAPHS:
        from rucap.engines.onnx import OnnxEngine

        encoder, decoder = folder.onnx_file("encoder", precision), folder.onnx_file("decoder", precision)
        text_tower = folder.text_tower_graph(precision)
        return OnnxEngine(encoder, decoder, text_tower=text_tower, threads=threads, device=device, spin=spin)
    if engine not in ("onnx", "torch"):
        raise OptionError(f"engine {engine!r}: it is onnx, torch or a loaded one")
    if precision == "int8" or threads is not None:
        raise OptionError("the torch engine takes neither int8 nor threads: leave them out, or take the onnx engine")
    from rucap.engines.torch import TorchEngine
    from rucap.network.prefix_captioner import load_network

    return TorchEngine(load_network(folder.config, folder.weights_file), device, text_tower=folder.text_tower_file)
