"""`python -m minidl.train --arch vgg16`: train a network, from a terminal.

Without further options it trains on the embedded images, evaluates after each epoch, and leaves
settings, metrics, checkpoints and curves in `runs/`. Exit status: 0 when the run is complete; 2 for
everything that ends it sooner, with one line on standard error that says what.
"""

import argparse
import importlib.util
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import minidl as md

from . import data, installation, models
from .commands import Parser, duration, exit_status, plural
from .device import to_device
from .errors import CheckpointError, DataError, MinidlError
from .nn import Module
from .report import REPORT, write_report
from .reporting.tensorboard import EventLog, check_tensorboard
from .training import (
    Checkpoint,
    RunFolder,
    Settings,
    Trainer,
    default_settings,
    load_checkpoint,
)
from .training.dry_run import dry_run, dry_run_part, random_data
from .training.initialisation import initialise
from .training.lr_finder import find_learning_rate
from .training.options import add_arguments, options_of, read_toml, to_toml
from .training.overfitting import overfit_batch
from .training.profiling import profile_training
from .training.progress import make_reporter
from .training.recipe_text import describe_recipe
from .training.recipes import Data, paper_recipe
from .training.settings import BELONGING
from .training.transfer_learning import describe_transfer, freeze, load_pretrained

# What may change when a run goes on: it stays the same run, longer or elsewhere.
CHANGEABLE = (
    "epochs", "data", "workers", "on_bad_image", "device", "threads", "tensorboard", "early_stop",
    "keep", "save_every", "on_nan",
)  # fmt: skip
# What belongs to the weights, and so holds even for an evaluation on other data.
SHAPE = ("arch", "image_size", "num_classes", "preprocess")


def make_parser() -> Parser:
    """The options of a run, and those of the command alone."""
    parser = Parser(
        prog="python -m minidl.train",
        usage="python -m minidl.train --arch ARCH [options]",
        description="Train one of minidl's networks.",
        epilog="Exit status: 0 when the run is complete, 2 with one line that says why when not.",
    )
    add_arguments(parser, Settings)
    run = parser.add_argument_group("the run")
    run.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help="options from a TOML file; those on the command line come before them",
    )
    run.add_argument(
        "--out", metavar="DIR", type=Path, help="folder of the run (default: runs/ARCH-DATE-TIME)"
    )
    run.add_argument(
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
    instead.add_argument(
        "--find-lr", action="store_true", help="100 steps with rising rates; suggest an --lr"
    )
    instead.add_argument(
        "--overfit-batch", action="store_true", help="can one batch be learned by heart? 2 if not"
    )
    instead.add_argument(
        "--profile", action="store_true", help="time, GFLOP/s and memory of a step, by layer"
    )
    instead.add_argument(
        "--print-config", action="store_true", help="print all options, as a file for --config"
    )
    instead.add_argument("--list-archs", action="store_true", help="print the architectures")
    return parser


def given_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options that the command line or, failing that, the --config file gives."""
    from_file = {} if args.config is None else read_toml(args.config, Settings)
    return from_file | {n: value for n, value in vars(args).items() if n in options_of(Settings)}


def resolve_settings(
    given: dict[str, Any], resume: Path | None, eval_only: bool
) -> tuple[Settings, Checkpoint | None]:
    """Settings from the checkpoint or the recipe, changed by what is given; and the checkpoint."""
    if resume is None:
        try:
            return default_settings(**given), None
        except ValueError as error:
            raise MinidlError(str(error)) from error
    checkpoint = load_checkpoint(resume)
    try:
        saved = Settings.from_plain(checkpoint.state.get("settings"))
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.path}: damaged settings ({error})") from error
    for name, wanted in given.items():
        found = getattr(saved, name)
        if name in CHANGEABLE or (eval_only and name not in SHAPE):
            continue
        if wanted != found:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in CHANGEABLE)
            advice = f"; a run that goes on can change {options}"
            raise CheckpointError(
                f"{checkpoint.path}: begun with {name.replace('_', '-')} {found}, not {wanted}"
                f"{'' if name in SHAPE else advice}"
            )
    kinds = {spec.partition(":")[0] for spec in (given.get("data", saved.data), saved.data)}
    if len(kinds) > 1 and not eval_only:
        raise CheckpointError(
            f"{checkpoint.path}: begun with {saved.data}, not with {given['data']}; "
            "--data can say where the same images are now"
        )
    try:
        return saved.changed(**given), checkpoint
    except ValueError as error:  # options that do not go together
        raise MinidlError(str(error)) from error


def open_data(
    settings: Settings, checkpoint: Checkpoint | None = None
) -> tuple[Settings, data.DataSplits]:
    """The data set, and the settings completed by its image size and number of classes.

    What the preprocessing measures on the training set is taken from the checkpoint, if there is
    one.
    """
    splits = data.load(
        settings.data,
        settings.image_size,
        settings.in_channels,
        min_image_size=models.min_image_size(settings.arch),
        own_image_size=models.own_image_size(settings.arch),
    )
    classes = len(splits.classes)
    if settings.num_classes is not None and settings.num_classes < classes:
        raise DataError(
            f"{settings.data}: label {classes - 1} is out of range for {settings.num_classes} "
            f"classes (the data has {classes})"
        )
    measured = None if checkpoint is None else checkpoint.tensors
    try:
        splits = splits.prepared(settings.augment, settings.preprocess, measured)
    except ValueError as error:
        raise DataError(f"{settings.data}: {error}") from error
    settings = settings.changed(image_size=splits.image_size)
    return settings.changed(num_classes=settings.num_classes or classes), splits


def build_model(settings: Settings, begin: bool) -> tuple[Module, list[str]]:
    """The network of `settings`, and the names of what is drawn from its seed beside --weights.

    The file of --weights is read only where a run begins: later its checkpoints have all.
    """
    md.manual_seed(settings.seed)
    options: dict[str, Any] = {} if settings.dropout is None else {"dropout": settings.dropout}
    try:
        model = models.create(
            settings.arch,
            settings.num_classes,
            settings.in_channels,
            settings.image_size,
            **options,
        )
        initialise(model, settings.init)
    except (TypeError, ValueError) as error:
        raise MinidlError(str(error)) from error
    fresh: list[str] = []
    if begin and settings.weights is not None:
        fresh = load_pretrained(model, Path(settings.weights), settings.replace_head)
    if settings.freeze:
        freeze(model, settings.freeze)
    return model.to(device=settings.device), fresh


def describe(settings: Settings, splits: data.DataSplits, model: Module) -> str:
    """What the network is and what it sees, in three lines."""
    parameters = sum(parameter.size for parameter in model.parameters())
    size = settings.image_size
    used = ""
    if settings.limit is not None:
        train, val = (min(settings.limit, len(s)) for s in (splits.train, splits.val))
        used = f", limited to {train:,} + {val:,}"
    return (
        f"{settings.arch}: {parameters:,} parameters, input {settings.in_channels}x{size}x{size}, "
        f"{settings.num_classes} classes\n{splits.describe()}{used}\n"
        f"{splits.describe_inputs()}"
    )


def describe_training(settings: Settings) -> str:
    """How it is trained, in two lines."""
    where = settings.device if settings.amp == "off" else f"{settings.device} in {settings.amp}"
    return (
        f"{plural(settings.epochs, 'epoch')} in batches of {settings.batch_size}, "
        f"{settings.optimizer} with learning rate {settings.lr:g}, {settings.schedule}\n"
        f"seed {settings.seed}, {where} with {plural(md.get_num_threads(), 'thread')}"
    )


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
        # Beside the checkpoint of an earlier epoch the best one may be of a later.
        RunFolder(path).copy_history(home.path, best=checkpoint.path == home.last)
    progress = trainer.progress
    history = checkpoint.state.get("history", [])
    run = RunFolder.reopen(path, progress.step, progress.epoch, history)
    if not run.best.exists():
        progress.best_accuracy, progress.best_epoch = -1.0, progress.epoch
    return run


def train(trainer: Trainer, run: RunFolder) -> None:
    """Run to the last epoch, and leave what shows how it went."""
    if trainer.settings.tensorboard:
        run.events = EventLog(run.path, trainer.progress.step + 1)
    try:
        trainer.train(make_reporter())
        if run.events is not None:
            run.events.last_images(run.path)
    finally:
        if run.events is not None:
            run.events.close()
    if importlib.util.find_spec("matplotlib") is not None:
        write_report([run.path], run.path / REPORT)


def run(args: argparse.Namespace, command: str) -> None:
    """Do what the options say; `command` is what the user typed, for the record.

    Raises:
        MinidlError: what is wrong, in one line.
    """
    given = given_options(args)
    arch = given.get("arch")
    if arch is not None:
        models.check_name(arch)
        is_part = arch not in models.list_classifiers()
        if is_part and (not args.dry_run or "num_classes" in given):
            raise MinidlError(f"{arch}: a part of a network, without classes to learn")
    if args.eval_only and args.resume is None:
        raise MinidlError("--eval-only needs --resume CHECKPOINT")
    if arch is None and args.resume is None:
        raise MinidlError("--arch is required (see --list-archs), or --resume")
    settings, checkpoint = resolve_settings(given, args.resume, args.eval_only)
    for name, (choice, fitting) in BELONGING.items():
        chosen = getattr(settings, choice)
        if name in vars(args) and chosen not in fitting:
            raise MinidlError(
                f"--{name.replace('_', '-')} is for {', '.join(fitting)}, not for {chosen}"
            )
    if settings.replace_head and settings.weights is None:
        raise MinidlError("--replace-head needs --weights FILE")
    for name in ("find_lr", "overfit_batch", "profile"):
        if getattr(args, name) and args.resume is not None:
            option = name.replace("_", "-")
            raise MinidlError(f"--{option} begins anew: --weights instead of --resume")
    if args.print_config:
        print(to_toml(settings), end="")
        return
    try:
        to_device(np.zeros(1), settings.device)
    except (RuntimeError, ValueError) as error:
        raise MinidlError(str(error)) from error
    if settings.amp != "off" and settings.device == "cpu":
        raise MinidlError(f"--amp {settings.amp} needs a GPU: --device cuda")
    if settings.tensorboard:
        check_tensorboard()
    if settings.threads is not None:
        md.set_num_threads(settings.threads)
    if settings.arch not in models.list_classifiers():
        md.manual_seed(settings.seed)
        network = models.create(settings.arch, image_size=settings.image_size)
        network.to(device=settings.device)
        print(dry_run_part(settings, network))
        return
    recipe = paper_recipe(settings.arch) if settings.recipe == "paper" else None
    if args.dry_run and recipe is not None and "data" not in given:
        settings, splits = random_data(settings, recipe.data)
    else:
        settings, splits = open_data(settings, checkpoint)
    model, fresh = build_model(settings, begin=checkpoint is None)
    print(describe(settings, splits, model), flush=True)
    if transferred := describe_transfer(model, settings.weights, fresh):
        print(transferred, flush=True)
    if settings.recipe != "tiny":
        trained_on = Data(splits.name, len(splits.train), len(splits.classes))
        print(describe_recipe(settings, trained_on), flush=True)
    for chosen, look in (
        (args.dry_run, partial(dry_run, part=recipe is not None and "batch_size" not in given)),
        (args.profile, profile_training),
        (args.overfit_batch, overfit_batch),
    ):
        if chosen:
            print(look(settings, splits, model))
            return
    trainer = Trainer(settings, splits, model)
    if args.find_lr:
        print(find_learning_rate(trainer, lambda: open_run(trainer, args.out, None)))
        return
    if args.eval_only and checkpoint is not None:
        evaluate(trainer, checkpoint)
        return
    print(describe_training(settings), flush=True)
    if checkpoint is not None:
        trainer.restore(checkpoint)
    progress = trainer.progress
    if trainer.finished:
        limit = "--early-stop" if trainer.stopped_early else f"--epochs above {progress.epoch}"
        print(
            f"nothing left to do after {plural(progress.epoch, 'epoch')} (best test accuracy "
            f"{progress.best_accuracy:.1%}, epoch {progress.best_epoch}); to go further, raise "
            f"{limit}"
        )
        return
    # A folder is made only once nothing is left that could be wrong with the options.
    trainer.run = open_run(trainer, args.out, checkpoint)
    trainer.run.write_json("config.json", asdict(settings))
    environment = {"command": command, "started": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
    trainer.run.write_json("environment.json", environment | installation.collect_config()[0])
    print(f"writing to {trainer.run.path}", flush=True)
    train(trainer, trainer.run)
    if trainer.stopped_early:
        waited = plural(progress.epoch - progress.best_epoch, "epoch")
        print(f"stopped early: {waited} without a better test accuracy")
    print(
        f"test accuracy {progress.best_accuracy:.1%} (best, after epoch {progress.best_epoch}) in "
        f"{duration(progress.seconds)}, checkpoint {trainer.run.best}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = make_parser()
    args = parser.parse_args(arguments)
    typed = sys.argv[1:] if arguments is None else arguments

    def act() -> None:
        if args.list_archs:
            print("\n".join(models.list_classifiers()))
        else:
            run(args, shlex.join(["python", "-m", "minidl.train", *typed]))

    return exit_status(parser.prog, act)


if __name__ == "__main__":
    sys.exit(main())
