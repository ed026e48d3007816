"""Training: recipes, the loop, checkpoints, and the folder of a run."""

from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from .recipes import default_settings
from .run_folder import RunFolder
from .settings import Settings
from .stopping import Interrupted
from .trainer import Trainer

__all__ = [
    "Checkpoint",
    "Interrupted",
    "RunFolder",
    "Settings",
    "Trainer",
    "default_settings",
    "load_checkpoint",
    "save_checkpoint",
]
