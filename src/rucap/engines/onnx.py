"""The default engine: ONNX graphs run by onnxruntime, on a CPU or a CUDA device.

    encoder: pixels [B, 3, H, W] -> prefix [B, P, D], and label_logits [B, L] where the model takes hints,
             embedding [B, W] where it has a text tower
    text_tower: tokens [B, T] -> embeddings [B, W]
    decoder: prefix [B, P, D], tokens [B, T], attention_mask [B, S + P + T], positions [B, P + T], keep [1],
             past_key_{i}, past_value_{i} [B, heads, S, D / heads]
          -> logits [B, keep, V] of the last `keep` positions, present_key_{i}, present_value_{i} of S + P + T

The decoder is one graph for reading a prompt (S = 0), for writing (P = 0, T = 1) and for scoring (keep = T).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rucap.engines.cores import limited_cores
from rucap.engines.protocol import TEXTS, Booleans, Encoded, Floats, Integers, State
from rucap.errors import ModelError, OptionError

_DECODER_INPUTS = ("prefix", "tokens", "attention_mask", "positions", "keep")


@dataclass(frozen=True)
class Past:
    """What a batch of sequences has read so far."""

    cache: tuple[Floats, ...]
    """past_key_0, past_value_0, past_key_1, ...: [batch, heads, length, head width] each."""
    mask: Booleans
    """[batch, length]: False at padding."""


class OnnxEngine:
    """An `Engine` over two graphs, or three; each is loaded when it is first needed."""

    def __init__(
        self,
        encoder: Path,
        decoder: Path,
        *,
        text_tower: Path | None = None,
        threads: int | None = None,
        device: str = "cpu",
        spin: bool = True,
    ) -> None:
        """`text_tower`: None where the model has none. `threads` within an operation: None for one a core.

        `device`: `cpu`, `cuda` or `cuda:N`. `spin`: idle threads wait busily for the next operation, which is fastest
        where a process has the machine for itself; a server that shares its cores says False. Raises OptionError for a
        device that is not there.
        """
        if threads is not None and threads < 1:
            raise OptionError(f"threads {threads}: at least 1, or None for one a core")
        self._encoder_file, self._decoder_file, self._text_tower_file = encoder, decoder, text_tower
        self._threads, self._spin, self._providers = threads, spin, _providers(device)
        self._loading = threading.Lock()
        self._encoder: Any = None
        self._text_tower: Any = None
        self._decoder: _Decoder | None = None

    def encode(self, pixels: Floats) -> Encoded:
        """See `Engine.encode`."""
        with self._loading:
            if self._encoder is None:
                self._encoder = self._open(self._encoder_file)
            session = self._encoder
        names = [output.name for output in session.get_outputs()]
        found = dict(zip(names, session.run(names, {"pixels": pixels}), strict=True))
        return Encoded(found["prefix"], found.get("label_logits"), found.get("embedding"))

    def embed_texts(self, tokens: Integers) -> Floats | None:
        """See `Engine.embed_texts`."""
        if self._text_tower_file is None:
            return None
        with self._loading:
            if self._text_tower is None:
                self._text_tower = self._open(self._text_tower_file)
            session = self._text_tower
        batches = [tokens[start : start + TEXTS] for start in range(0, len(tokens), TEXTS)]
        return np.concatenate([session.run(["embeddings"], {"tokens": batch})[0] for batch in batches])

    def start(self, prefix: Floats, tokens: Integers, mask: Booleans) -> tuple[Floats, State]:
        """See `Engine.start`."""
        decoder = self._loaded_decoder()
        # A prompt of nothing but padding (among longer ones) is continued from the end of its prefix.
        keep = 1 if mask[:, -1:].all() else tokens.shape[1] + 1
        logits, state = decoder.run(prefix, tokens, mask, decoder.nothing_read(len(prefix)), keep)
        return np.where(mask.any(axis=1, keepdims=True), logits[:, -1], logits[:, 0]), state

    def step(self, tokens: Integers, state: State) -> tuple[Floats, State]:
        """See `Engine.step`."""
        decoder = self._loaded_decoder()
        prefix = np.zeros((len(tokens), 0, decoder.width), dtype=np.float32)
        logits, state = decoder.run(prefix, tokens[:, None], np.ones((len(tokens), 1), dtype=bool), state, keep=1)
        return logits[:, -1], state

    def select(self, state: State, rows: Integers) -> State:
        """See `Engine.select`."""
        return Past(tuple(tensor[rows] for tensor in state.cache), state.mask[rows])

    def score(self, prefix: Floats, tokens: Integers, mask: Booleans) -> Floats:
        """See `Engine.score`."""
        decoder = self._loaded_decoder()
        # With the padding moved last, each token follows the one that predicts it; the first follows the prefix.
        order = np.argsort(~mask, axis=1, kind="stable")
        tokens, mask = np.take_along_axis(tokens, order, 1)[:, :-1], np.take_along_axis(mask, order, 1)[:, :-1]
        logits, _ = decoder.run(prefix, tokens, mask, decoder.nothing_read(len(prefix)), keep=order.shape[1])
        return np.take_along_axis(logits, np.argsort(order, axis=1)[:, :, None], 1)

    def _loaded_decoder(self) -> _Decoder:
        with self._loading:
            if self._decoder is None:
                self._decoder = _Decoder(self._decoder_file, self._open(self._decoder_file))
            return self._decoder

    def _open(self, file: Path) -> Any:  # noqa: ANN401
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors alone: they come as exceptions
        options.intra_op_num_threads = self._threads or limited_cores() or 0  # 0: one a physical core
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # the patterns are of fixed shapes, and here each step is longer
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if self._spin else "0")
        try:
            return onnxruntime.InferenceSession(file, options, providers=self._providers)
        except Exception as error:  # the library raises its own, of no common class
            reason = str(error).splitlines()[0]
            raise ModelError(f"{file}: onnxruntime cannot load it: {reason}; export the model again") from None


class _Decoder:
    """The decoder's session and the sizes that its graph declares."""

    def __init__(self, file: Path, session: Any) -> None:  # noqa: ANN401
        self._session = session
        shapes = {given.name: given.shape for given in session.get_inputs()}
        self._past_names = [name for name in shapes if name.startswith("past_")]
        self._outputs = ["logits", *(name.replace("past_", "present_", 1) for name in self._past_names)]
        made = {output.name for output in session.get_outputs()}
        if not self._past_names or set(shapes) != {*_DECODER_INPUTS, *self._past_names} or made != set(self._outputs):
            raise ModelError(f"{file}: not a decoder as rucap exports it; export the model again")
        self.width = int(shapes["prefix"][2])
        _, self._heads, _, self._head_width = shapes[self._past_names[0]]

    def nothing_read(self, batch: int) -> Past:
        """The state before a prompt."""
        empty = np.zeros((batch, self._heads, 0, self._head_width), dtype=np.float32)
        return Past((empty,) * len(self._past_names), np.zeros((batch, 0), dtype=bool))

    def run(self, prefix: Floats, tokens: Integers, mask: Booleans, past: Past, keep: int) -> tuple[Floats, Past]:
        """Reads on from `past`; returns the logits of the last `keep` positions and the new state."""
        mask = np.concatenate([past.mask, np.ones(prefix.shape[:2], dtype=bool), mask], axis=1)
        read = prefix.shape[1] + tokens.shape[1]
        positions = np.maximum(np.cumsum(mask, axis=1, dtype=np.int64) - 1, 0)[:, mask.shape[1] - read :]
        feed = {
            "prefix": prefix,
            "tokens": tokens,
            "attention_mask": mask.astype(np.int64),
            "positions": positions,
            "keep": np.array([keep], dtype=np.int64),
            **dict(zip(self._past_names, past.cache, strict=True)),
        }
        logits, *cache = self._session.run(self._outputs, feed)
        return logits, Past(tuple(cache), mask)


def _providers(device: str) -> list[Any]:
    if device == "cpu":
        return ["CPUExecutionProvider"]
    kind, _, number = device.partition(":")
    if kind != "cuda" or not (number or "0").isdecimal():
        raise OptionError(f"device {device!r}: it is cpu, cuda or cuda:N")
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise OptionError(f"device {device!r}: this onnxruntime runs on CPUs alone; install onnxruntime-gpu instead")
    return [("CUDAExecutionProvider", {"device_id": int(number or 0)}), "CPUExecutionProvider"]
