"""`python -m minidl.evaluate RUN`: how good a trained network is, measured as the papers did.

It evaluates one checkpoint, or several together, with one of the protocols (centre, 5-crop,
10-crop, multi-scale, dense), or writes the features of a layer. Exit status: 0, or 2 with one line
on standard error that says what is wrong.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import minidl as md

from .commands import Parser, exit_status
from .data import Split
from .device import to_device
from .errors import MinidlError
from .evaluation import Candidate, Judgement, Protocol, Scores, extract, judge, save_features
from .evaluation.confusion import check_confusion_path, save_confusion
from .evaluation.features import find_layer
from .evaluation.metrics import log_loss
from .evaluation.predict import Progress, chosen
from .evaluation.protocols import PROTOCOLS
from .evaluation.text import class_table, summary_line
from .io.files import replace_file
from .nn import Module
from .reporting import Confusion
from .training.options import add_arguments, option
from .training.progress import Reporter, Tally, make_reporter
from .training.settings import MAX_THREADS

WHAT = "what to evaluate"
HOW = "how"
WHERE = "where"


@dataclass(frozen=True)
class Options:
    """The options of the command, besides the checkpoints."""

    arch: str | None = option(None, WHAT, "architecture of the file of --weights", metavar="ARCH")
    weights: str | None = option(
        None, WHAT, "instead of a checkpoint: .safetensors, .npz, .pth, ...", metavar="FILE"
    )
    image_size: int | None = option(None, WHAT, "side of the images for --weights", minimum=1)
    data: str | None = option(
        None, WHAT, "other images than the run's: as for minidl.train", metavar="DATA"
    )
    limit: int | None = option(None, WHAT, "only this many images", minimum=1)

    protocol: str = option(
        "centre", HOW, "which parts of an image are shown", choices=PROTOCOLS, metavar="NAME"
    )
    scales: tuple[int, ...] = option(
        (), HOW, "what the shorter side of an image becomes", minimum=1, metavar="N,..."
    )
    flip: bool = option(False, HOW, "show the mirror images too")
    features: str | None = option(
        None, HOW, "write what this layer puts out to --out, e.g. fc7", metavar="LAYER"
    )

    out: str | None = option(None, WHERE, "the features (.npz)", metavar="FILE")
    json: str | None = option(None, WHERE, "all figures, in a file", metavar="FILE")
    confusion: str | None = option(
        None, WHERE, "the confusion matrix, .csv or .png", metavar="FILE"
    )
    batch_size: int = option(64, WHERE, "images at a time", minimum=1)
    device: str = option("cpu", WHERE, "cpu (default) or cuda[:N]")
    threads: int | None = option(
        None, WHERE, "of the CPU kernels; results do not change", minimum=1, maximum=MAX_THREADS
    )


def make_parser() -> Parser:
    """The checkpoints and `Options`."""
    parser = Parser(
        prog="python -m minidl.evaluate",
        usage="python -m minidl.evaluate RUN [RUN ...] [options]",
        description="Evaluate trained networks; several are an ensemble.",
        epilog="Exit status: 0, or 2 with one line that says what is wrong.",
    )
    parser.add_argument(
        "checkpoints",
        metavar="RUN",
        nargs="*",
        type=Path,
        help="folder of a run (its best checkpoint, or else its last), or a checkpoint",
    )
    add_arguments(parser, Options)
    return parser


def find_candidates(checkpoints: Sequence[Path], options: Options) -> list[Candidate]:
    """What is to be evaluated.

    Raises:
        MinidlError: the options do not say, or a checkpoint is missing or damaged.
    """
    if (options.arch is None) != (options.weights is None):
        raise MinidlError("--arch and --weights go together")
    if options.arch is None or options.weights is None:
        if not checkpoints:
            raise MinidlError("name the folder of a run or a checkpoint, or --arch and --weights")
        if options.image_size is not None:
            raise MinidlError("--image-size is for --weights; a run has its own")
        return [Candidate.of_run(path, options.data) for path in checkpoints]
    if checkpoints:
        raise MinidlError("--weights are evaluated alone, without other checkpoints")
    path = Path(options.weights)
    if path.is_dir():
        raise MinidlError(
            f"{path}: a folder; if it is a run's, evaluate it without --arch and --weights, "
            f"with the settings of the run"
        )
    return [Candidate.of_weights(path, options.arch, options.image_size, options.data)]


def check_outputs(options: Options, candidates: Sequence[Candidate]) -> None:
    """Complain about files that could not be written before anything is computed.

    Raises:
        MinidlError: their names or folders are wrong, or the options contradict each other.
    """
    if (options.features is None) != (options.out is None):
        raise MinidlError("--features LAYER and --out FILE go together")
    if options.features is not None and len(candidates) > 1:
        raise MinidlError(f"--features are those of one network, not of {len(candidates)}")
    if options.features is not None and (options.json or options.confusion):
        raise MinidlError("--json and --confusion are for accuracy, not for --features")
    if options.out is not None and not options.out.endswith(".npz"):
        raise MinidlError(f"--out {options.out}: features are written as .npz")
    if options.confusion is not None:
        check_confusion_path(Path(options.confusion))
    for name in (options.out, options.json, options.confusion):
        if name is None:
            continue
        folder = Path(name).parent
        if Path(name).is_dir():
            raise MinidlError(f"{name or 'the empty name'}: is a folder, not a file to write")
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            fault = "cannot be written to" if folder.is_dir() else "does not exist"
            raise MinidlError(f"{name}: the folder {folder} {fault}")


class Narrator:
    """Tells on standard output what is evaluated, and how far it is."""

    def __init__(self, protocol: Protocol, options: Options) -> None:
        self.protocol = protocol
        self.options = options
        self.reporter: Reporter = make_reporter()

    def begin(self, candidate: Candidate, model: Module, split: Split) -> Progress:
        """Describe a network; returns what is to be told of its progress."""
        self.reporter.close()
        images = len(chosen(split, self.options.limit))
        size, parameters = split.image_size, sum(p.size for p in model.parameters())
        print(
            f"{candidate.path}\n  {candidate.settings.arch}, {parameters:,} parameters, input "
            f"{split.channels}x{size}x{size}\n  {images:,} images of "
            f"{candidate.settings.data}: {self.protocol.describe(size)}",
            flush=True,
        )
        total = -(-images // self.options.batch_size)
        self.reporter.start(candidate.settings.arch, total, done=0)
        tally, begun, done = Tally(), time.monotonic(), 0

        def progress(batch: np.ndarray, probabilities: np.ndarray) -> None:
            nonlocal done
            labels = split.labels[batch]
            tally.add(log_loss(probabilities, labels), probabilities, labels)
            done += 1
            self.reporter.update(tally, tally.images / (time.monotonic() - begun), done)

        return progress


def write_features(
    candidate: Candidate, layer: str, out: Path, protocol: Protocol, options: Options
) -> str:
    """Extract and write the features of a layer; returns the last line."""
    narrator = Narrator(protocol, options)
    model, split = candidate.open(options.device)
    name = find_layer(model, layer)
    try:
        progress = narrator.begin(candidate, model, split)
        features = extract(
            model, name, split, protocol, options.limit, options.batch_size, options.device,
            progress,
        )  # fmt: skip
    except ValueError as error:
        raise MinidlError(f"{candidate.path}: {error}") from error
    finally:
        narrator.reporter.close()
    how = protocol.describe(split.image_size)
    save_features(
        out,
        {
            "features": features,
            "labels": split.labels[chosen(split, options.limit)],
            "classes": np.array(split.classes),
            "layer": np.array(name),
            "checkpoint": np.array(str(candidate.path)),
            "protocol": np.array(how),
            "data": np.array(candidate.settings.data),
        },
    )
    return (
        f"{out}: {features.shape[1]:,} features of {features.shape[0]:,} images from {name}: "
        f"{how}; checkpoint {candidate.path}"
    )


def evaluate(candidates: Sequence[Candidate], protocol: Protocol, options: Options) -> str:
    """Print the accuracy of each class and write what is asked for; returns the last line."""
    narrator = Narrator(protocol, options)
    try:
        judgement = judge(
            candidates, protocol, options.limit, options.batch_size, options.device, narrator.begin
        )
    finally:
        narrator.reporter.close()
    scores = Scores.of(judgement.probabilities, judgement.labels)
    paths = [candidate.path for candidate in candidates]
    print("\n".join(class_table(scores.confusion, judgement.classes)))
    if options.confusion is not None:
        confusion = Confusion(judgement.classes, scores.confusion)
        save_confusion(Path(options.confusion), confusion)
    if options.json is not None:
        about = {"checkpoints": [str(path) for path in paths], "protocol": asdict(protocol)}
        write_json(Path(options.json), judgement, scores, about)
    return summary_line(scores, protocol, judgement.image_sizes, paths)


def write_json(path: Path, judgement: Judgement, scores: Scores, about: dict[str, Any]) -> None:
    """Write the figures, after what they are about."""
    images, correct = scores.confusion.sum(axis=1), scores.confusion.diagonal()
    classes = [
        {"name": name, "images": count, "correct": right}
        for name, count, right in zip(
            judgement.classes, images.tolist(), correct.tolist(), strict=True
        )
    ]
    figures = {
        "images": scores.images,
        "top1": scores.top1,
        "top5": scores.top5,
        "loss": scores.loss,
        "classes": classes,
    }
    text = json.dumps(about | figures, indent=1, allow_nan=False) + "\n"
    try:
        replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise MinidlError(f"{path}: cannot be written ({error.strerror})") from error


def run(checkpoints: Sequence[Path], options: Options) -> None:
    """Do what the options say.

    Raises:
        MinidlError: what is wrong, in one line.
    """
    try:
        protocol = Protocol(options.protocol, options.scales, options.flip)
        to_device(np.zeros(1), options.device)
    except (RuntimeError, ValueError) as error:
        raise MinidlError(str(error)) from error
    if options.threads is not None:
        md.set_num_threads(options.threads)
    candidates = find_candidates(checkpoints, options)
    check_outputs(options, candidates)
    if options.features is not None and options.out is not None:
        last = write_features(candidates[0], options.features, Path(options.out), protocol, options)
    else:
        last = evaluate(candidates, protocol, options)
    print(last)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = make_parser()
    args = vars(parser.parse_args(arguments))
    checkpoints = args.pop("checkpoints")
    return exit_status(parser.prog, lambda: run(checkpoints, Options(**args)))


if __name__ == "__main__":
    sys.exit(main())
