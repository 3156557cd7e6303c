"""The model's parts as torch modules: vision encoders, mapping networks, the captioner made of them.

This layer knows tensors and weights; it knows nothing of text, files of photos, training or how tokens are chosen.
"""
