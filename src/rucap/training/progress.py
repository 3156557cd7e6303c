"""What a person sees of a training run: a line now and then with the loss and an honest time left."""

from __future__ import annotations

import sys
import time
from collections import deque
from datetime import timedelta
from typing import TextIO

LINE_SECONDS = 20.0
WINDOW = 200
"""Steps whose pace and loss are averaged."""


class Progress:
    """Writes lines to a stream (standard error unless another is given)."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr

    def say(self, text: str) -> None:
        """Writes one line with the time of day."""
        print(f"{time.strftime('%H:%M:%S')} {text}", file=self.stream, flush=True)

    def begin(self, stage: str, steps: int, step: int) -> None:
        """A stage of `steps` begins, or goes on, at `step`."""
        self.stage, self.steps = stage, steps
        self.times: deque[float] = deque([time.monotonic()], WINDOW)
        self.losses: deque[float] = deque(maxlen=WINDOW)
        self.shown = 0.0
        self.say(f"{stage}: {steps} steps" + (f", going on at {step}" if step else ""))

    def step(self, step: int, loss: float, rate: float) -> None:
        """A step is done. The time left is that of the last steps' pace, evaluations and checkpoints included."""
        now = time.monotonic()
        self.times.append(now)
        self.losses.append(loss)
        if now - self.shown > LINE_SECONDS:
            self.shown = now
            pace = (now - self.times[0]) / (len(self.times) - 1)
            left = timedelta(seconds=round(pace * (self.steps - step)))
            mean = sum(self.losses) / len(self.losses)
            self.say(f"{self.stage} {step}/{self.steps} loss {mean:.3f} rate {rate:.1e} {pace:.2f} s/step left {left}")

    def evaluated(self, step: int, scores: dict[str, float]) -> None:
        """An evaluation is done."""
        self.say(f"{self.stage} {step} dev " + " ".join(f"{name} {value:.3f}" for name, value in scores.items()))
