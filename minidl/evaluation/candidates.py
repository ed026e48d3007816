"""Which networks are evaluated: checkpoints of runs, or weights for a named architecture."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .. import data, models
from ..data import Split
from ..data.sources import PREPROCESS_PREFIX
from ..errors import CheckpointError, DataError, MinidlError
from ..models.pretrained import load_weights
from ..nn import Module
from ..training import Settings, default_settings, load_checkpoint


@dataclass(frozen=True)
class Candidate:
    """A network to be evaluated: the file with its weights, and what it was trained for.

    `arrays` are what the run's preprocessing measured, by their names in its checkpoint.
    """

    path: Path
    settings: Settings
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)

    @classmethod
    def of_run(cls, path: Path, data: str | None = None) -> "Candidate":
        """A checkpoint, or a run folder's `best.safetensors`, failing that its `last.safetensors`.

        `data` is taken instead of the run's own data.

        Raises:
            CheckpointError: there is none, or it is damaged.
        """
        best = path / "best.safetensors"
        checkpoint = load_checkpoint(best if best.is_file() else path)
        try:
            settings = Settings.from_plain(checkpoint.state.get("settings"))
        except ValueError as error:
            raise CheckpointError(f"{checkpoint.path}: damaged settings ({error})") from error
        arrays = {n: a for n, a in checkpoint.tensors.items() if n.startswith(PREPROCESS_PREFIX)}
        return cls(checkpoint.path, settings.changed(data=data), arrays)

    @classmethod
    def of_weights(
        cls, path: Path, arch: str, image_size: int | None = None, data: str | None = None
    ) -> "Candidate":
        """A file of weights that `md.load` reads; with an output for each class of the data.

        Raises:
            MinidlError: there is no such architecture, or it is only a part of one.
        """
        models.check_name(arch)
        if arch not in models.list_classifiers():
            raise MinidlError(f"{arch}: a part of a network, without classes to tell apart")
        return cls(path, default_settings(arch).changed(image_size=image_size, data=data))

    def open(self, device: str = "cpu") -> tuple[Module, Split]:
        """The network on `device`, and the test images as it takes them.

        Raises:
            DataError: the data cannot be opened, or have more classes than the network.
            CheckpointError: the weights cannot be read or do not fit.
        """
        settings = self.settings
        splits = data.load(
            settings.data,
            settings.image_size,
            settings.in_channels,
            min_image_size=models.min_image_size(settings.arch),
            own_image_size=models.own_image_size(settings.arch),
        )
        try:
            splits = splits.prepared("none", settings.preprocess, self.arrays)
        except ValueError as error:
            raise CheckpointError(f"{self.path}: {error}") from error
        outputs = settings.num_classes or len(splits.classes)
        if outputs < len(splits.classes):
            raise DataError(
                f"{settings.data} has {len(splits.classes)} classes, {self.path} only {outputs}"
            )
        model = models.create(settings.arch, outputs, settings.in_channels, splits.image_size)
        load_weights(model, self.path)
        return model.to(device=device), splits.val
