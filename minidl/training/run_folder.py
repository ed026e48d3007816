"""The folder of a run: settings, environment, metrics, checkpoints, curves."""

import csv
import importlib.util
import io
import json
from pathlib import Path
from typing import Any

from minidl.errors import MinidlError
from minidl.training.checkpoint import replace_file

EPOCH_COLUMNS = (
    "epoch",
    "step",
    "lr",
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "seconds",
    "images_per_second",
)


class RunFolder:
    """Writes `config.json`, `environment.json`, `metrics.jsonl`, `metrics.csv`, checkpoints, plot.

    `metrics.jsonl` has an object a line: {"kind": "step", ...} for each optimiser step and
    {"kind": "epoch", ...} for each epoch; `metrics.csv` has the epochs. `last.safetensors` holds
    weights, optimiser and position in the data; `best.safetensors` the weights alone.

    Raises:
        MinidlError: the folder holds another run already, or cannot be written to.
    """

    def __init__(self, path: Path, resume: bool = False) -> None:
        self.path = path
        if not resume and path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise MinidlError(
                f"{path}: exists already; choose another --out, or continue it with --resume {path}"
            )
        self._guard(lambda: path.mkdir(parents=True, exist_ok=True))
        self.epochs: list[dict[str, Any]] = []

    @property
    def last(self) -> Path:
        """The checkpoint to resume from."""
        return self.path / "last.safetensors"

    @property
    def best(self) -> Path:
        """The weights of the epoch with the highest accuracy so far."""
        return self.path / "best.safetensors"

    def _guard(self, write: Any) -> None:
        try:
            write()
        except OSError as error:
            raise MinidlError(f"{self.path}: cannot write ({error})") from error

    def write_json(self, name: str, values: Any) -> None:
        """Write one of the small files that describe the run."""
        text = json.dumps(values, indent=1) + "\n"
        self._guard(lambda: replace_file(self.path / name, lambda p: p.write_text(text)))

    def log(self, record: dict[str, Any]) -> None:
        """Append to `metrics.jsonl`; rewrite `metrics.csv` and the plot after an epoch."""
        line = json.dumps(record) + "\n"

        def append() -> None:
            with open(self.path / "metrics.jsonl", "a") as file:
                file.write(line)

        self._guard(append)
        if record["kind"] == "epoch":
            self.epochs.append(record)
            self._write_csv()
            self._plot()

    def rewind(self, step: int) -> None:
        """Forget the metrics after `step`, when a run resumes from there."""
        path = self.path / "metrics.jsonl"
        records = []
        if path.exists():
            records = [json.loads(line) for line in path.read_text().splitlines()]
        records = [record for record in records if record["step"] <= step]
        text = "".join(json.dumps(record) + "\n" for record in records)
        self._guard(lambda: replace_file(path, lambda p: p.write_text(text)))
        self.epochs = [record for record in records if record["kind"] == "epoch"]
        self._write_csv()

    def _write_csv(self) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, EPOCH_COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.epochs)
        path = self.path / "metrics.csv"
        self._guard(lambda: replace_file(path, lambda p: p.write_text(text.getvalue())))

    def _plot(self) -> None:
        """Loss and accuracy by epoch as `curves.png`, where matplotlib is installed."""
        if importlib.util.find_spec("matplotlib") is None:
            return
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

        epochs = [record["epoch"] for record in self.epochs]
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        FigureCanvasAgg(figure)
        for axes, quantity, label in zip(
            figure.subplots(1, 2), ("loss", "accuracy"), ("cross-entropy", "accuracy"), strict=True
        ):
            for split, name, marker in (("train", "training", "o"), ("val", "test", "s")):
                values = [record[f"{split}_{quantity}"] for record in self.epochs]
                axes.plot(epochs, values, marker=marker, label=name)
            axes.set_xlabel("epoch")
            axes.set_ylabel(label)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(alpha=0.3)
            axes.legend()
        self._guard(
            lambda: replace_file(
                self.path / "curves.png", lambda p: figure.savefig(p, format="png", dpi=120)
            )
        )
