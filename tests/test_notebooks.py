"""The notebooks are what their sources and the exercises say, and run with the solutions."""

import importlib.util
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parents[1] / "docs" / "notebooks"
SOURCES = sorted(path.name for path in NOTEBOOKS.glob("[0-9]*.py"))


@pytest.fixture(autouse=True)
def _needs_jupyter() -> None:
    for package in ("jupytext", "nbclient", "ipykernel", "matplotlib"):
        if importlib.util.find_spec(package) is None:
            if os.environ.get("CI", "").lower() == "true":
                pytest.fail(f"CI must build and run the notebooks, but {package} is not installed")
            pytest.skip(f"{package} is not installed: the notebooks are not checked")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of Jupyter's own parts
def test_notebooks_are_up_to_date(tmp_path: Path) -> None:
    """If not, run docs/notebooks/build.py."""
    runpy.run_path(str(NOTEBOOKS / "build.py"))["build"](tmp_path)
    assert len(SOURCES) == 4
    for built in sorted(tmp_path.iterdir()):
        assert built.read_text() == (NOTEBOOKS / built.name).read_text(), built.name


@pytest.mark.slow
def test_notebooks_run_with_the_solutions() -> None:
    command = [sys.executable, str(NOTEBOOKS / "build.py"), "--run"]
    root = str(NOTEBOOKS.parents[1])
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == SOURCES
    assert sum(int(line.split()[-3]) for line in done.stdout.splitlines()) == 20
