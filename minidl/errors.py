"""Errors whose message is meant for the person at the keyboard.

The command line turns every :class:`MinidlError` into one line on standard error and exit code 2.
Mistakes in calling Python functions stay ``ValueError`` and ``TypeError``.
"""


class MinidlError(Exception):
    """Something outside the program is wrong: a file, a folder, an option.

    >>> issubclass(DataError, MinidlError) and issubclass(CheckpointError, MinidlError)
    True
    """


class DataError(MinidlError):
    """A data set is missing, damaged or not what its format promises; the text names the file."""


class ImageError(DataError):
    """One image of a data set cannot be decoded: the others may well be in order."""


class CheckpointError(MinidlError):
    """A checkpoint is missing, damaged or does not fit; the text names the file."""


class DivergedError(MinidlError):
    """A run's loss is no longer finite; the text names the step."""
