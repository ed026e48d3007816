"""`python -m benchmarks.loader`: does the loader keep up with Pillow, and what does its index save?

JPEG files of about ImageNet's sizes are made in a temporary folder. Pillow alone decodes them and
resizes the square that the network sees, on as many threads as minidl's loader, whose batches are
also transposed, mirrored, standardised and put together; the two take turns. Then a folder of empty
files with ImageNet's names is listed for the first time, and again with the index.
"""

import argparse
import signal
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from minidl import installation
from minidl.data import Augmentation, DataLoader, FolderSplit
from minidl.data.crops import SquareCrop, central_square
from minidl.data.folder import LARGE, list_classes, read_folder
from minidl.data.index import SETTLED

from .commands import output_file, write_json
from .measure import MINIDL, paired_ratio, take_turns

SIZES = ((500, 375), (375, 500), (500, 333), (640, 480))  # width, height of the photos
QUALITY = 90  # of the JPEG files
DISTINCT = 16  # photos; the others are copies of them
PILLOW = "Pillow"
IMAGES_PER_CLASS = 1000
WORKS = {"evaluation": None, "training": Augmentation(SquareCrop(), flip=True)}


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loader", description=__doc__)
    parser.add_argument("--images", type=int, default=2048, metavar="N", help="photos; 2,048")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="32")
    parser.add_argument("--image-size", type=int, default=224, metavar="N", help="224")
    parser.add_argument(
        "--workers", type=int, default=installation.available_cpus(), metavar="N",
        help="threads; as many as processors",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="5")
    parser.add_argument(
        "--files", type=int, default=100_000, metavar="N",
        help="empty files to list; 100,000 (0: none)",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="512 photos, 3 rounds, 20,000 files")
    parser.add_argument(
        "--json", type=output_file, metavar="FILE", help="write all times to this file"
    )
    return parser


def make_photo(width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """Noise of all sizes, the finer the fainter, as in photos: its JPEG is as large as theirs."""
    pixels = np.zeros((height, width, 3), np.float32)
    for octave in range(8):
        coarse = Image.fromarray(
            rng.integers(0, 256, (2 + (3 << octave), 2 + (4 << octave), 3), dtype=np.uint8)
        )
        pixels += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)) * 1.1**octave
    return Image.fromarray((pixels / (pixels.max() / 255)).astype(np.uint8))


def make_photos(folder: Path, count: int) -> list[Path]:
    """JPEG files, a few different ones in turn."""
    rng = np.random.default_rng(0)
    paths = [folder / f"{i:05}.JPEG" for i in range(count)]
    for i, path in enumerate(paths):
        if i < DISTINCT:
            make_photo(*SIZES[i % len(SIZES)], rng).save(path, quality=QUALITY)
        else:
            path.write_bytes(paths[i % DISTINCT].read_bytes())
    return paths


def show(path: Path, size: int) -> tuple[int, int]:
    """What Pillow alone does with a file."""
    with Image.open(path) as image:
        box = central_square(*image.size)
        resized = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR, box=box)
        return resized.size


def measure_loading(args: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Images a second by work, mode and round."""
    with tempfile.TemporaryDirectory() as folder:
        paths = make_photos(Path(folder), args.images)
        mean_size = statistics.mean(path.stat().st_size for path in paths)
        print(f"{args.images} JPEG files of {mean_size / 1000:.0f} kB on average\n")
        split = FolderSplit(paths, np.zeros(len(paths), np.int64), ["photo"], 3, args.image_size)

        def alone() -> None:
            with ThreadPoolExecutor(args.workers) as pool:
                for _ in pool.map(partial(show, size=args.image_size), paths):
                    pass

        def load(augment: Augmentation | None) -> None:
            loader = DataLoader(split, args.batch_size, augment=augment, workers=args.workers)
            for _ in loader:
                pass

        speeds = {}
        for work, augment in WORKS.items():
            modes = {PILLOW: alone, MINIDL: partial(load, augment)}
            times = take_turns(modes, args.rounds)
            speeds[work] = {mode: [args.images / each for each in times[mode]] for mode in modes}
        return speeds


def ratio(speeds: dict[str, list[float]]) -> float:
    """minidl's speed over Pillow's, median of the rounds."""
    return paired_ratio(speeds[MINIDL], speeds[PILLOW])


def measure_index(files: int) -> dict[str, float]:
    """Seconds to list `files` empty files without and with the index, and bytes kept for each."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary, "train")
        for label in range(-(-files // IMAGES_PER_CLASS)):
            folder = root / f"n{label:08}"
            folder.mkdir(parents=True)
            for i in range(min(IMAGES_PER_CLASS, files - label * IMAGES_PER_CLASS)):
                (folder / f"n{label:08}_{i}.JPEG").touch()
        time.sleep(SETTLED / 1e9)  # what has changed just now is not trusted
        times = []
        for _ in range(2):
            begun = time.perf_counter()
            found = read_folder(root, list_classes(root))
            times.append(time.perf_counter() - begun)
            del found
        tracemalloc.start()
        found = read_folder(root, list_classes(root))
        kept = tracemalloc.get_traced_memory()[0]
        paths = list(found[0])
        more = tracemalloc.get_traced_memory()[0] - kept
        tracemalloc.stop()
        return {
            "files": files,
            "first": times[0],
            "again": times[1],
            "bytes": kept / files,
            "bytes of a Path": more / len(paths),
        }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a table, write JSON if asked; returns the exit status."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.quick:
        args.images, args.rounds, args.files = 512, 3, LARGE
    for name in ("images", "batch_size", "image_size", "workers", "rounds"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    facts = installation.collect_config()[0]
    print(
        f"{args.image_size} x {args.image_size}, batches of {args.batch_size}, {args.workers} "
        f"threads, median of {args.rounds} rounds\n{facts['processor']}"
    )
    figures: dict[str, Any] = {"images_per_second": measure_loading(args)}
    print(f"{'images/s':14}{PILLOW:>8}{MINIDL:>8}{'ratio':>7}")
    for work, speeds in figures["images_per_second"].items():
        cells = "".join(f"{statistics.median(speeds[mode]):8.0f}" for mode in (PILLOW, MINIDL))
        print(f"{work:14}{cells}{ratio(speeds):7.2f}")
    if args.files > 0:
        index = figures["index"] = measure_index(args.files)
        print(
            f"\n{args.files:,} files: listed in {index['first']:.3f} s, with the index in "
            f"{index['again']:.3f} s; {index['bytes']:.0f} bytes each, a Path takes "
            f"{index['bytes of a Path']:.0f} more"
        )
    if args.json:
        write_json(args, facts, figures)
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end quietly when `| head` has seen enough
    sys.exit(main())
