"""Damaged data files by the thousand: an error that names the file in one line, or a right result.

Neither a hang nor a request for memory beyond what the file can hold: that is what a header may
claim, and a few bytes of gzip or PNG unpack to.
"""

import gzip
import io
import math
import random
import resource
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from minidl.data import load
from minidl.data.cifar import CIFAR10, CIFAR100, read_cifar_file
from minidl.data.idx import read_idx
from minidl.data.images import decode, load_and_cut, open_image
from minidl.errors import DataError, ImageError

# Pillow warns of damaged metadata, and goes on to decode the pixels.
pytestmark = pytest.mark.filterwarnings("ignore")


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, left out or put in, most of them in the headers; often cut off."""
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        position = rng.randrange(max(1, min(len(damaged), rng.choice((16, 60, 300, 10**6)))))
        kind = rng.randrange(9)
        if kind == 0:
            del damaged[position:]
        elif kind < 3:
            del damaged[position : position + rng.randrange(1, 9)]
        elif kind < 5:
            damaged[position:position] = rng.randbytes(rng.randrange(1, 9))
        elif damaged:
            value = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
            damaged[position % len(damaged)] = value
    return bytes(damaged)


def complaint(error, path):
    text = str(error.value if isinstance(error, pytest.ExceptionInfo) else error)
    assert str(path) in text
    assert "\n" not in text
    assert len(text) < 1000
    return text


# ---- image files ----


def image_files():
    """A small file of each kind that Pillow writes and a folder may hold."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    palette, grey = image.convert("P"), image.convert("L")
    deep = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    for kind, source, options in (
        ("JPEG", image, {}), ("JPEG", image, {"progressive": True}), ("JPEG", grey, {}),
        ("JPEG", image.convert("CMYK"), {}), ("PNG", image, {}), ("PNG", deep, {}),
        ("PNG", palette, {"transparency": 3}), ("PNG", image.convert("RGBA"), {}),
        ("GIF", image, {}), ("GIF", image, {"save_all": True, "append_images": [grey]}),
        ("BMP", image, {}), ("BMP", palette, {}), ("PPM", image, {}), ("PPM", grey, {}),
        ("TIFF", image, {}), ("TIFF", deep, {}), ("TIFF", image, {"compression": "tiff_lzw"}),
        ("TIFF", image, {"compression": "tiff_adobe_deflate"}),
        ("TIFF", image, {"compression": "jpeg"}), ("TIFF", grey, {"compression": "packbits"}),
        ("TIFF", image.convert("1"), {"compression": "group4"}),
        ("WEBP", image, {}), ("WEBP", image, {"lossless": True}),
    ):  # fmt: skip
        stream = io.BytesIO()
        source.save(stream, kind, **options)
        yield stream.getvalue()


@pytest.mark.parametrize("count", [300, pytest.param(5000, marks=pytest.mark.slow)])
def test_damaged_images_are_named_or_decoded(tmp_path, count):
    path, rng, files = tmp_path / "image.jpg", random.Random(count), list(image_files())
    refused, before = 0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(count):
        path.write_bytes(mutated(files[number % len(files)], rng))
        channels = rng.choice((1, 3))
        try:
            if rng.random() < 0.5:
                image = decode(path, channels)
                assert image.mode == ("RGB" if channels == 3 else "L")
            else:
                opened = open_image(path)
                box = (0.0, 0.0, float(opened.width), float(opened.height))
                assert load_and_cut(opened, channels, 8, box).shape == (channels, 8, 8)
        except ImageError as error:
            complaint(error, path)
            refused += 1
    assert count / 2 < refused < count
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB
    assert grown < 1 << 20  # an image may have 89 million pixels, of 4 bytes each


def png_header(width, height):
    """A PNG file that claims a size and ends."""
    stream = io.BytesIO()
    Image.new("RGB", (1, 1)).save(stream, "PNG")
    content = bytearray(stream.getvalue())
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


@pytest.mark.parametrize(
    ("width", "height", "reason"),
    [
        (10_000, 10_000, "100,000,000 pixels, expected at most 89,478,485"),
        (2**31 - 1, 2**31 - 1, "exceeds limit"),
        (0, 5, "."),
    ],
)
def test_images_that_claim_too_many_pixels_or_none(tmp_path, width, height, reason):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(width, height))
    with pytest.raises(ImageError, match=reason) as error:
        decode(path, 3)
    complaint(error, path)


def test_postscript_and_the_like_are_no_images(tmp_path):
    """Pillow would hand it to another program, and wait for that."""
    path = tmp_path / "page.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nloop\n")
    with pytest.raises(ImageError, match="not a format that Pillow knows"):
        decode(path, 3)


# ---- IDX and CIFAR files ----


def idx(array):
    return (
        bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + bytes(array)
    )


@pytest.fixture
def mnist(tmp_path):
    """A tiny data set, some of its files gzipped."""
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 12), ("t10k", 6)):
        images = rng.integers(0, 256, (count, 8, 7), dtype=np.uint8)
        (tmp_path / f"{prefix}-images-idx3-ubyte").write_bytes(idx(images))
        labels = gzip.compress(idx(np.arange(count, dtype=np.uint8) % 10))
        (tmp_path / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(labels)
    return tmp_path


@pytest.fixture
def cifar10(tmp_path):
    """A tiny data set, with the names of its classes."""
    for i, name in enumerate([*CIFAR10.train_files, *CIFAR10.test_files]):
        (tmp_path / name).write_bytes((bytes([i]) + bytes([17 * i, 255]) * 1536) * 2)
    (tmp_path / CIFAR10.names_file).write_text("\n".join("abcdefghij"))
    return tmp_path


@pytest.mark.parametrize("count", [150, pytest.param(2500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["mnist", "cifar10"])
def test_damaged_sets_are_refused_or_read(request, kind, count):
    folder, rng, refused = request.getfixturevalue(kind), random.Random(count), 0
    contents = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    for _ in range(count):
        path = rng.choice(list(contents))
        path.write_bytes(mutated(contents[path], rng))
        try:
            splits = load(f"{kind}:{folder}", image_size=8)
            for split in (splits.train, splits.val):
                images, labels = split.batch(np.arange(len(split)))
                assert images.shape == (len(split), 3, 8, 8)
                assert np.isfinite(images).all()
                assert labels.min() >= 0
                assert labels.max() < 10
        except DataError as error:
            complaint(error, folder)
            refused += 1
        path.write_bytes(contents[path])
    assert count / 4 < refused < count


@given(
    st.integers(1, 3).flatmap(
        lambda ndim: st.tuples(
            st.just(ndim),
            st.one_of(
                st.binary(max_size=40),
                st.binary(max_size=40).map(lambda tail: bytes([0, 0, 8, ndim]) + tail),
                st.lists(st.integers(0, 6), min_size=ndim, max_size=ndim).map(
                    lambda shape: idx(np.full(shape, 7, np.uint8))
                ),
            ),
            st.booleans(),
        )
    )
)
def test_any_bytes_as_an_idx_file(tmp_path_factory, case):
    ndim, content, zipped = case
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(gzip.compress(content) if zipped else content)
    try:
        values = read_idx(path, ndim)
    except DataError as error:
        complaint(error, path)
    else:
        assert idx(values) == content


@given(content=st.binary(max_size=20), records=st.integers(0, 3), layout=st.booleans())
def test_any_bytes_as_a_cifar_file(tmp_path_factory, content, records, layout):
    kind = CIFAR100 if layout else CIFAR10
    path = tmp_path_factory.mktemp("cifar") / "file"
    path.write_bytes(content + bytes(records * (kind.label_bytes + 3072)))
    try:
        images, labels = read_cifar_file(path, kind)
    except DataError as error:
        complaint(error, path)
    else:
        assert not content
        assert len(images) == len(labels) == records > 0


def peak_of_refusal(path, ndim, reason):
    """The bytes that were allocated at most until `read_idx` refused the file."""
    tracemalloc.start()
    with pytest.raises(DataError, match=reason) as error:
        read_idx(path, ndim)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    complaint(error, path)
    return peak


def test_headers_that_promise_more_than_there_is_cost_no_memory(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte"
    for shape in ((2**32 - 1,) * 3, (60_000, 28, 28), (10**5, 10**5, 1), (2**32 - 1, 2**32 - 1, 0)):
        header = bytes([0, 0, 8, 3]) + struct.pack(">3I", *shape)
        reason = "truncated IDX file" if math.prod(shape) else "expected at least one value"
        path.write_bytes(header)
        assert peak_of_refusal(path, 3, reason) < 1 << 20
        path.write_bytes(gzip.compress(header))
        assert peak_of_refusal(path, 3, f"{reason}|to unpack|unpack to") < 100 << 20


def test_gzip_bombs_are_not_unpacked(tmp_path):
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(idx(np.zeros(10, np.uint8)) + bytes(64 << 20), 1))
    assert peak_of_refusal(path, 1, "IDX file is too long: .* has at least 19 bytes") < 1 << 20
    claim = bytes([0, 0, 8, 1]) + struct.pack(">I", 2**32 - 1)
    path.write_bytes(gzip.compress(claim + bytes(4 << 20)))
    assert peak_of_refusal(path, 1, "bytes that unpack to 4,294,967,303") < 1 << 20
