"""Options and checkpoints at random give a right result or one line, and no half-written file.

`MINIDL_TEST_EXAMPLES=2000` tries as many of each.
"""

import contextlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl import train
from minidl.evaluate import main

JUNK = [
    "", "0", "-1", "1", "nan", "é", "\x00", "a/b", "..", "/", "32,33", "99999999999999999999",
    "[]", "/dev/full", "fc7", "features", "10-crop", "dense", "cuda:9", "mnist:", "folder:/dev",
    "lenet5", "inception_naive",
]  # fmt: skip
RIGHT = {
    "--arch": ["lenet5"],
    "--weights": ["run/last.safetensors"],
    "--image-size": ["32", "33"],
    "--data": ["fashion-mnist-small"],
    "--protocol": ["5-crop", "multi-scale", "dense"],
    "--scales": ["32,36", "40"],
    "--features": ["classifier.fc2", "features.pool1"],
    "--out": ["o.npz"],
    "--json": ["o.json"],
    "--confusion": ["o.csv"],
    "--batch-size": ["1", "64"],
    "--device": ["cpu"],
    "--threads": ["1", "2"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a run in it."""
    root = tmp_path_factory.mktemp("fuzz")
    short = ["--arch", "lenet5", "--limit", "8", "--epochs", "1", "--out", str(root / "run")]
    assert train.main(short) == 0
    return root


def check(folder, arguments):
    """Run the command in `folder`; it ends well, or with one line."""
    errors = io.StringIO()
    before = sorted(folder.rglob("*"))
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stderr(errors),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        try:
            status = main(arguments)
        except SystemExit as stop:
            status = stop.code
    assert status in (0, 2)
    assert len(errors.getvalue().splitlines()) == (status == 2), errors.getvalue()
    written = set(folder.rglob("*")) - set(before)
    assert not any(path.name.endswith(".partial") for path in written)
    assert status == 0 or not written
    for path in written:
        path.unlink()


@st.composite
def options(draw):
    arguments = draw(st.lists(st.sampled_from(["run", "run/best.safetensors", *JUNK]), max_size=2))
    for name in draw(st.lists(st.sampled_from(sorted(RIGHT)), max_size=4, unique=True)):
        values = st.one_of(st.sampled_from(RIGHT[name]), st.sampled_from(JUNK))
        arguments.append(f"{name}={draw(values)}")
    return [*arguments, "--limit", "2", *draw(st.sampled_from([[], ["--flip"]]))]


@given(arguments=options())
def test_options_at_random(folder, arguments):
    check(folder, arguments)


@given(
    place=st.floats(0, 1),
    bytes_there=st.binary(max_size=4),
    cut=st.booleans(),
    in_header=st.booleans(),
)
def test_damaged_checkpoints(folder, place, bytes_there, cut, in_header):
    content = (folder / "run" / "last.safetensors").read_bytes()
    at = int(place * (3000 if in_header else len(content)))
    end = b"" if cut else content[at + len(bytes_there) :]
    damaged = folder / "damaged.safetensors"
    damaged.write_bytes(content[:at] + bytes_there + end)
    check(folder, ["damaged.safetensors", "--limit", "2"])
