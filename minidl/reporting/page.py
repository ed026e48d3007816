"""The report: one page about one run, or about several side by side, with everything in it."""

from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from ..commands import duration
from .confusion import MOST_NAMED, shades, shortened
from .curves import plot_epochs, plot_learning_rate, plot_steps
from .figures import COLOURS, as_image, as_svg
from .filters import filter_grid
from .html import Html, cells, table, tag
from .run import Confusion, Run

MOST_RUNS = len(COLOURS)
# What a page may do: neither load anything nor run anything.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
MOST_MISTAKES = 8


def page(runs: Sequence[Run]) -> str:
    """The whole page."""
    title = (
        runs[0].name if len(runs) == 1 else f"{len(runs)} runs: {', '.join(r.name for r in runs)}"
    )
    head = tag(
        "head",
        Html('<meta charset="utf-8">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        tag("title", f"{title} – minidl"),
        tag("style", Html((files(__package__) / "page.css").read_text(encoding="utf-8"))),
    )
    body = tag(
        "body",
        tag("h1", title),
        *(tag("p", lead(run), class_="lead") for run in runs if len(runs) == 1),
        tag("main", *sections(runs)),
        tag("footer", "Written by ", tag("code", "python -m minidl.report"), "."),
    )
    return f'<!DOCTYPE html>\n<html lang="en">\n{head}\n{body}\n</html>\n'


def sections(runs: Sequence[Run]) -> Iterable[Html]:
    """The parts of the page, each with a heading; those are left out that no run has."""
    yield tag("section", tag("h2", "Result"), results(runs))
    yield tag("section", tag("h2", "Curves"), curves(runs))
    if any(run.confusion for run in runs):
        yield tag("section", tag("h2", "Classes"), each(runs, classes))
    if any(run.filters is not None for run in runs):
        yield tag("section", tag("h2", "Filters of the first layer"), each(runs, filters))
    if any(run.epochs for run in runs):
        yield tag("section", tag("h2", "Epochs"), each(runs, epochs))
    settings = comparison("Told to minidl.train", runs, [run.config for run in runs])
    yield tag("section", tag("h2", "Settings"), settings)
    machine = comparison("Command, machine, versions", runs, [run.environment for run in runs])
    yield tag("section", tag("h2", "Environment"), machine)


def each(runs: Sequence[Run], part: Callable[[Run], Html]) -> Html:
    """The same part of every run, side by side where there is room, under the runs' names."""
    named = len(runs) > 1
    parts = (
        tag("div", tag("h3", key(number), run.name) if named else Html(), part(run))
        for number, run in enumerate(runs)
    )
    return tag("div", *parts, class_="grid" if named else None)


def key(number: int) -> Html:
    """The colour of a run."""
    return tag("span", class_="key", style=f"background:var(--c{number})", aria_hidden="true")


def lead(run: Run) -> str:
    """The run in a sentence."""
    what = f"{run.config.get('arch', 'a network')} on {run.config.get('data', 'unknown data')}"
    if run.best is None:
        return f"{what}: in its first epoch, after step {run.last_step:,}."
    return (
        f"{what}: {run.best['val_accuracy']:.1%} of the test images right after epoch "
        f"{run.best['epoch']}, the best of {epochs_done(run)}."
    )


def epochs_done(run: Run) -> str:
    """How far a run is."""
    done, wanted = len(run.epochs), run.config.get("epochs", "?")
    return f"{done} epochs" if done == wanted else f"{done} of {wanted} epochs"


def results(runs: Sequence[Run]) -> Html:
    """What came out, and what it took."""
    facts: dict[str, Callable[[Run], Any]] = {
        "best test accuracy": lambda run: run.best and f"{run.best['val_accuracy']:.2%}",
        "reached after epoch": lambda run: run.best and run.best["epoch"],
        "test loss then": lambda run: run.best and f"{run.best['val_loss']:#.4g}",
        "last training accuracy": lambda run: (
            run.epochs and f"{run.epochs[-1]['train_accuracy']:.2%}"
        ),
        "trained": lambda run: f"{epochs_done(run)}, {run.last_step:,} steps",
        "time": lambda run: duration(sum(e.get("seconds", 0.0) for e in run.epochs)),
        "images/s (median epoch)": speed,
        "best checkpoint": checkpoint,
    }
    rows = [[name, *(fact(run) or "–" for run in runs)] for name, fact in facts.items()]
    return table("What came out", heads("", runs), rows)


def heads(first: str, runs: Sequence[Run]) -> list[Any]:
    """The head of a table with a column for each run."""
    keys = [key(number) if len(runs) > 1 else Html() for number in range(len(runs))]
    names = (tag("th", colour, r.name, scope="col") for colour, r in zip(keys, runs, strict=True))
    return [first, *names]


def speed(run: Run) -> str | None:
    """The training images a second."""
    speeds = [e["images_per_second"] for e in run.epochs if "images_per_second" in e]
    return f"{np.median(speeds):,.0f}" if speeds else None


def checkpoint(run: Run) -> Html | None:
    """The file with the best weights."""
    path = run.path / "best.safetensors"
    if not path.is_file():
        return None
    return Html(f"{tag('code', path)}, {path.stat().st_size / 1e6:,.1f} MB")


def curves(runs: Sequence[Run]) -> Html:
    """Loss and accuracy by epoch, loss and learning rate by step."""
    by_epoch = {run.name: run.epochs for run in runs}
    by_step = {run.name: run.steps for run in runs}
    dashed = " Dashed: training." if len(runs) > 1 else ""
    drawn = []
    if any(by_epoch.values()):
        for quantity in ("accuracy", "loss"):
            about = "; ".join(ends(run, quantity) for run in runs if run.epochs)
            svg = as_svg(plot_epochs(by_epoch, quantity), quantity, about)
            drawn.append(picture(svg, f"{quantity.capitalize()} by epoch.{dashed}"))
    if any(by_step.values()):
        about = "; ".join(
            f"{run.name}: training loss {run.steps[0]['loss']:.3g} in the first step, "
            f"{run.steps[-1]['loss']:.3g} in the last"
            for run in runs
            if run.steps
        )
        caption = "Training loss by step. Bold: the mean over a fiftieth of the steps."
        drawn.append(picture(as_svg(plot_steps(by_step), "steps", about), caption))
        about = "; ".join(
            f"{run.name}: learning rate at most {max(step['lr'] for step in run.steps):.3g}, "
            f"{run.steps[-1]['lr']:.3g} at the end"
            for run in runs
            if run.steps
        )
        svg = as_svg(plot_learning_rate(by_step), "rate", about)
        drawn.append(picture(svg, "Learning rate by step."))
    return tag("div", *drawn, class_="grid")


def ends(run: Run, quantity: str) -> str:
    """Where the curves of a run begin and end, for those who cannot see them."""
    first, last = run.epochs[0], run.epochs[-1]
    number = "{:.1%}" if quantity == "accuracy" else "{:.3g}"
    changes = (
        f"{word} {quantity} from {number.format(first[f'{split}_{quantity}'])} "
        f"to {number.format(last[f'{split}_{quantity}'])}"
        for split, word in (("val", "test"), ("train", "training"))
    )
    return f"{run.name}: {', '.join(changes)} in {len(run.epochs)} epochs"


def picture(content: Html, caption: str, **attributes: Any) -> Html:
    """A figure with its caption."""
    return tag("figure", content, tag("figcaption", caption), **attributes)


def classes(run: Run) -> Html:
    """The confusion matrix, and how well each class is recognised."""
    if run.confusion is None:
        return tag("p", "No confusion matrix has been recorded.", class_="quiet")
    confusion = run.confusion
    named = len(confusion.classes) <= MOST_NAMED
    parts = (
        matrix(confusion) if named else matrix_picture(run, confusion),
        mistakes(confusion),
        accuracies(confusion),
    )
    return tag("div", *parts, class_="flow")


def matrix(confusion: Confusion) -> Html:
    """The confusion matrix as a table, shaded by the part of the row's images."""
    shares = np.sqrt(confusion.counts / np.maximum(confusion.counts.sum(axis=1, keepdims=True), 1))
    names = [shortened(name) for name in confusion.classes]
    head = [tag("th", tag("span", name), scope="col") for name in names]
    rows = [
        [
            name,
            *(
                tag("td", n or "", style=f"--part:{0.65 * s:.2f}")
                for n, s in zip(*row, strict=True)
            ),
        ]
        for name, *row in zip(names, confusion.counts.tolist(), shares.tolist(), strict=True)
    ]
    caption = (
        "Confusion matrix: a row for each class, in the columns what its images were taken for"
    )
    return table(caption, ["", *head], rows, class_="confusion")


def matrix_picture(run: Run, confusion: Confusion) -> Html:
    """The confusion matrix as a picture, where there is no room for names."""
    about = f"Confusion matrix of {run.name}, {len(confusion.classes)} classes"
    caption = "Confusion matrix, a row for each class in their order. Right is the diagonal."
    return picture(as_image(shades(confusion), about), caption, class_="matrix")


def mistakes(confusion: Confusion) -> Html:
    """The pairs of classes that are mixed up most."""
    wrong = confusion.counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(wrong, axis=None, kind="stable")[::-1][:MOST_MISTAKES]
    names = [shortened(name, 40) for name in confusion.classes]
    rows = [
        [names[row], names[column], f"{wrong[row, column]:,}"]
        for row, column in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[row, column]
    ]
    return table("Most frequent mistakes", ["class", "taken for", "images"], rows)


def accuracies(confusion: Confusion) -> Html:
    """The accuracy of each class, the worst first."""
    shares, images = confusion.accuracies, confusion.counts.sum(axis=1)
    rows = []
    for index in np.argsort(shares, kind="stable"):  # classes without images, NaN, come last
        if images[index]:
            bar = f"--part:{shares[index]:.1%}"
            accuracy = tag("td", f"{shares[index]:.1%}", class_="bar", style=bar)
            name = shortened(confusion.classes[index], 40)
            rows.append([name, f"{images[index]:,}", accuracy])
    caption = "Accuracy of each class, the worst first"
    return table(caption, ["class", "test images", "accuracy"], rows, class_="numbers")


def filters(run: Run) -> Html:
    """The first layer's filters."""
    if run.filters is None:
        return tag("p", "No first layer that sees the image, or no checkpoint yet.", class_="quiet")
    count, channels, height, width = run.filters.shape
    kind = "grey" if channels == 1 else "colour"
    about = f"{count} {kind} filters of {height} x {width} of the first layer of {run.name}"
    caption = (
        f"The best checkpoint's {count} filters of {height} x {width}, all on one scale; "
        "zero is mid-grey."
    )
    return picture(as_image(filter_grid(run.filters), about), caption, class_="filters")


def epochs(run: Run) -> Html:
    """The table of epochs: all that was logged."""
    if not run.epochs:
        return tag("p", "The first epoch is not over.", class_="quiet")
    columns = [name for name in run.epochs[-1] if name != "kind"]
    rows = [
        tag(
            "tr",
            *cells([number(name, record.get(name)) for name in columns]),
            class_="best" if record is run.best else None,
        )
        for record in run.epochs
    ]
    head = [heading(name) for name in columns]
    return table("Every epoch; the best is bold", head, rows, class_="numbers")


def heading(name: str) -> str:
    """The name of a column as words.

    >>> heading("val_accuracy"), heading("images_per_second")
    ('test accuracy', 'images per second')
    """
    words = {"val": "test", "train": "training"}
    return " ".join(words.get(word, word) for word in name.split("_"))


def number(name: str, value: Any) -> str:
    """A number of a table, as exact as its column needs.

    >>> number("val_accuracy", 0.862), number("lr", 6.16e-09), number("step", 1042)
    ('86.20%', '6.16e-09', '1,042')
    """
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else "–" if value is None else str(value)
    forms = {"accuracy": ".2%", "top5": ".2%", "loss": "#.4g", "seconds": ",.1f", "second": ",.0f"}
    return format(value, forms.get(name.rpartition("_")[2], ".3g"))


def comparison(caption: str, runs: Sequence[Run], values: Sequence[dict[str, Any]]) -> Html:
    """A row for each name in any of `values`, one for each run; first, marked, what differs."""
    different: list[Html] = []
    same: list[Html] = []
    for name in dict.fromkeys(name for one in values for name in one):
        shown = [plain(one.get(name)) for one in values]
        differs = len(set(shown)) > 1
        label = f"{'≠ ' if differs else ''}{name.replace('_', ' ')}"
        code = [tag("code", value) if name == "command" else value for value in shown]
        row = tag("tr", *cells([label, *code]), class_="differs" if differs else None)
        (different if differs else same).append(row)
    if len(runs) > 1:
        caption += "; rows with ≠ differ between the runs"
    return table(caption, heads("", runs), different + same)


def plain(value: Any) -> str:
    """A value of a JSON file as people would write it.

    >>> plain(None), plain(True), plain([30, 60]), plain(0.002)
    ('–', 'yes', '30, 60', '0.002')
    """
    if value is None or value == []:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(plain, value)) if isinstance(value, list) else str(value)
