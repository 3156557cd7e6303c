"""GPT-2 (Radford et al., 2019) as one ONNX graph that reads prompts, writes and scores, with a key/value cache.

The graph's inputs and outputs are those that `rucap.engines.onnx` documents.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from rucap.engines.protocol import Floats
from rucap.errors import NoExportError
from rucap.export.graph import Graph, value
from rucap.export.layers import GELU, NEVER, Layers, query_scale
from rucap.export.weights import Weights, array

_ALL = int(np.iinfo(np.int64).max)


def decoder_graph(model: PreTrainedModel, weights: Weights) -> onnx.ModelProto:
    """The graph of a GPT-2 of any size. Raises NoExportError for another language model."""
    _check(model)
    config: Any = model.config
    transformer: Any = model.transformer
    graph = Graph()
    layers, add = Layers(graph, weights), graph.add
    table = array(transformer.wte.weight)

    read = add("Concat", "prefix", weights.look_up(graph, table, "tokens", "vocabulary"), axis=1)
    places = add("Gather", graph.constant(array(transformer.wpe.weight), "places"), "positions")
    hidden = add("Add", read, places)
    bias = _attention_bias(graph)
    for number, block in enumerate(transformer.h):
        name = f"layers.{number}"
        made = layers.norm(hidden, block.ln_1, f"{name}.attention.norm")
        made = layers.matrix(made, *_scaled_inputs(block.attn.c_attn, config.n_head), f"{name}.attention.inputs")
        queries, keys, values = layers.heads(made, 3, config.n_head)
        keys = add("Concat", f"past_key_{number}", keys, axis=2, output=f"present_key_{number}")
        values = add("Concat", f"past_value_{number}", values, axis=2, output=f"present_value_{number}")
        mixed = layers.attention(queries, keys, values, bias)
        mixed = layers.matrix(mixed, *_parameters(block.attn.c_proj), f"{name}.attention.output")
        hidden = add("Add", hidden, mixed)

        made = layers.norm(hidden, block.ln_2, f"{name}.mlp.norm")
        made = layers.matrix(made, *_parameters(block.mlp.c_fc), f"{name}.mlp.widen")
        made = add("Gelu", made, approximate=GELU[config.activation_function])
        made = layers.matrix(made, *_parameters(block.mlp.c_proj), f"{name}.mlp.narrow")
        hidden = add("Add", hidden, made)
    last = add("Slice", hidden, add("Neg", "keep"), graph.integers(_ALL), graph.integers(1))
    last = layers.norm(last, transformer.ln_f, "norm")
    tied = model.lm_head.weight is transformer.wte.weight
    output = (table, "vocabulary") if tied else (array(model.lm_head.weight), "output")
    add("Identity", weights.compare(graph, output[0], last, output[1]), output="logits")

    cache = [f"{kind}_{number}" for number in range(config.n_layer) for kind in ("key", "value")]
    heads, width = config.n_head, config.n_embd // config.n_head
    inputs = [
        value("prefix", "float32", "batch", "prefix", config.n_embd),
        value("tokens", "int64", "batch", "tokens"),
        value("attention_mask", "int64", "batch", "read"),
        value("positions", "int64", "batch", "new"),
        value("keep", "int64", 1),
        *(value(f"past_{each}", "float32", "batch", heads, "past", width) for each in cache),
    ]
    present = [value(f"present_{each}", "float32", "batch", heads, "read", width) for each in cache]
    return graph.model(inputs, [value("logits", "float32", "batch", "kept", config.vocab_size), *present])


def _attention_bias(graph: Graph) -> str:
    """[batch, 1, new, read]: 0 at the positions that one may look at, itself and before it, lowest at all others."""
    add = graph.add
    zero, one = (graph.constant(np.array(value, np.int64)) for value in (0, 1))
    read, new = (add("Squeeze", add("Shape", of, start=1, end=2)) for of in ("attention_mask", "positions"))
    queries = add("Unsqueeze", add("Range", add("Sub", read, new), read, one), graph.integers(1))
    before = add("LessOrEqual", add("Range", zero, read, one), queries)
    real = graph.cast(add("Unsqueeze", "attention_mask", graph.integers(1, 2)), "bool")
    return add("Where", add("And", before, real), graph.number(0), graph.number(NEVER))


def _parameters(layer: Any) -> tuple[Floats, Floats]:  # noqa: ANN401
    """Weight [in, out] and bias of GPT-2's linear layer."""
    return array(layer.weight), array(layer.bias)


def _scaled_inputs(layer: Any, heads: int) -> tuple[Floats, Floats]:  # noqa: ANN401
    """The parameters that give queries, keys and values in one, the queries scaled."""
    weight, bias = _parameters(layer)
    width = len(weight)
    scale = np.ones(3 * width, np.float32)
    scale[:width] = query_scale(width, heads)
    return weight * scale, bias * scale


def _check(model: PreTrainedModel) -> None:
    config = model.config
    if not (
        isinstance(model, GPT2LMHeadModel)
        and isinstance(config, GPT2Config)
        and config.activation_function in GELU
        and config.scale_attn_weights
        and not config.scale_attn_by_inverse_layer_idx
    ):
        raise NoExportError(
            f"config.json: language_model: {type(model).__name__} with these settings has no ONNX export, only GPT-2"
            " has; run the model with the torch engine"
        )
