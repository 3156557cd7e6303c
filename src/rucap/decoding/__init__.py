"""Decoding chooses the tokens: greedy, beam search and sampling, under constraints, over any `Engine`.

It knows token ids and logits only: nothing of text, photos, models' files or the library that computes the logits.
"""

from rucap.decoding.generate import generate
from rucap.decoding.hypothesis import Hypothesis
from rucap.decoding.settings import GenerationSettings

__all__ = ["GenerationSettings", "Hypothesis", "generate"]
