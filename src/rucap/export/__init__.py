"""Trained torch weights to the ONNX graphs that captioning runs, in float32 and in int8, and how the two compare.

This layer knows networks, ONNX and the engine's interface; it knows nothing of training, and captioning nothing of it.
"""
