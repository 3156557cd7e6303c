"""What decoding itself costs, by the step, with an engine that takes no time.

Processor time of one thread, so that other work on the machine does not count.

python benchmarks/decoding.py
"""

from __future__ import annotations

import statistics
import time

import numpy as np

from rucap.decoding import GenerationSettings, generate
from rucap.engines.protocol import Booleans, Floats, Integers

STEPS, REPEATS = 40, 7


class Recording:
    """Engine that plays back logits made beforehand. A sequence goes on to the limit: its end token is unlikely."""

    def __init__(self, rows: int, vocabulary: int) -> None:
        generator = np.random.default_rng(0)
        self.logits = generator.normal(scale=2, size=(8, rows, vocabulary)).astype(np.float32)
        self.logits[:, :, 0] = -30
        self.steps = 0

    def start(self, prefix: Floats, tokens: Integers, mask: Booleans) -> tuple[Floats, int]:
        return self.logits[0, : len(prefix)], 0

    def step(self, tokens: Integers, state: int) -> tuple[Floats, int]:
        self.steps += 1
        return self.logits[self.steps % len(self.logits), : len(tokens)], state

    def select(self, state: int, rows: Integers) -> int:
        return state


def milliseconds_per_step(photos: int, vocabulary: int, settings: GenerationSettings) -> float:
    engine = Recording(photos * max(settings.beams, settings.hypotheses), vocabulary)
    prefix, empty = np.zeros((photos, 1, 1), np.float32), np.zeros((photos, 0), np.int64)
    times = []
    for _ in range(REPEATS):
        begin = time.process_time()
        generate(engine, prefix, empty, empty > 0, settings)
        times.append((time.process_time() - begin) / STEPS)
    return 1000 * statistics.median(times)


def main() -> None:
    print("| photos | vocabulary | decoding | ms a step |\n|---:|---:|---|---:|")
    for vocabulary in (8_000, 50_264):
        starts = np.arange(vocabulary) % 2 == 0
        modes = {
            "greedy": {},
            "3 beams": {"beams": 3},
            "3 beams, every constraint": {
                "beams": 3,
                "no_repeat_ngram": 3,
                "banned": tuple((word, word + 1) for word in range(1, 200)),
                "suppressed": tuple(range(1, 10)),
                "word_starts": starts,
                "min_words": 3,
                "max_words": 10,
            },
            "sampling": {"sample": True},
            "sampling, top-k 50, top-p 0.9": {"sample": True, "top_k": 50, "top_p": 0.9},
        }
        for name, options in modes.items():
            settings = GenerationSettings(end_tokens=(0,), max_tokens=STEPS, **options)
            for photos in (1, 16):
                print(
                    f"| {photos} | {vocabulary} | {name} | {milliseconds_per_step(photos, vocabulary, settings):.3f} |"
                )


if __name__ == "__main__":
    main()
