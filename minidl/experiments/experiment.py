"""What an experiment is, and what it leaves: a figure, a table, and the facts about both."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import installation
from .._kernels.cpu import get_num_threads
from ..commands import duration, plural
from ..data import DEFAULT_DATA
from ..errors import DataError, MinidlError
from ..io.files import replace_file
from .figures import check_matplotlib, save
from .lab import Lab, Scale
from .tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Of the settings, what a reader wants to know beside epochs, batches and data.
TOLD = ("optimizer", "lr", "schedule", "momentum", "weight_decay", "seed")


@dataclass(frozen=True)
class Outcome:
    """A table, the figure to it, and how both are to be read."""

    table: Table
    figure: Figure
    note: str


@dataclass(frozen=True)
class Experiment:
    """An experiment of the lectures.

    Attributes:
        name: on the command line.
        summary: what is compared, in one line.
        source: the paper, and its figure, table or section.
        quick: its size for minutes on two processors, with the embedded images.
        full: its size for `full_data`, which the user has to name.
        run: trains and sums up.
    """

    name: str
    summary: str
    source: str
    quick: Scale
    full: Scale
    full_data: str
    run: Callable[[Lab], Outcome]

    def perform(self, quick: bool, out: Path, given: Mapping[str, Any], command: str) -> Outcome:
        """Do the experiment, and write NAME.png, NAME.md, NAME.csv and NAME.json to `out`.

        Args:
            given: settings that come before the experiment's own.
            command: what the user typed, for the record.

        Raises:
            MinidlError: the data are missing, `out` holds other runs or cannot be written,
                matplotlib is not installed, or the user stops it.
        """
        check_matplotlib()
        if not quick and "data" not in given:
            raise DataError(
                f"{self.name}: at full size it needs a data set, --data {self.full_data} say; "
                f"--quick takes {DEFAULT_DATA}, which is embedded"
            )
        lab = Lab(out, self.quick if quick else self.full, given)
        outcome = self.run(lab)
        facts = facts_about(lab, command)
        record = {"experiment": self.name, "facts": facts, "rows": outcome.table.rows}
        try:
            for suffix, write in (
                ("png", partial(save, outcome.figure)),
                ("md", lambda path: path.write_text(self.report(outcome, facts))),
                ("csv", lambda path: path.write_text(outcome.table.csv())),
                ("json", lambda path: path.write_text(json.dumps(record, indent=1) + "\n")),
            ):
                replace_file(out / f"{self.name}.{suffix}", write)
        except OSError as error:
            raise MinidlError(f"{out}: cannot write ({error.strerror})") from error
        return outcome

    def report(self, outcome: Outcome, facts: Mapping[str, str]) -> str:
        """The table with all that is to be known about it, as Markdown."""
        return "\n".join(
            [
                f"# {self.name}: {self.summary}",
                "",
                f"{self.source}.",
                "",
                outcome.table.markdown(),
                "",
                outcome.note,
                "",
                f"![{self.name}]({self.name}.png)",
                "",
                *(f"- {name}: {fact}" for name, fact in facts.items()),
                "",
            ]
        )


def facts_about(lab: Lab, command: str) -> dict[str, str]:
    """With what, how, how long and by which version the runs were made."""
    machine, _ = installation.collect_config()
    settings, splits = lab.settings, lab.splits
    side = splits.image_size
    shown = f"shown as {splits.channels}x{side}x{side}"
    limit = "" if settings.limit is None else f", at most {settings.limit:,} of each"
    untold = set() if settings.weight_decay else {"weight_decay"}
    untold |= set() if settings.optimizer in ("sgd", "rmsprop") else {"momentum"}
    told = [
        f"{name.replace('_', '-')} {' / '.join(map(_text, lab.values(name)))}"
        for name in TOLD
        if name not in untold
    ]
    where = settings.device if settings.device != "cpu" else machine["processor"]
    return {
        "data": f"{splits.describe()}{limit}, {shown}; {splits.describe_inputs()}",
        "training": f"{plural(settings.epochs, 'epoch')} in batches of {settings.batch_size}, "
        f"{plural(max(lab.steps), 'step')} a run; {', '.join(told)}",
        "time": f"{duration(lab.seconds)} for {plural(len(lab.steps), 'run')} "
        f"({where}, {plural(get_num_threads(), 'thread')})",
        "minidl": machine["minidl"],
        "command": f"`{command}`",
    }


def _text(value: Any) -> str:
    return format(value, "g") if isinstance(value, float) else str(value)
