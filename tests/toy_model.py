"""A model for tests of what stands above engines: a folder of real small files, and an engine of a few numpy lines."""

import numpy as np
from tokenizers import Tokenizer as RawTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from rucap.engines.protocol import Encoded
from rucap.model.config import (
    Calibration,
    EncoderConfig,
    GenerationDefaults,
    HintsConfig,
    LanguageModelConfig,
    MapperConfig,
    ModelConfig,
    Preprocessing,
    PromptsConfig,
    write_config,
)

PROMPTS = ["<caption>", "<short>", "<normal>", "<detailed>", "<question>", "<answer>"]
SPECIAL = ["<pad>", "<unknown>", "<end>", "<hints>", *PROMPTS]
WORDS = "собака кошка бежит спит сидит траву диван большая рыжая человек дом лес мяч где что это"
WHOLE = {"▁" + word for word in WORDS.split()}
"""The toy model writes these words alone."""
LABELS = "корги\tсобака\nтабби\tкошка\nдиван\t\n"
SIZE, PREFIX, WIDTH = 8, 3, 16


def words_tokenizer() -> RawTokenizer:
    """Whole words of WORDS, and letters."""
    tokenizer = RawTokenizer(models.BPE(unk_token="<unknown>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator([WORDS, "абвгдеёжзийклмнопрстуфхцчшщъыьэюя"] * 10, trainer)
    return tokenizer


def write_folder(path, **changes):
    """Writes config.json, tokenizer.json and the labels of a toy model; no weights."""
    tokenizer = words_tokenizer()
    written = set(tokenizer.get_vocab())
    path.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "labels.tsv").write_text(LABELS, encoding="utf-8")
    fields = {
        "name": "toy",
        "language": "ru",
        "encoder": EncoderConfig("clip", 1, WIDTH, Preprocessing(SIZE, "squash", "bilinear", (0.5,) * 3, (0.5,) * 3)),
        "mapper": MapperConfig("mlp", PREFIX, 1),
        "language_model": LanguageModelConfig("gpt2", WIDTH, 1, 1, tokenizer.get_vocab_size(), 64),
        "prompts": PromptsConfig(
            "<caption>",
            "<question>{question}<answer>",
            "<hints>{hints}",
            {level: f"<{level}>" for level in ("short", "normal", "detailed")},
        ),
        "generation": GenerationDefaults(
            beams=2, max_tokens=12, no_repeat_ngram=1, suppressed_tokens=tuple(written - {"<end>"} - WHOLE)
        ),
        "hints": HintsConfig("labels.tsv", 2),
        "caption_calibration": Calibration(2.0, 1.0),
        "answer_calibration": None,
    }
    write_config(ModelConfig(**fields | changes), path / "config.json")
    return path


class ToyEngine:
    """Random weights; the next token depends on the prefix and on all tokens before, the nearest most."""

    def __init__(self, vocabulary: int, seed: int = 0, labels: int | None = 3) -> None:
        random = np.random.default_rng(seed)
        self.pixels = random.normal(size=(3 * SIZE * SIZE, PREFIX * WIDTH)).astype(np.float32) / SIZE
        self.embeddings = random.normal(size=(vocabulary, WIDTH)).astype(np.float32)
        self.output = random.normal(size=(WIDTH, vocabulary)).astype(np.float32)
        self.labels = labels
        self.encoded = 0

    def encode(self, pixels):
        self.encoded += len(pixels)
        means = pixels.mean(axis=(2, 3))
        mixed = _product(pixels.reshape(len(pixels), -1), self.pixels)
        prefix = np.tanh(mixed).reshape(len(pixels), PREFIX, WIDTH)
        return Encoded(prefix, means[:, : self.labels] if self.labels else None)

    def start(self, prefix, tokens, mask):
        hidden = np.stack([self._read(one, row[kept]) for one, row, kept in zip(prefix, tokens, mask, strict=True)])
        return self._logits(hidden), hidden

    def step(self, tokens, state):
        state = 0.7 * state + self.embeddings[tokens]
        return self._logits(state), state

    def select(self, state, rows):
        return state[rows]

    def score(self, prefix, tokens, mask):
        raise NotImplementedError

    def _read(self, prefix, tokens):
        hidden = prefix.sum(axis=0)
        for token in tokens:
            hidden = 0.7 * hidden + self.embeddings[token]
        return hidden

    def _logits(self, hidden):
        return _product(np.tanh(hidden), self.output)


def _product(rows, matrix):
    """`rows @ matrix`, with results that do not depend on how many rows there are."""
    return np.stack([row @ matrix for row in rows]) if len(rows) else rows @ matrix
