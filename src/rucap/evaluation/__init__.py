"""Evaluation: how good captions and answers are, beside simple baselines and a person, as numbers, tables and a page.

This layer knows texts, references and callables that write captions; it knows nothing of how a model makes them.
"""
