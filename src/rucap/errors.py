"""What can go wrong, by whose fault: each message is one line that names the thing and the remedy.

This module knows nothing of how errors are shown; the faces (command line, service) print them.
"""


class RucapError(Exception):
    """The root of every error that rucap raises on purpose."""


class ImageError(RucapError):
    """Something given as a photo cannot become pixels: missing, broken, too large, not an image."""


class ModelError(RucapError):
    """A model folder, name or file is missing, incomplete or not what it claims to be."""


class NoExportError(ModelError):
    """A model that has no ONNX graphs, for its kind or its settings; the torch engine runs it."""


class DataError(RucapError):
    """A data set's file or line is not of the documented form."""


class QuestionError(RucapError):
    """A question that the model cannot take: empty, too long, not in its language."""


class OptionError(RucapError):
    """An option's value, or a combination of options, that has no meaning."""
