"""Write the tables of docs/recipes.md and the picture of all schedules: python docs/recipes.py

Both come from minidl/training/recipes.toml, so run it after a change there.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import minidl as md
from minidl.training import Settings, default_settings
from minidl.training.optimization import make_schedule
from minidl.training.recipe_text import shown
from minidl.training.recipes import PaperRecipe, paper_recipes

DOCS = Path(__file__).parent
PAGE, PICTURE = DOCS / "recipes.md", DOCS / "images" / "schedules.png"
BEGIN = "<!-- Written by docs/recipes.py from here on. -->"


def in_words(values: dict[str, Any]) -> str:
    """How the learning rate of a recipe goes."""
    gamma = shown([f"{factor:g}" for factor in values.get("gamma", [])])
    match values["schedule"]:
        case "plateau":
            course = f"x {gamma} after {values['patience']} epochs without progress, to "
            course += f"{values['min_lr']:g}"
        case "multistep":
            course = f"x {gamma} after {shown(values['milestones'])}"
        case "step":
            course = f"x {gamma} every {shown(values['step_size'])}"
        case name:
            course = {"polynomial": f"polynomial of power {values.get('power', 1.0):g}"}.get(
                name, name
            )
    if values.get("warmup"):
        start, end = values.get("warmup_from", 1 / 3), values.get("warmup_to", 1.0)
        course += f"; {values['warmup']:g} epochs from x {start:.2g} to x {end:g}"
    return f"{values['lr']:g}, {course}"


def optimizer(values: dict[str, Any]) -> str:
    """The optimiser of a recipe and its numbers."""
    text = f"{values['optimizer']}, momentum {values['momentum']:g}"
    text += " Nesterov" if values.get("nesterov") else ""
    if values["optimizer"] == "rmsprop":
        text += f", alpha {values['alpha']:g}, eps {values['eps']:g}"
    return text


def batch(values: dict[str, Any]) -> str:
    """The batch of a recipe, and its parts."""
    parts = values.get("accumulate", 1)
    return f"{values['batch_size']}" if parts == 1 else f"{values['batch_size']} in {parts} parts"


def also(values: dict[str, Any]) -> str:
    """What only some recipes set."""
    names = ("dropout", "label_smoothing", "clip_norm", "average", "aux_weight")
    return ", ".join(
        f"{name.replace('_', ' ')} {values[name]:g}" for name in names if name in values
    )


def rows(recipes: dict[str, PaperRecipe]) -> Iterator[tuple[str, ...]]:
    """One row a recipe, for people."""
    for recipe in recipes.values():
        values = recipe.settings
        yield (
            f"[{recipe.name}](#{recipe.name})", batch(values), optimizer(values), in_words(values),
            str(values["epochs"]), f"{values['weight_decay']:g}", also(values),
        )  # fmt: skip


def page() -> str:
    """All that follows the handwritten part of the page."""
    recipes = paper_recipes()
    head = ("recipe", "batch", "optimiser", "learning rate", "epochs", "weight decay", "also")
    lines = [BEGIN, "", "## All of them", "", _row(head), _row(["---"] * len(head))]
    lines += [_row(row) for row in rows(recipes)]
    lines += ["", "Epochs throughout, also in the column of the learning rate.", ""]
    for recipe in recipes.values():
        values = recipe.settings
        lines += [
            f"### {recipe.name}",
            "",
            f"For {', '.join(recipe.archs)}. Source: {recipe.source}. Data: {recipe.data}.",
            "",
            f"- images of {values['image_size']}, augmented by `{values['augment']}`, "
            f"then `{values['preprocess']}`",
            f"- weights: `{values['init']}`",
            "",
            "What deviates, or is not in the source:",
            "",
            *(f"- {substitute}" for substitute in recipe.substitutes),
            "",
        ]
    return "\n".join(lines)


def _row(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def rates(settings: Settings, steps_per_epoch: int = 20) -> tuple[list[float], list[float]]:
    """Epochs, and the learning rate at each of them.

    For plateau the test loss is imagined: it halves its distance to a floor every two epochs, and
    the floor is lower the smaller the rate.
    """
    optimizer = md.optim.SGD([md.nn.Parameter(md.ones(1))], lr=settings.lr)
    schedule = make_schedule(settings, optimizer, steps_per_epoch)
    group = optimizer.param_groups[0]
    if isinstance(schedule, md.optim.ReduceLROnPlateau):
        found, loss = [], 7.0
        for _ in range(settings.epochs):
            found.append(group["lr"])
            floor = 2.0 + (group["lr"] / settings.lr) ** 0.5
            loss = floor + (loss - floor) * 0.5**0.5
            schedule.step(round(loss, 2))
        return [float(epoch) for epoch in range(settings.epochs)], found
    found = []
    for _ in range(settings.epochs * steps_per_epoch):
        found.append(group["lr"])
        schedule.step()
    return [step / steps_per_epoch for step in range(len(found))], found


def plot(path: Path) -> None:
    """The learning rates of all recipes, each over its epochs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = {name: (recipe.archs[0], "paper") for name, recipe in paper_recipes().items()}
    panels |= {"--recipe cifar": ("resnet20_cifar", "cifar"), "--recipe tiny": ("vgg16", "tiny")}
    curves: dict[Any, list[str]] = {}
    for name, (arch, recipe) in panels.items():
        settings = default_settings(arch, recipe=recipe)
        epochs, found = rates(settings)
        key = (settings.schedule, tuple(epochs), tuple(found))
        curves.setdefault(key, []).append(name)  # several papers have the same
    columns = 4
    figure = Figure(figsize=(13, 2.3 * -(-len(curves) // columns)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(-(-len(curves) // columns), columns, squeeze=False).ravel()
    for axes, ((schedule, epochs, found), names) in zip(grid, curves.items(), strict=False):
        axes.step(epochs, found, where="post", color="tab:blue")
        if min(found) > 0.2 * max(found) or schedule in ("cosine", "polynomial"):
            axes.set_ylim(0, 1.08 * max(found))
        else:
            axes.set_yscale("log")
        axes.set_title(
            "\n".join([", ".join(names[i : i + 2]) for i in range(0, len(names), 2)]), fontsize=9
        )
        axes.annotate(
            schedule, (0.97, 0.9), xycoords="axes fraction", ha="right", va="top", color="gray"
        )
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[len(curves) :]:
        axes.set_visible(False)
    figure.supxlabel("epoch", fontsize=10)
    figure.supylabel("learning rate", fontsize=10)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=80)


def main() -> None:
    """Write both."""
    by_hand, _, _ = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(by_hand + page(), encoding="utf-8")
    plot(PICTURE)
    print(f"wrote {PAGE} and {PICTURE}")


if __name__ == "__main__":
    main()
