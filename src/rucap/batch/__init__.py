"""Many photos at once: their names one by one, work a batch ahead, rows written as they come, stopped runs resumed.

This layer knows files, folders, JSON lines and CSV. It knows nothing of models, nor who shows its rows to whom.
"""
