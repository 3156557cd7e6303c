"""The workshop where captioners are trained: features cached once, packed sequences, likelihood and reward stages.

This layer knows torch, data sets and how a network learns; nothing that describes photos for a user imports it.
"""
