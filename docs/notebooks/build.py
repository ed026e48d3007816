"""Notebooks from their sources: `python docs/notebooks/build.py [--run]`.

The sources are the numbered .py files beside this one (jupytext's percent format). Tasks and stubs
in them are refreshed from minidl.exercises, then the .ipynb files are written. With --run nothing
is written: each notebook is executed with the solutions in the places of the stubs.
Needs `pip install 'minidl[notebooks]'`.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient

from minidl.exercises.catalogue import EXERCISES
from minidl.exercises.folder import Folder
from minidl.exercises.sources import answer, empty_code, solved_code

HERE = Path(__file__).parent


def sources() -> list[Path]:
    """The notebooks' sources, chapter by chapter."""
    return sorted(HERE.glob("[0-9]*.py"))


def read(source: Path, *, solved: bool = False) -> Any:
    """A notebook with today's tasks and stubs, or with the solutions."""
    notebook = jupytext.read(source, fmt="py:percent")
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
        kind, *names = cell.metadata.get("tags", [""])
        if kind not in ("task", "exercise"):
            continue
        exercise = EXERCISES[names[0]]
        if kind == "task":
            title = f"## Exercise {exercise.number}: {exercise.title}"
            cell.source = f"{title}\n\n```text\n{exercise.task}\n```"
        else:
            cell.source = (solved_code if solved else empty_code)(exercise).rstrip()
    notebook.metadata["kernelspec"] = {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    notebook.metadata.pop("jupytext", None)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def build(folder: Path) -> None:
    """Write refreshed sources and notebooks into a folder."""
    for source in sources():
        notebook = read(source)
        text = jupytext.writes(notebook, fmt="py:percent")
        cells = text[text.index("# %%") :]  # without the header, which names versions
        (folder / source.name).write_text(cells)
        target = folder / source.with_suffix(".ipynb").name
        target.write_text(nbformat.writes(notebook) + "\n")


def run(source: Path) -> None:
    """Execute a notebook with the solutions; raises where a cell or a check fails."""
    with tempfile.TemporaryDirectory() as path:
        folder, _ = Folder.start(str(Path(path, "minidl-exercises")))
        for exercise in EXERCISES.values():
            folder.file(exercise).write_text(answer(exercise))
        notebook = read(source, solved=True)
        NotebookClient(notebook, timeout=120, kernel_name="python3").execute(cwd=path)
    checks = 0
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.source.startswith("check("):
            shown = "".join(str(output.get("data", "")) for output in cell.outputs)
            if ": passed" not in shown:
                raise RuntimeError(f"{source.name}: {cell.source} shows {shown or 'nothing'}")
            checks += 1
    print(f"{source.name}: {len(notebook.cells)} cells, {checks} checks passed")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", action="store_true", help="execute instead of writing")
    if parser.parse_args().run:
        for source in sources():
            run(source)
    else:
        build(HERE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
