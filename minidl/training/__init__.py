"""Training: recipes, the loop, checkpoints, and the folder of a run."""

from minidl.training.checkpoint import load_checkpoint, save_checkpoint
from minidl.training.recipes import Settings, default_settings
from minidl.training.run_folder import RunFolder
from minidl.training.trainer import Interrupted, Trainer

__all__ = [
    "Interrupted",
    "RunFolder",
    "Settings",
    "Trainer",
    "default_settings",
    "load_checkpoint",
    "save_checkpoint",
]
