"""Evaluation: protocols of the papers, ensembles, scores, and features of a layer."""

from .candidates import Candidate
from .dense import FullyConvolutional, fully_convolutional
from .ensemble import Judgement, judge
from .features import extract, find_layer, save_features
from .metrics import Scores, confusion_matrix, top_k
from .predict import predict
from .protocols import PROTOCOLS, Protocol

__all__ = [
    "PROTOCOLS",
    "Candidate",
    "FullyConvolutional",
    "Judgement",
    "Protocol",
    "Scores",
    "confusion_matrix",
    "extract",
    "find_layer",
    "fully_convolutional",
    "judge",
    "predict",
    "save_features",
    "top_k",
]
