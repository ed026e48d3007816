"""Data sets: :func:`load` opens one, :class:`DataLoader` hands out its batches.

NumPy arrays in, NumPy arrays out: this package knows nothing of tensors.
"""

from .augment import Augmentation
from .loader import DataLoader
from .preprocess import PREPROCESSINGS, Preprocessing
from .sources import DEFAULT_DATA, SOURCES, DataSplits, load
from .splits import ArraySplit, FolderSplit, Split

__all__ = [
    "DEFAULT_DATA",
    "PREPROCESSINGS",
    "SOURCES",
    "ArraySplit",
    "Augmentation",
    "DataLoader",
    "DataSplits",
    "FolderSplit",
    "Preprocessing",
    "Split",
    "load",
]
