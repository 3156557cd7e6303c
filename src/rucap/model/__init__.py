"""A model as data: its configuration, tokenizer, text rules and files.

This layer knows what a model folder holds and how text becomes tokens; it knows nothing of pixels, engines or training.
"""
