"""Engines run a model's two halves: photos to a prefix, and a prefix with tokens to the next token's logits.

An engine knows numbers only: nothing of text, files of photos or how a next token is chosen.
"""
