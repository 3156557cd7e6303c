"""Data sets: photos with their Russian captions and questions, as jsonl files, one photo a line.

This layer knows the files' form and names photos by their paths; it knows nothing of pixels, tokens or models.
"""
