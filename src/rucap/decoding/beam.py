"""Beam search, step for step the one of transformers' `generate`, so that the two write the same."""

from __future__ import annotations

import numpy as np

from rucap.decoding.constraints import Constraints
from rucap.decoding.endings import are_finished, close
from rucap.decoding.hypothesis import Hypothesis
from rucap.decoding.probabilities import log_softmax, top
from rucap.decoding.settings import GenerationSettings
from rucap.engines.protocol import Engine, Floats, State


class Finished:
    """The best finished hypotheses of one photo, `beams` at most, best first."""

    def __init__(self, beams: int) -> None:
        self.beams = beams
        self.ranked: list[tuple[float, Hypothesis]] = []

    def add(self, score: float, hypothesis: Hypothesis) -> None:
        """Keeps it if it is among the best."""
        self.ranked.append((score, hypothesis))
        self.ranked.sort(key=lambda pair: -pair[0])
        del self.ranked[self.beams :]

    def worst(self) -> float:
        """The score to beat: -inf while there is room."""
        return self.ranked[-1][0] if len(self.ranked) == self.beams else -np.inf


def search(engine: Engine, logits: Floats, state: State, settings: GenerationSettings) -> list[list[Hypothesis]]:
    """The best `settings.hypotheses` for each photo, best first; fewer where the constraints let fewer be written.

    `logits` [photos, vocabulary] and `state` are what `engine.start` gave.
    """
    constraints = Constraints(settings, logits.shape[1])
    beams = settings.beams
    # Each beam may end in every end token, and as many as `beams` others must be left to go on.
    candidates = beams * (1 + len(constraints.ends))
    results = [Finished(beams) for _ in logits]

    photos = np.arange(len(logits))
    running = np.zeros((len(logits), 1), np.float32)
    histories = np.empty((len(logits), 1, 0), np.int64)
    chosen = np.empty((len(logits), 1, 0), np.float32)
    for length in range(1, settings.max_tokens + 1):
        count, width = running.shape
        log_probabilities = log_softmax(logits)
        constraints.forbid(log_probabilities, histories.reshape(count * width, length - 1))
        of_beams, tokens_of_beams = top(log_probabilities, candidates)
        of_beams, tokens_of_beams = of_beams.reshape(count, -1), tokens_of_beams.reshape(count, -1)
        branches = of_beams.shape[1] // width
        totals, places = top(of_beams + np.repeat(running, branches, axis=1), candidates)

        parents = places // branches
        rows = np.arange(count)[:, None]
        histories = np.concatenate([histories[rows, parents], tokens_of_beams[rows, places][:, :, None]], axis=2)
        chosen = np.concatenate([chosen[rows, parents], of_beams[rows, places][:, :, None]], axis=2)
        finished = are_finished(histories.reshape(-1, length), settings).reshape(totals.shape)
        at_limit = length == settings.max_tokens

        # Only the best `beams` may finish: the candidates below them stand in for those that do.
        scores = totals / float(length**settings.length_penalty)
        closing = (finished | at_limit)[:, :beams] & (totals[:, :beams] > -np.inf)
        for photo, column in np.argwhere(closing):
            hypothesis = close(histories[photo, column], chosen[photo, column], finished[photo, column], settings)
            results[photos[photo]].add(float(scores[photo, column]), hypothesis)
        if at_limit:
            break

        going_on = np.argsort(finished, axis=1, kind="stable")[:, :beams]
        running = np.where(finished, -np.inf, totals)[rows, going_on]
        alive = (running > -np.inf).sum(axis=1)
        worst = np.array([results[photo].worst() for photo in photos])
        improvable = scores[rows, going_on][:, 0] > worst
        if settings.early_stopping:
            improvable = worst == -np.inf
        kept = np.flatnonzero((alive > 0) & improvable)
        if len(kept) == 0:
            break
        going_on = going_on[kept, : alive[kept].max()]
        running = running[kept, : going_on.shape[1]]
        photos, rows = photos[kept], kept[:, None]
        histories, chosen = histories[rows, going_on], chosen[rows, going_on]
        sources = (rows * width + parents[rows, going_on]).ravel()
        if not np.array_equal(sources, np.arange(count * width)):
            state = engine.select(state, sources)
        logits, state = engine.step(histories[:, :, -1].ravel(), state)
    return [[hypothesis for _, hypothesis in result.ranked[: settings.hypotheses]] for result in results]
