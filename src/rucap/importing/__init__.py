"""Captioners of others, as their authors published them, to model folders of this package.

This layer knows ClipCap's checkpoints and the folders of transformers; captioning knows nothing of it.
"""

from rucap.importing.graphs import write_graphs
from rucap.importing.run import import_checkpoint

__all__ = ["import_checkpoint", "write_graphs"]
