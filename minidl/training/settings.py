"""Every option of a training run, declared once: what it is called, may be, and means."""

from dataclasses import MISSING, dataclass, replace
from typing import Any

from ..data import DEFAULT_DATA
from ..precision import PRECISIONS
from .options import checked, option, options_of

OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop")
SCHEDULES = ("constant", "step", "multistep", "exponential", "polynomial", "cosine", "plateau")
# More would overflow the stack of OpenMP's first thread, which ends the process without a word.
MAX_THREADS = 1024

WHAT = "what to train"
HOW = "how to train (defaults depend on the architecture and the recipe)"
WHERE = "where"


@dataclass(frozen=True)
class Settings:
    """Everything that decides a run's result, plus the number of threads, which does not.

    `image_size` and `num_classes` are None until the data set has been opened.

    Raises:
        ValueError: a value is out of range, or not of the option's type.

    >>> Settings("vgg16", epochs=2).lr
    0.0003
    >>> Settings("vgg16", epochs=0)
    Traceback (most recent call last):
    ...
    ValueError: epochs: expected a whole number >= 1, got 0
    """

    arch: str = option(MISSING, WHAT, "architecture, e.g. vgg16 (see --list-archs)", metavar="ARCH")
    data: str = option(
        DEFAULT_DATA,
        WHAT,
        "fashion-mnist-small (default, embedded), fashion-mnist[:DIR], mnist:DIR, cifar10:DIR, "
        "cifar100:DIR or folder:DIR (train/ and val/, a folder per class)",
        metavar="DATA",
    )
    image_size: int | None = option(None, WHAT, "side of the images, in pixels", minimum=1)
    num_classes: int | None = option(
        None, WHAT, "outputs (default: as many as in the data)", minimum=1
    )
    in_channels: int = option(3, WHAT, "of the images: grey or colour", choices=(1, 3))
    limit: int | None = option(None, WHAT, "use only this many images of each split", minimum=1)

    epochs: int = option(6, HOW, "passes over the training images", minimum=1)
    batch_size: int = option(64, HOW, "images a step", minimum=1)
    optimizer: str = option("adam", HOW, "how gradients move the weights", choices=OPTIMIZERS)
    lr: float = option(3e-4, HOW, "highest rate of the schedule", above=0)
    schedule: str = option(
        "cosine", HOW, "learning rate after a linear warm-up over 5% of the steps",
        choices=SCHEDULES,
    )  # fmt: skip
    momentum: float = option(0.9, HOW, "of sgd and rmsprop", minimum=0)
    weight_decay: float = option(0.0, HOW, "pull towards zero", minimum=0)
    seed: int = option(0, HOW, "same seed, same bits", minimum=0)

    device: str = option("cpu", WHERE, "cpu (default) or cuda[:N]")
    amp: str = option(
        "off",
        WHERE,
        "mixed precision on a GPU, fp16 with scaled losses; weights stay float32",
        choices=("off", *PRECISIONS),
        metavar="TYPE",
    )
    threads: int | None = option(
        None, WHERE, "of the CPU kernels; results do not change", minimum=1, maximum=MAX_THREADS
    )

    def __post_init__(self) -> None:
        for name, one in options_of(type(self)).items():
            try:
                object.__setattr__(self, name, checked(one, getattr(self, name)))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error

    def changed(self, **given: Any) -> "Settings":
        """A copy with the options that are given (not None)."""
        return replace(self, **{name: value for name, value in given.items() if value is not None})

    @classmethod
    def from_plain(cls, values: Any) -> "Settings":
        """Settings from what `dataclasses.asdict` and JSON made of them.

        Raises:
            ValueError: an option is missing, unknown or wrong.
        """
        if not isinstance(values, dict):
            raise ValueError(f"expected the options of a run, got {values!r}")
        unknown = sorted(values.keys() - options_of(cls).keys())
        if unknown:
            raise ValueError(f"options that this version does not know: {', '.join(unknown)}")
        if "arch" not in values:
            raise ValueError("arch is missing")
        return cls(**values)
