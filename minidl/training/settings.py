"""Every option of a training run, declared once: what it is called, may be, and means."""

from dataclasses import MISSING, dataclass, replace
from typing import Any

from ..data import DEFAULT_DATA, PREPROCESSINGS, Augmentation
from ..precision import PRECISIONS
from .initialisation import OWN, parse_init
from .options import checked, option, options_of
from .transfer_learning import parse_rates

RECIPES = ("tiny", "cifar", "paper")
OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop")
SCHEDULES = ("constant", "step", "multistep", "exponential", "polynomial", "cosine", "plateau")
# Options that only some optimisers or schedules know.
BELONGING: dict[str, tuple[str, tuple[str, ...]]] = {
    "momentum": ("optimizer", ("sgd", "rmsprop")),
    "nesterov": ("optimizer", ("sgd",)),
    "alpha": ("optimizer", ("rmsprop",)),
    "eps": ("optimizer", ("adam", "adamw", "rmsprop")),
    "milestones": ("schedule", ("multistep",)),
    "step_size": ("schedule", ("step",)),
    "gamma": ("schedule", ("step", "multistep", "exponential", "plateau")),
    "power": ("schedule", ("polynomial",)),
    "patience": ("schedule", ("plateau",)),
    "min_lr": ("schedule", ("cosine", "plateau")),
    "warmup": ("schedule", tuple(name for name in SCHEDULES if name != "plateau")),
    "warmup_from": ("schedule", tuple(name for name in SCHEDULES if name != "plateau")),
    "warmup_to": ("schedule", tuple(name for name in SCHEDULES if name != "plateau")),
}
# More would overflow the stack of OpenMP's first thread, which ends the process without a word.
MAX_THREADS = 1024
MAX_EPOCHS = 1_000_000

WHAT = "what to train"
HOW = "how to train (defaults depend on the architecture and the recipe)"
IMAGES = "images"
WHERE = "where"


def _below_one(values: tuple[float, ...]) -> None:
    if not values or max(values) >= 1:
        raise ValueError(f"expected factors below 1, got {', '.join(map(str, values)) or 'none'}")


def _rising(values: tuple[float, ...]) -> None:
    if list(values) != sorted(set(values)):
        raise ValueError(f"expected rising numbers, got {', '.join(map(str, values))}")


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
    recipe: str = option(
        "tiny",
        WHAT,
        "defaults of the others: for the embedded images, for CIFAR and Fashion-MNIST, "
        "or as the architecture's paper has them",
        choices=RECIPES,
    )
    data: str = option(
        DEFAULT_DATA,
        WHAT,
        "fashion-mnist-small (default, embedded), fashion-mnist[:DIR], mnist:DIR, cifar10:DIR, "
        "cifar100:DIR or folder:DIR (train/ and val/, a folder per class)",
        metavar="DATA",
    )
    image_size: int | None = option(
        None,
        WHAT,
        "side of the images (of folders by default the network's own)",
        minimum=1,
    )
    num_classes: int | None = option(
        None, WHAT, "outputs (default: as many as in the data)", minimum=1
    )
    in_channels: int = option(3, WHAT, "of the images: grey or colour", choices=(1, 3))
    limit: int | None = option(None, WHAT, "use only this many images of each split", minimum=1)
    weights: str | None = option(
        None, WHAT, "file of weights to begin with, or the folder of a run", metavar="FILE"
    )
    replace_head: bool = option(
        False, WHAT, "with --weights: begin with a new last layer, for other classes"
    )
    freeze: tuple[str, ...] = option(
        (), WHAT, "layers that stay as they are: names or patterns, e.g. features.*",
        metavar="PATTERN,...",
    )  # fmt: skip

    epochs: int = option(6, HOW, "passes over the training images", minimum=1)
    batch_size: int = option(64, HOW, "images a step", minimum=1)
    accumulate: int = option(
        1, HOW, "parts that a batch is computed in, to save memory; the step is the same", minimum=1
    )
    optimizer: str = option("adam", HOW, "how gradients move the weights", choices=OPTIMIZERS)
    lr: float = option(3e-4, HOW, "highest rate of the schedule", above=0)
    momentum: float = option(0.9, HOW, "of sgd and rmsprop", minimum=0)
    nesterov: bool = option(False, HOW, "sgd: look ahead along the momentum")
    weight_decay: float = option(0.0, HOW, "pull towards zero", minimum=0)
    alpha: float = option(0.99, HOW, "rmsprop: decay of the mean square", minimum=0, maximum=0.9999)
    eps: float = option(1e-8, HOW, "adam, adamw, rmsprop: added to the divisor", above=0)
    schedule: str = option("cosine", HOW, "how the rate changes", choices=SCHEDULES)
    warmup: float | None = option(
        None,
        HOW,
        "epochs of the warm-up (default: 5% of the run; plateau has none)",
        minimum=0,
        maximum=MAX_EPOCHS,
    )
    warmup_from: float = option(
        1 / 3, HOW, "part of --lr that the warm-up starts from", above=0, maximum=1
    )
    warmup_to: float = option(1.0, HOW, "part of --lr that it ends with", above=0, maximum=1)
    milestones: tuple[float, ...] | None = option(
        None,
        HOW,
        "multistep: epochs after which the rate falls (default: 50% and 75% of the run)",
        metavar="X,...",
        above=0,
        maximum=MAX_EPOCHS,
        check=_rising,
    )
    step_size: float | None = option(
        None,
        HOW,
        "step: epochs between two falls (default: a third of the run)",
        above=0,
        maximum=MAX_EPOCHS,
    )
    gamma: tuple[float, ...] | None = option(
        None,
        HOW,
        "factor of a fall (default: 0.1), of multistep perhaps one each; exponential: an epoch "
        "(default: ends at 1%)",
        metavar="X,...",
        above=0,
        check=_below_one,
    )
    power: float = option(1.0, HOW, "polynomial: exponent", above=0)
    patience: int = option(
        2, HOW, "plateau: epochs without a lower test loss that it bears", minimum=0
    )
    min_lr: float = option(0.0, HOW, "cosine, plateau: lowest rate", minimum=0)
    init: str = option(
        OWN,
        HOW,
        "fresh weights: model (its own), he_normal, glorot_uniform, normal:0.01, ..., and "
        "PATTERN=SCHEME for some parameters, with commas between them",
        metavar="SCHEME",
        check=parse_init,
    )
    dropout: float | None = option(
        None, HOW, "probability (default: the network's own)", minimum=0, maximum=1
    )
    lr_scale: tuple[str, ...] = option(
        (), HOW, "factors of the learning rate by layer, e.g. features.*=0.1,classifier=2",
        metavar="PATTERN=X,...", check=parse_rates,
    )  # fmt: skip
    label_smoothing: float = option(
        0.0, HOW, "part of the probability that is asked for from all classes", minimum=0, maximum=1
    )
    clip_norm: float | None = option(
        None, HOW, "largest norm of all gradients together; longer ones are scaled", above=0
    )
    average: float | None = option(
        None,
        HOW,
        "decay, say 0.999, of a moving average of the weights: evaluated, and kept as the best",
        above=0,
        maximum=0.999999,
    )
    aux_weight: float = option(0.3, HOW, "of the auxiliary heads' losses", minimum=0)
    early_stop: int | None = option(
        None, HOW, "end after so many epochs without a better test accuracy", minimum=1
    )
    seed: int = option(0, HOW, "same seed, same bits", minimum=0)

    augment: str | None = option(
        None,
        IMAGES,
        "of flip, crop, pad-crop:4[:reflect], scale:256:480, resized-crop:0.08:1, colour:0.4, "
        "pca-colour:0.1, with commas between them, or none (default: flip, of files crop,flip)",
        metavar="LIST",
        check=Augmentation.parse,
    )
    preprocess: str = option(
        "standardise",
        IMAGES,
        "from pixels to inputs, measured on the training set",
        choices=PREPROCESSINGS,
    )
    workers: int | None = option(
        None,
        IMAGES,
        "threads that read images (default: as many as processors, 16 at most); results do not "
        "change",
        minimum=1,
        maximum=MAX_THREADS,
    )
    on_bad_image: str = option(
        "fail",
        IMAGES,
        "stop at a file that cannot be decoded, or skip it: training shows its successor instead",
        choices=("fail", "skip"),
    )

    device: str = option("cpu", WHERE, "cpu (default) or cuda[:N]")
    amp: str = option(
        "off",
        WHERE,
        "mixed precision on a GPU, fp16 with scaled losses; weights stay float32",
        choices=("off", *PRECISIONS),
        metavar="TYPE",
    )
    tensorboard: bool = option(False, WHERE, "write events for TensorBoard too")
    threads: int | None = option(
        None, WHERE, "of the CPU kernels; results do not change", minimum=1, maximum=MAX_THREADS
    )

    keep: int = option(
        0, WHERE, "checkpoints to keep of the last epochs, besides last and best", minimum=0
    )
    save_every: float = option(15.0, WHERE, "minutes between checkpoints within an epoch", above=0)
    on_nan: str = option(
        "stop",
        WHERE,
        "what to do where a loss or gradient is not finite: end, or leave that step out",
        choices=("stop", "skip"),
    )

    def __post_init__(self) -> None:
        for name, one in options_of(type(self)).items():
            try:
                object.__setattr__(self, name, checked(one, getattr(self, name)))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
        if self.nesterov and self.optimizer == "sgd" and self.momentum == 0:
            raise ValueError("nesterov: needs a momentum > 0")
        if self.schedule == "multistep" and self.gamma and len(self.gamma) > 1:
            falls = 2 if self.milestones is None else len(self.milestones)
            if len(self.gamma) != falls:
                raise ValueError(
                    f"gamma: expected one factor, or {falls} as there are milestones, "
                    f"got {len(self.gamma)}"
                )
        elif self.gamma and len(self.gamma) > 1:
            raise ValueError(
                f"gamma: expected one factor for {self.schedule}, got {len(self.gamma)}"
            )

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
