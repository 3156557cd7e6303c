"""What decoding returns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Hypothesis:
    """A written sequence with what the model itself thinks of it, constraints and temperature left out."""

    tokens: tuple[int, ...]
    """Without the end token."""
    log_probability: float
    """Of the whole sequence, natural logarithm, the end token included if it was reached."""
    token_log_probabilities: tuple[float, ...]
    """Of each token, then of the end token if it was reached."""
    finished: bool
    """It reached an end token or a stop, and was not cut off."""

    def score(self, length_penalty: float) -> float:
        """What hypotheses are ranked by: log-probability / length ** length_penalty, the end token counted."""
        return self.log_probability / float(len(self.token_log_probabilities) ** length_penalty)
