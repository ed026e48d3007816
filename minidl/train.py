"""`python -m minidl.train --arch vgg16`: train a network, from a terminal.

Without further options it trains on the embedded images, evaluates after each epoch, and leaves
settings, metrics, checkpoints and curves in `runs/`. Exit status: 0 when the run is complete; 2 for
everything that ends it sooner, with one line on standard error that says what.
"""

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

import minidl as md

from . import data, installation, models
from .device import to_device
from .errors import CheckpointError, DataError, MinidlError
from .nn import Module
from .precision import PRECISIONS
from .training import (
    Checkpoint,
    RunFolder,
    Settings,
    Trainer,
    default_settings,
    load_checkpoint,
)
from .training.checkpoint import from_plain
from .training.dry_run import dry_run, dry_run_part
from .training.progress import make_reporter
from .training.recipes import OPTIMIZERS, SCHEDULES

# More would overflow the stack of OpenMP's first thread, which ends the process without a word.
MAX_THREADS = 1024
# What may change when a run goes on: it stays the same run, longer or elsewhere.
CHANGEABLE = ("epochs", "data", "device", "threads")
# What belongs to the weights, and so holds even for an evaluation on other data.
SHAPE = ("arch", "image_size", "num_classes")


class Parser(argparse.ArgumentParser):
    """Complains in one line."""

    def error(self, message: str) -> NoReturn:
        """Print `message` and exit with 2."""
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")


def whole_number(minimum: int, maximum: float = float("inf")) -> Any:
    """An argparse type: an integer from `minimum` to `maximum`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if not minimum <= value <= maximum:
            limit = "" if maximum == float("inf") else f" and <= {maximum}"
            raise argparse.ArgumentTypeError(
                f"expected a whole number >= {minimum}{limit}, got {text!r}"
            )
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
        usage="python -m minidl.train --arch ARCH [options]",
        description="Train one of minidl's networks.",
        epilog="Exit status: 0 when the run is complete, 2 with one line that says why when not.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=26),
        allow_abbrev=False,
    )
    count, positive = whole_number(1), real_number(0.0, inclusive=False)
    not_negative = real_number(0.0, inclusive=True)
    what = parser.add_argument_group("what to train")
    what.add_argument("--arch", help="architecture, e.g. vgg16 (see --list-archs)")
    what.add_argument(
        "--data",
        help="fashion-mnist-small (default, embedded), fashion-mnist[:DIR], mnist:DIR, "
        "cifar10:DIR, cifar100:DIR or folder:DIR (train/ and val/, a folder per class)",
    )
    what.add_argument("--image-size", metavar="N", type=count, help="side of the images, in pixels")
    what.add_argument(
        "--num-classes", metavar="N", type=count, help="outputs (default: as many as in the data)"
    )
    what.add_argument(
        "--limit", metavar="N", type=count, help="use only this many images of each split"
    )
    how = parser.add_argument_group("how to train (defaults depend on the architecture)")
    how.add_argument("--epochs", metavar="N", type=count, help="passes over the training images")
    how.add_argument("--batch-size", metavar="N", type=count, help="images a step")
    how.add_argument(
        "--optimizer", metavar="NAME", choices=OPTIMIZERS, help=f"{_one_of(OPTIMIZERS, 'adam')}"
    )
    how.add_argument("--lr", metavar="X", type=positive, help="highest rate of the schedule")
    how.add_argument(
        "--schedule",
        metavar="NAME",
        choices=SCHEDULES,
        help="learning rate after a linear warm-up over 5%% of the steps: "
        f"{_one_of(SCHEDULES, 'cosine')}",
    )
    how.add_argument("--momentum", metavar="X", type=not_negative, help="of sgd and rmsprop")
    how.add_argument("--weight-decay", metavar="X", type=not_negative, help="pull towards zero")
    how.add_argument(
        "--seed", metavar="N", type=whole_number(0), help="same seed, same bits (default: 0)"
    )
    where = parser.add_argument_group("where")
    where.add_argument("--device", help="cpu (default) or cuda[:N]")
    where.add_argument(
        "--amp",
        metavar="TYPE",
        choices=("off", *PRECISIONS),
        help="mixed precision on a GPU: bf16, or fp16 with scaled losses; weights stay float32",
    )
    where.add_argument(
        "--threads",
        metavar="N",
        type=whole_number(1, MAX_THREADS),
        help="of the CPU kernels; results do not change",
    )
    where.add_argument(
        "--out", metavar="DIR", type=Path, help="folder of the run (default: runs/ARCH-DATE-TIME)"
    )
    where.add_argument(
        "--resume",
        metavar="PATH",
        type=Path,
        help="go on with this run folder or checkpoint; --epochs may be raised, "
        "--data say where the data have moved",
    )
    instead = parser.add_argument_group("instead of training").add_mutually_exclusive_group()
    instead.add_argument(
        "--eval-only", action="store_true", help="evaluate the --resume checkpoint"
    )
    instead.add_argument(
        "--dry-run", action="store_true", help="one step; print shapes, parameters, memory, time"
    )
    instead.add_argument("--list-archs", action="store_true", help="print the architectures")
    return parser


def _one_of(names: Sequence[str], default: str) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]} (default: {default})"


def resolve_settings(args: argparse.Namespace) -> tuple[Settings, Checkpoint | None]:
    """Settings from the checkpoint or the recipe, changed by the options; and the checkpoint."""
    names = (
        "data", "image_size", "num_classes", "limit", "epochs", "batch_size", "optimizer", "lr",
        "momentum", "weight_decay", "schedule", "seed", "device", "amp",
        "threads",
    )  # fmt: skip
    given = {name: getattr(args, name) for name in names}
    if args.resume is None:
        settings = default_settings(args.arch, **given)
        if args.momentum is not None and settings.optimizer not in ("sgd", "rmsprop"):
            raise MinidlError(f"--momentum is for sgd and rmsprop, not for {settings.optimizer}")
        return settings, None
    checkpoint = load_checkpoint(args.resume)
    try:
        saved = from_plain(Settings, checkpoint.state.get("settings"))
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.path}: damaged settings ({error})") from error
    for name, wanted in ({"arch": args.arch} | given).items():
        found = getattr(saved, name)
        if name in CHANGEABLE or (args.eval_only and name not in SHAPE):
            continue
        if wanted not in (None, found):
            advice = "; a run that goes on can change --epochs, --data, --device and --threads"
            raise CheckpointError(
                f"{checkpoint.path}: begun with {name.replace('_', '-')} {found}, not {wanted}"
                f"{'' if name in SHAPE else advice}"
            )
    kinds = {spec.partition(":")[0] for spec in (args.data or saved.data, saved.data)}
    if len(kinds) > 1 and not args.eval_only:
        raise CheckpointError(
            f"{checkpoint.path}: begun with {saved.data}, not with {args.data}; "
            "--data can say where the same images are now"
        )
    return saved.changed(**given), checkpoint


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
    """What the network is and what it sees, in two lines."""
    parameters = sum(parameter.size for parameter in model.parameters())
    size = settings.image_size
    used = ""
    if settings.limit is not None:
        train, val = (min(settings.limit, len(s)) for s in (splits.train, splits.val))
        used = f", limited to {train:,} + {val:,}"
    return (
        f"{settings.arch}: {parameters:,} parameters, input {settings.in_channels}x{size}x{size}, "
        f"{settings.num_classes} classes\n{splits.describe()}{used}"
    )


def describe_training(settings: Settings) -> str:
    """How it is trained, in two lines."""
    where = settings.device if settings.amp == "off" else f"{settings.device} in {settings.amp}"
    return (
        f"{plural(settings.epochs, 'epoch')} in batches of {settings.batch_size}, "
        f"{settings.optimizer} with learning rate {settings.lr:g}, {settings.schedule}\n"
        f"seed {settings.seed}, {where} with {plural(md.get_num_threads(), 'thread')}"
    )


def plural(count: int, noun: str) -> str:
    """A number of things.

    >>> plural(1, "epoch"), plural(2, "epoch")
    ('1 epoch', '2 epochs')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """Seconds as a person would say them.

    >>> duration(59.96), duration(185)
    ('60.0 s', '3 min 5 s')
    """
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def evaluate(trainer: Trainer, checkpoint: Checkpoint) -> None:
    """Print the accuracy of a checkpoint."""
    begun = time.monotonic()
    trainer.load_weights(checkpoint)
    reporter = make_reporter()
    try:
        test = trainer.evaluate(reporter)
    finally:
        reporter.close()
    print(
        f"test accuracy {test.accuracy:.1%}, loss {test.loss:#.4g}, in "
        f"{duration(time.monotonic() - begun)}, checkpoint {checkpoint.path}"
    )


def open_run(trainer: Trainer, out: Path | None, checkpoint: Checkpoint | None) -> RunFolder:
    """The folder that the run writes to: a new one, or for a resumed run its own or a copy.

    Raises:
        MinidlError: it cannot be written, or there is no saying where it should be.
    """
    if checkpoint is None:
        if out is not None:
            return RunFolder.create(out)
        return RunFolder.create_unnamed(f"{trainer.settings.arch}-{datetime.now():%Y%m%d-%H%M%S}")
    home = RunFolder(checkpoint.path.parent)
    if out is None or out.resolve() == home.path.resolve():
        if checkpoint.path != home.last:
            raise CheckpointError(
                f"{checkpoint.path}: going on from here would replace {home.last.name} beside it; "
                "say with --out where to write"
            )
        path = home.path
    else:
        path = RunFolder.create(out).path
        RunFolder(path).copy_history(home.path)
    progress = trainer.progress
    run = RunFolder.reopen(path, progress.step, progress.epoch)
    if not run.best.exists():
        progress.best_accuracy = -1.0
    return run


def run(args: argparse.Namespace, command: str) -> None:
    """Do what the options say; `command` is what the user typed, for the record.

    Raises:
        MinidlError: what is wrong, in one line.
    """
    if args.arch is not None:
        models.check_name(args.arch)
        is_part = args.arch not in models.list_classifiers()
        if is_part and (not args.dry_run or args.num_classes is not None):
            raise MinidlError(f"{args.arch}: a part of a network, without classes to learn")
    if args.eval_only and args.resume is None:
        raise MinidlError("--eval-only needs --resume CHECKPOINT")
    if args.arch is None and args.resume is None:
        raise MinidlError("--arch is required (see --list-archs), or --resume")
    settings, checkpoint = resolve_settings(args)
    try:
        to_device(np.zeros(1), settings.device)
    except (RuntimeError, ValueError) as error:
        raise MinidlError(str(error)) from error
    if settings.amp != "off" and settings.device == "cpu":
        raise MinidlError(f"--amp {settings.amp} needs a GPU: --device cuda")
    if settings.threads is not None:
        md.set_num_threads(settings.threads)
    if settings.arch not in models.list_classifiers():
        md.manual_seed(settings.seed)
        network = models.create(settings.arch, image_size=settings.image_size)
        network.to(device=settings.device)
        print(dry_run_part(settings, network))
        return
    settings, splits = open_data(settings)
    model = build_model(settings)
    print(describe(settings, splits, model), flush=True)
    if args.dry_run:
        print(dry_run(settings, splits, model))
        return
    trainer = Trainer(settings, splits, model)
    if args.eval_only and checkpoint is not None:
        evaluate(trainer, checkpoint)
        return
    print(describe_training(settings), flush=True)
    if checkpoint is not None:
        trainer.restore(checkpoint)
    progress = trainer.progress
    if progress.epoch >= settings.epochs:
        print(
            f"nothing left to do after {plural(progress.epoch, 'epoch')} (best test accuracy "
            f"{progress.best_accuracy:.1%}, epoch {progress.best_epoch}); to go further, raise "
            f"--epochs above {progress.epoch}"
        )
        return
    # A folder is made only once nothing is left that could be wrong with the options.
    trainer.run = open_run(trainer, args.out, checkpoint)
    trainer.run.write_json("config.json", asdict(settings))
    environment = {"command": command, "started": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
    trainer.run.write_json("environment.json", environment | installation.collect_config()[0])
    print(f"writing to {trainer.run.path}", flush=True)
    trainer.train(make_reporter())
    print(
        f"test accuracy {progress.best_accuracy:.1%} (best, after epoch {progress.best_epoch}) in "
        f"{duration(progress.seconds)}, checkpoint {trainer.run.best}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = make_parser()
    args = parser.parse_args(arguments)
    typed = sys.argv[1:] if arguments is None else arguments
    complaint = ""
    try:
        if args.list_archs:
            print("\n".join(models.list_classifiers()))
        else:
            run(args, shlex.join(["python", "-m", "minidl.train", *typed]))
        sys.stdout.flush()
        return 0
    except MinidlError as error:
        complaint = str(error)
    except MemoryError as error:
        complaint = f"out of memory ({error}); try a smaller --batch-size or --image-size"
    except KeyboardInterrupt:
        complaint = "stopped; nothing was saved"
    except BrokenPipeError:
        pass  # whoever read our output has gone; there is nobody to tell
    except OSError as error:
        complaint = str(error)
    if complaint:
        print(f"{parser.prog}: {' '.join(complaint.split())}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:  # the interpreter would try once more at its end, and complain at length
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 2


if __name__ == "__main__":
    sys.exit(main())
