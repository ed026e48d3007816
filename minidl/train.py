"""`python -m minidl.train --arch vgg16`: train a network, from a terminal.

Without further options it trains on the embedded images, evaluates after each epoch, and leaves
settings, metrics, checkpoints and curves in `runs/`. Exit status: 0 when the run is complete; 2 for
everything that ends it sooner, with one line on standard error that says what.
"""

import argparse
import os
import resource
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

import minidl as md
from minidl import data, installation, models
from minidl.device import to_device
from minidl.errors import CheckpointError, DataError, MinidlError
from minidl.nn import Module
from minidl.tensor import Tensor
from minidl.training import RunFolder, Settings, Trainer, default_settings, load_checkpoint
from minidl.training.progress import make_reporter
from minidl.training.recipes import OPTIMIZERS, SCHEDULES


class Parser(argparse.ArgumentParser):
    """Complains in one line."""

    def error(self, message: str) -> NoReturn:
        """Print `message` and exit with 2."""
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")


def whole_number(minimum: int) -> Any:
    """An argparse type: an integer of at least `minimum`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if value < minimum:
            raise argparse.ArgumentTypeError(f"expected a whole number >= {minimum}, got {text!r}")
        return value

    return parse


def real_number(minimum: float, inclusive: bool) -> Any:
    """An argparse type: a finite number above (or at) `minimum`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not (value > minimum or (inclusive and value == minimum)) or value == float("inf"):
            sign = ">=" if inclusive else ">"
            raise argparse.ArgumentTypeError(f"expected a number {sign} {minimum:g}, got {text!r}")
        return value

    return parse


def make_parser() -> Parser:
    """The options; None stands for "not given", so that recipes and checkpoints fill the gaps."""
    parser = Parser(
        prog="minidl.train",
        description="Train one of minidl's networks.",
        epilog="Exit status: 0 when the run is complete, 2 with one line that says why when not.",
        allow_abbrev=False,
    )
    count, positive = whole_number(1), real_number(0.0, inclusive=False)
    what = parser.add_argument_group("what to train")
    what.add_argument("--arch", help="architecture, e.g. vgg16 (see --list-archs)")
    what.add_argument(
        "--data",
        help="fashion-mnist-small (default, embedded), fashion-mnist[:DIR], mnist:DIR, "
        "cifar10:DIR, cifar100:DIR or folder:DIR (train/ and val/, a folder per class)",
    )
    what.add_argument("--image-size", type=count, help="side of the images, in pixels")
    what.add_argument("--num-classes", type=count, help="outputs (default: as many as in the data)")
    what.add_argument("--limit", type=count, help="use only this many images of each split")
    how = parser.add_argument_group("how to train (defaults depend on the architecture)")
    how.add_argument("--epochs", type=count, help="passes over the training images")
    how.add_argument("--batch-size", type=count, help="images a step")
    how.add_argument("--optimizer", choices=OPTIMIZERS, help="default: adam")
    how.add_argument("--lr", type=positive, help="highest learning rate of the schedule")
    how.add_argument("--momentum", type=real_number(0.0, inclusive=True), help="sgd and rmsprop")
    how.add_argument("--weight-decay", type=real_number(0.0, inclusive=True))
    how.add_argument(
        "--schedule",
        choices=SCHEDULES,
        help="learning rate after a linear warm-up of 5%% of the steps; default: cosine",
    )
    how.add_argument("--seed", type=whole_number(0), help="same seed, same bits; default: 0")
    where = parser.add_argument_group("where")
    where.add_argument("--device", help="cpu (default) or cuda[:N]")
    where.add_argument("--threads", type=count, help="of the CPU kernels; results do not change")
    where.add_argument("--out", type=Path, help="folder of the run (default: runs/ARCH-DATE-TIME)")
    where.add_argument("--resume", type=Path, help="go on with this run folder or checkpoint")
    instead = parser.add_argument_group("instead of training")
    instead.add_argument(
        "--eval-only", action="store_true", help="evaluate the --resume checkpoint"
    )
    instead.add_argument(
        "--dry-run", action="store_true", help="one step; print shapes, parameters, memory, time"
    )
    instead.add_argument("--list-archs", action="store_true", help="print the architectures")
    return parser


def resolve_settings(
    args: argparse.Namespace,
) -> tuple[Settings, tuple[dict[str, np.ndarray], dict[str, Any]] | None]:
    """Settings from the checkpoint or the recipe, changed by the options; and the checkpoint."""
    names = (
        "data", "image_size", "num_classes", "limit", "epochs", "batch_size", "optimizer", "lr",
        "momentum", "weight_decay", "schedule", "seed", "device", "threads",
    )  # fmt: skip
    given = {name: getattr(args, name) for name in names}
    if args.resume is None:
        return default_settings(args.arch, **given), None
    tensors, state = load_checkpoint(args.resume)
    saved = Settings.from_json(state["settings"])
    for name in ("arch", "image_size", "num_classes"):
        wanted, found = getattr(args, name), getattr(saved, name)
        if wanted not in (None, found):
            option = name.replace("_", "-")
            raise CheckpointError(
                f"{args.resume}: a checkpoint with {option} {found}, not {wanted}"
            )
    return saved.changed(**given), (tensors, state)


def open_data(settings: Settings) -> tuple[Settings, data.DataSplits]:
    """The data set, and the settings completed by its image size and number of classes."""
    splits = data.load(
        settings.data,
        settings.image_size,
        settings.in_channels,
        min_image_size=models.min_image_size(settings.arch),
    )
    classes = len(splits.classes)
    if settings.num_classes is not None and settings.num_classes < classes:
        raise DataError(
            f"{settings.data}: label {classes - 1} is out of range for {settings.num_classes} "
            f"classes (the data has {classes})"
        )
    settings = settings.changed(image_size=splits.image_size)
    return settings.changed(num_classes=settings.num_classes or classes), splits


def build_model(settings: Settings) -> Module:
    """The network of `settings`, with weights drawn from its seed."""
    md.manual_seed(settings.seed)
    try:
        model = models.create(
            settings.arch, settings.num_classes, settings.in_channels, settings.image_size
        )
    except ValueError as error:
        raise MinidlError(str(error)) from error
    return model.to(device=settings.device)


def describe(settings: Settings, splits: data.DataSplits, model: Module) -> str:
    """What is about to be trained, in a few lines."""
    parameters = sum(parameter.size for parameter in model.parameters())
    return (
        f"{settings.arch}: {parameters:,} parameters, {settings.num_classes} classes\n"
        f"{splits.describe()}\n"
        f"{settings.epochs} epochs, batches of {settings.batch_size}, {settings.optimizer} with "
        f"learning rate {settings.lr:g} ({settings.schedule}), seed {settings.seed}, "
        f"{settings.device} with {md.get_num_threads()} threads"
    )


def dry_run(settings: Settings, splits: data.DataSplits, model: Module) -> None:
    """One step; prints each layer's output shape and parameters, memory, and the step's time."""
    rows: list[tuple[str, str, tuple[int, ...], int]] = []
    handles = []
    for name, module in model.named_modules():
        if next(iter(module.children()), None) is None:

            def record(layer: Module, inputs: Any, output: Tensor, name: str = name) -> None:
                size = sum(parameter.size for parameter in layer.parameters())
                rows.append((name, type(layer).__name__, output.shape, size))

            handles.append(module.register_forward_hook(record))
    trainer = Trainer(settings, splits, model)
    images, labels = next(trainer.train_loader.batches(0))
    begun = time.perf_counter()
    loss = trainer.step(images, labels)
    seconds = time.perf_counter() - begun
    for handle in handles:
        handle.remove()
    print(f"{'layer':24} {'type':20} {'output':>20} {'parameters':>14}")
    print(f"{'(input)':24} {'':20} {'x'.join(map(str, images.shape)):>20}")
    for name, kind, shape, size in rows:
        print(f"{name:24} {kind:20} {'x'.join(map(str, shape)):>20} {size:14,}")
    parameters = sum(parameter.size for parameter in model.parameters())
    activations = sum(int(np.prod(shape)) for _, _, shape, _ in rows) * 4
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    print(
        f"parameters {parameters:,} ({parameters * 4 / 1e6:,.1f} MB), "
        f"outputs of all layers {activations / 1e6:,.1f} MB, "
        f"peak memory of the process {peak / 1e6:,.1f} MB"
    )
    print(
        f"one step of {len(labels)} images: {seconds:.3f} s "
        f"({len(labels) / seconds:.1f} images/s), loss {loss:.4f}"
    )


def duration(seconds: float) -> str:
    """Seconds as a person would say them.

    >>> duration(59.96), duration(185)
    ('60.0 s', '3 min 5 s')
    """
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def run(args: argparse.Namespace) -> None:
    """Do what the options say.

    Raises:
        MinidlError: what is wrong, in one line.
    """
    begun = time.monotonic()
    if args.arch is not None:
        models.check_name(args.arch)
    if args.eval_only and args.resume is None:
        raise MinidlError("--eval-only needs --resume CHECKPOINT")
    if args.arch is None and args.resume is None:
        raise MinidlError("--arch is required (see --list-archs), or --resume")
    settings, checkpoint = resolve_settings(args)
    try:
        to_device(np.zeros(1), settings.device)
    except (RuntimeError, ValueError) as error:
        raise MinidlError(str(error)) from error
    if settings.threads is not None:
        md.set_num_threads(settings.threads)
    settings, splits = open_data(settings)
    model = build_model(settings)
    print(describe(settings, splits, model), flush=True)
    if args.dry_run:
        dry_run(settings, splits, model)
        return
    if args.eval_only and checkpoint is not None:
        trainer = Trainer(settings, splits, model)
        trainer.load_weights(checkpoint[0])
        loss, accuracy = trainer.evaluate()
        print(
            f"test accuracy {accuracy:.1%}, loss {loss:.4f}, in "
            f"{duration(time.monotonic() - begun)}, checkpoint {args.resume}"
        )
        return
    name = f"{settings.arch}-{datetime.now():%Y%m%d-%H%M%S}"
    folder = args.out or Path("runs", name)
    if args.resume is not None and args.out is None:
        folder = args.resume if args.resume.is_dir() else args.resume.parent
    resuming = args.resume is not None and args.out is None
    # A folder is made only once nothing is left that could be wrong with the options.
    trainer = Trainer(settings, splits, model)
    if checkpoint is not None:
        trainer.restore(*checkpoint)
    trainer.run = RunFolder(folder, resume=resuming)
    if resuming:
        trainer.run.rewind(trainer.progress.step)
    trainer.run.write_json("config.json", settings.to_json())
    trainer.run.write_json("environment.json", installation.collect_config()[0])
    print(f"writing to {folder}", flush=True)
    trainer.train(make_reporter())
    progress = trainer.progress
    print(
        f"test accuracy {progress.best_accuracy:.1%} (best, after epoch {progress.best_epoch}) in "
        f"{duration(time.monotonic() - begun)}, checkpoint {trainer.run.best}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = make_parser()
    args = parser.parse_args(arguments)
    if args.list_archs:
        print("\n".join(models.list_models()))
        return 0
    try:
        run(args)
    except MinidlError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    except MemoryError as error:
        print(
            f"{parser.prog}: out of memory ({error}); try a smaller --batch-size", file=sys.stderr
        )
        return 2
    except KeyboardInterrupt:
        print(f"{parser.prog}: stopped before anything was saved", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever read our output has gone; there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
