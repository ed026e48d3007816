"""Draw `augmentations.png`: every augmentation and every preprocessing on one sheet.

    python docs/images/make_augmentations.py

The grey images are the embedded ones of Fashion-MNIST. The coloured ones are computed here: hills
with a house, drawn from random numbers, so that there is a training set to measure.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from minidl.data import (
    PREPROCESSINGS,
    ArraySplit,
    Augmentation,
    FolderSplit,
    Preprocessing,
    Split,
    load,
)

AUGMENTATIONS = (
    ("flip", ""),
    ("crop", "7/8 of the shorter side"),
    ("pad-crop:12", "of 96 pixels, 4 of 32; black border"),
    ("pad-crop:12:reflect", "mirrored border"),
    ("scale:100:200", "shorter side, then a crop of 96"),
    ("resized-crop:0.08:1", "area; aspect 3/4 to 4/3"),
    ("colour:0.4:0:0", "brightness"),
    ("colour:0:0.4:0", "contrast"),
    ("colour:0:0:0.9", "saturation"),
    ("pca-colour:1", "ten times AlexNet's 0.1"),
    ("resized-crop,flip,colour,pca-colour", "all in one"),
)
# The same where images are a third as large.
SMALL = {"pad-crop:12": "pad-crop:4", "pad-crop:12:reflect": "pad-crop:4:reflect",
         "scale:100:200": "scale:34:66"}  # fmt: skip
VARIANTS = 4
TILE, GAP = 96, 6


def scene(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A landscape (3, height, width) uint8, with no two sides alike."""
    fine = 3  # samples a pixel and direction, averaged at the end
    down, across = np.mgrid[0 : height * fine, 0 : width * fine] / (height * fine)
    middle = width / height / 2
    warmth = random.random()
    sky = (0.45 + 0.5 * warmth, 0.65 + 0.1 * warmth, 0.95 - 0.35 * warmth)
    image = np.empty((3, height * fine, width * fine))
    for channel, top in zip(image, sky, strict=True):
        channel[...] = top * (0.55 + 0.6 * down)
    sun = np.hypot(across - random.uniform(0.1, 2 * middle - 0.1), down - random.uniform(0.1, 0.3))
    glow = np.exp(-((sun / 0.25) ** 2)) * 0.4
    image += np.array([1.0, 0.9, 0.5])[:, None, None] * np.where(sun < 0.07, 1, glow)

    def paint(mask: np.ndarray, colour: tuple[float, float, float], shade: np.ndarray) -> None:
        for channel, value in zip(image, colour, strict=True):
            channel[mask] = (value * shade)[mask]

    ripple = np.sin(22 * across + 6 * np.sin(9 * down)) * np.sin(25 * down + 3 * np.sin(7 * across))
    for level, green in ((0.45, 0.35), (0.62, 0.6)):
        slope, phase = random.uniform(-0.25, 0.25), random.uniform(0, 6)
        ridge = level + slope * (across - middle) + 0.05 * np.sin(5 * across + phase)
        ground = (0.3 * random.uniform(0.7, 1.4), green, 0.2 * random.uniform(0.8, 1.6))
        paint(down > ridge, ground, 1.1 - 0.4 * (down - ridge) + 0.08 * ripple)

    left, base = random.uniform(0.15, 2 * middle - 0.6), random.uniform(0.72, 0.85)
    wall = (across > left) & (across < left + 0.4) & (down > base - 0.25) & (down < base)
    paint(wall, (0.8, random.uniform(0.15, 0.6), 0.2), 1 - 0.5 * (across - left))
    roof = (down > base - 0.42) & (down < base - 0.25)
    roof &= np.abs(across - left - 0.2) < 0.26 * (down - base + 0.42) / 0.17
    paint(roof, (0.35, 0.2, 0.2), np.ones_like(down))
    door = (across > left + 0.05) & (across < left + 0.14) & (down > base - 0.16) & (down < base)
    paint(door, (0.25, 0.15, 0.1), np.ones_like(down))
    window = (across > left + 0.24) & (across < left + 0.34)
    window &= (down > base - 0.19) & (down < base - 0.1)
    paint(window, (1.0, 0.95, 0.6), np.ones_like(down))

    image = image.reshape(3, height, fine, width, fine).mean(axis=(2, 4))
    return np.clip(255 * image, 0, 255).astype(np.uint8)


def scenes(count: int, height: int, width: int) -> np.ndarray:
    """So many landscapes, (count, 3, height, width)."""
    random = np.random.default_rng(4)
    return np.stack([scene(random, height, width) for _ in range(count)])


def as_files(images: np.ndarray, folder: Path) -> Split:
    """Images (N, 3, H, W) as a folder of photographs for a network of TILE x TILE."""
    from PIL import Image

    paths = [folder / f"{number}.png" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image.transpose(1, 2, 0)).save(path)
    return FolderSplit(paths, np.zeros(len(paths), np.int64), ["landscape"], 3, TILE)


def tile(pixels: np.ndarray) -> np.ndarray:
    """An image (C, S, S) as (TILE, TILE, 3) uint8; S divides TILE."""
    pixels = np.clip(np.round(pixels), 0, 255).astype(np.uint8)
    colours = np.broadcast_to(pixels.transpose(1, 2, 0), (*pixels.shape[1:], 3))
    times = TILE // pixels.shape[1]
    return colours.repeat(times, axis=0).repeat(times, axis=1)


def variants(split: Split, text: str, image: int) -> list[np.ndarray]:
    """The image as evaluation shows it, and as training does in the first epochs."""
    augment = Augmentation.parse(text).fit(split)
    augment.check(split.image_size)
    shown = [tile(split.pixels(np.array([image]))[0])]
    for epoch in range(VARIANTS):
        draws = augment.draws(7, epoch, np.array([image]))
        pixels = split.pixels(np.array([image]), augment.crop, draws[:, 1:5])
        shown.append(tile(augment.apply(pixels, draws, split.flip)[0]))
    return shown


def inputs(split: Split, kind: str, images: list[int]) -> tuple[list[np.ndarray], str]:
    """Images after preprocessing, drawn from the 0.5th to the 99.5th percentile; and these."""
    result = Preprocessing.fit(kind, split)(split.pixels(np.array(images)))
    low, high = np.percentile(result, (0.5, 99.5))
    return [tile(255 * (x - low) / (high - low)) for x in result], f"{low:.3g} to {high:.3g}"


def main(path: Path) -> None:
    """Write the sheet to `path`."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from PIL import Image

    fashion = load(channels=1).train
    small = ArraySplit(scenes(600, 32, 32), np.zeros(600, np.int64), ["landscape"], 3, 32)

    label, step = 236, TILE + GAP
    first = 2 * (VARIANTS + 1) * step + 3 * GAP  # columns: a photo and a boot, 1 + 4 each
    top, between = 62, 78
    height = top + (len(AUGMENTATIONS) + len(PREPROCESSINGS)) * step + between
    sheet = np.full((height, label + first, 3), 255, np.uint8)
    texts: list[tuple[float, float, str, dict[str, object]]] = []

    def place(tiles: list[np.ndarray], row: float, column: float) -> None:
        for number, pixels in enumerate(tiles):
            y, x = int(row), int(column) + number * step
            sheet[y : y + TILE, x : x + TILE] = pixels

    def name(row: float, title: str, remark: str) -> None:
        texts.append((label - 14, row + TILE / 2 - 9, title, {"ha": "right", "size": 9.5}))
        style = {"ha": "right", "size": 8, "color": "0.4"}
        texts.append((label - 14, row + TILE / 2 + 11, remark, style))

    second = label + (VARIANTS + 1) * step + 3 * GAP
    heading = {"ha": "left", "size": 12, "weight": "bold"}
    texts.append((14, 20, "Augmentation", heading))
    for column in (label, second):
        texts.append((column + TILE / 2, 46, "evaluated", {"ha": "center", "size": 8.5}))
        middle = column + step + VARIANTS * step / 2
        texts.append((middle, 46, "four epochs of training", {"ha": "center", "size": 8.5}))
    row = top
    with TemporaryDirectory() as folder:
        photos = as_files(scenes(40, 128, 168), Path(folder))
        for text, remark in AUGMENTATIONS:
            lines = text.replace(",flip,", ",flip,\n")
            name(row, lines, remark if "\n" not in lines else "")
            place(variants(photos, text, 1), row, label)
            place(variants(fashion, SMALL.get(text, text), 0), row, second)
            row += step
    row += between
    texts.append((14, row - between + 24, "Preprocessing", heading))
    note = "what the network sees, drawn from the 0.5th to the 99.5th percentile, given on the left"
    texts.append((label, row - 18, note, {"ha": "left", "size": 8.5}))
    for kind in PREPROCESSINGS:
        grey, grey_range = inputs(fashion, kind, [0, 1, 7, 12, 15])
        coloured, range_ = inputs(small, kind, [1, 2, 5, 8, 13])
        name(row, kind, f"{range_} | {grey_range}")
        place(coloured, row, label)
        place(grey, row, second)
        row += step

    figure = plt.figure(figsize=(sheet.shape[1] / 100, sheet.shape[0] / 100), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(sheet, interpolation="nearest", extent=(0, sheet.shape[1], sheet.shape[0], 0))
    axes.axis("off")
    for x, y, text, style in texts:
        axes.text(x, y, text, va="center", **style)  # type: ignore[arg-type]
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]  # type: ignore[attr-defined]
    plt.close(figure)
    coarse = np.round(pixels / 5).astype(np.uint8) * np.uint8(5)  # two thirds of the file's size
    Image.fromarray(coarse).save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("augmentations.png"))
