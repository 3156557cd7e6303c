"""A model folder to a repository of the Hugging Face hub, with a model card that says what was measured and no more.

This layer knows model folders and the hub; it knows nothing of networks, training or how captions are written.
"""

from rucap.publishing.push import push, write_upload

__all__ = ["push", "write_upload"]
