"""`python -m minidl.experiments`: the experiments of the lectures, each one command.

Without a name it lists them. Exit status: 0 when the experiment is complete; 2 for everything that
ends it sooner, with one line on standard error that says what.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import minidl as md

from ..commands import Parser, exit_status
from ..device import to_device
from ..errors import MinidlError
from ..training import Settings
from ..training.options import add_arguments
from . import activations, batch_norm, degradation, dropout, inception, stacks, vgg_depth

EXPERIMENTS = {
    module.EXPERIMENT.name: module.EXPERIMENT
    for module in (degradation, activations, batch_norm, dropout, stacks, vgg_depth, inception)
}
COMMAND = "python -m minidl.experiments"
# The options of a run that do not change what an experiment compares.
OPTIONS = ("data", "image_size", "limit", "epochs", "seed", "device", "threads")


def make_parser() -> Parser:
    """A sub-command for each experiment; all have the same options."""
    parser = Parser(
        prog=COMMAND,
        description="The experiments of the lectures: each trains a few networks that differ in "
        "one thing, and writes a figure and a table.",
        epilog=f"Without a name: list them. {COMMAND} NAME --help: the options.",
    )
    names = parser.add_subparsers(dest="name", metavar="NAME")
    for name, experiment in EXPERIMENTS.items():
        one = names.add_parser(
            name,
            help=experiment.summary,
            description=f"{experiment.summary}. {experiment.source}.",
            epilog="Finished runs are kept in the folder, and not done again; an interrupted one "
            "goes on where it was.",
        )
        one.add_argument(
            "--quick",
            action="store_true",
            help="small networks on the embedded images, in minutes; without it at full size, "
            f"which --data {experiment.full_data} is meant for",
        )
        one.add_argument(
            "--out",
            metavar="DIR",
            type=Path,
            default=Path("experiments", name),
            help="folder for the figure, the table and the runs (default: %(default)s)",
        )
        add_arguments(one, Settings, OPTIONS)
    return parser


def perform(args: argparse.Namespace, command: str) -> None:
    """Do the experiment, and print its table and where everything is."""
    given = {name: value for name, value in vars(args).items() if name in OPTIONS}
    try:
        to_device(np.zeros(1), given.get("device", "cpu"))
    except (RuntimeError, ValueError) as error:
        raise MinidlError(str(error)) from error
    if "threads" in given:
        md.set_num_threads(given["threads"])
    outcome = EXPERIMENTS[args.name].perform(args.quick, args.out, given, command)
    print(f"\n{outcome.table.markdown()}\n\n{outcome.note}\n")
    print(f"figure {args.out / args.name}.png, table {args.out / args.name}.md, .csv and .json")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status.

    >>> main([])
    degradation  plain-20 and plain-56 against ResNet-20 and ResNet-56
    activations  sigmoid, tanh and ReLU, four initialisers: variance and training
    ...
    0
    """
    typed = sys.argv[1:] if arguments is None else arguments
    parser = make_parser()
    args = parser.parse_args(typed)

    def act() -> None:
        if args.name is None:
            for name, experiment in EXPERIMENTS.items():
                print(f"{name:11}  {experiment.summary}")
        else:
            perform(args, shlex.join([*COMMAND.split(), *typed]))

    return exit_status(parser.prog, act)


if __name__ == "__main__":
    sys.exit(main())
