"""Batches of a split: shuffled, augmented and prefetched, the same on every run and machine."""

import math
import sys
import weakref
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from numbers import Integral

import numpy as np

from .._kernels.cpu.threads import available_cpus
from ..errors import DataError, ImageError
from .augment import Augmentation
from .splits import Split

Batch = tuple[np.ndarray, np.ndarray]

# What happens to an image that cannot be decoded, in the words of the message that says so.
POLICIES = {"fail": "", "replace": "its successor is shown instead", "drop": "it is left out"}

MOST_WORKERS = 16  # by default; more decode no faster, as parts of Pillow hold Python's lock
# How many images may be bad before something else must be wrong: some, or a tenth of all.
TOLERATED = 10
LONGEST_SEARCH = 100  # for an image to show instead of a bad one


@dataclass
class _Making:
    """A batch while threads fill it in, each its own rows."""

    images: np.ndarray  # (N, C, S, S) float32
    labels: np.ndarray  # (N,) int64
    good: np.ndarray  # (N,) bool: the image could be decoded
    parts: list[Future[dict[int, str]]] = field(default_factory=list)  # of the images that are bad


class _Memory:
    """Memory for batches, taken again once nobody holds a view of the batch that was in it.

    Of the system, 40 MB of fresh memory a batch cost up to half as much time as the decoding.
    """

    def __init__(self) -> None:
        self._spare: list[np.ndarray] = []

    def array(self, *shape: int) -> np.ndarray:
        """Uninitialised float32 of that shape."""
        size = math.prod(shape)
        block = self._spare.pop() if self._spare else np.empty(size, np.float32)
        if block.size < size:
            block = np.empty(size, np.float32)
        # All views of this array refer to it, and not to the block, which it has from a buffer.
        array = np.frombuffer(block.data, np.float32, size)
        weakref.finalize(array, self._spare.append, block).atexit = False
        return array.reshape(shape)


class DataLoader:
    """Iterate over a split in batches of NumPy arrays.

    A split is half of what :func:`load` opens, or one's own arrays: ``ArraySplit(images, labels)``.
    A batch is images (N, C, H, W) float32 and labels (N,) int64; the last one may be smaller
    unless ``drop_last``. ``shuffle`` and ``augment`` are for training: the order depends on
    (``seed``, epoch) alone, what ``augment`` does to an image on (``seed``, epoch, image) alone, so
    a resumed run sees what the uninterrupted one would have seen, whatever ``workers`` is.

    ``augment`` is a text, as :meth:`Augmentation.parse` reads it, or what that gives. If it needs
    to know the split's colours, they are measured now.

    Every iteration is a new epoch: the first is epoch 0, or what :meth:`set_epoch` said.
    ``limit`` takes that many images only, always the same ones, spread evenly over the split.

    Batches are made ahead in ``workers`` background threads (None: as many as there are
    processors, 16 at most), several of which share a batch. An error there is raised in the loop
    that consumes the batches; leaving that loop early ends the threads.

    ``on_bad_image`` says what to do about an image that cannot be decoded:

    - ``"fail"``: raise the ``ImageError``, which names the file
    - ``"replace"``, for training: show the next image of the split that can be decoded, of the
      same class as a rule. Batches keep their size and number, so that every step weighs the same
    - ``"drop"``, for evaluation: leave it out, so that no image counts twice. A batch of which
      nothing is left is passed over

    With the latter two each bad file is named once on standard error, and counted at the end of an
    epoch. Which images a batch shows depends on the files alone. More bad images than ten and a
    tenth of all raise ``DataError``, as do a hundred successors none of which can be decoded.

    Raises ``TypeError`` for anything but a split, and for what is no integer or no augmentation;
    ``ValueError`` for a ``batch_size``, ``limit`` or ``workers`` below 1 or a ``seed`` below 0, for
    another ``on_bad_image``, and for an ``augment`` that is unknown or cannot be done to images
    like the split's.

    >>> from minidl.data import load
    >>> loader = DataLoader(load().train, batch_size=64, shuffle=True, limit=100)
    >>> [(images.shape, labels.shape) for images, labels in loader]
    [((64, 3, 32, 32), (64,)), ((36, 3, 32, 32), (36,))]
    >>> len(loader), loader.epoch
    (2, 1)
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        shuffle: bool = False,
        augment: Augmentation | str | None = None,
        seed: int = 0,
        drop_last: bool = False,
        limit: int | None = None,
        workers: int | None = None,
        on_bad_image: str = "fail",
    ) -> None:
        if not isinstance(split, Split):
            raise TypeError(
                f"DataLoader: expected a split, such as md.data.load().train or, of arrays, "
                f"md.data.ArraySplit(images, labels), minidl's TensorDataset; "
                f"got {type(split).__name__}"
            )
        numbers = [("batch_size", batch_size, 1), ("seed", seed, 0)]
        numbers += [("limit", limit, 1)] if limit is not None else []
        numbers += [("workers", workers, 1)] if workers is not None else []
        for name, value, least in numbers:
            if not isinstance(value, Integral):
                raise TypeError(f"DataLoader: {name} is {value!r}, expected an integer")
            if value < least:
                raise ValueError(f"DataLoader: {name} is {value}, expected at least {least}")
        if on_bad_image not in POLICIES:
            raise ValueError(
                f"DataLoader: on_bad_image is {on_bad_image!r}, expected {', '.join(POLICIES)}"
            )
        self.split = split
        self.batch_size = int(batch_size)  # NumPy's integers overflow
        self.shuffle = shuffle
        self.augment = None if augment is None else _fitted(augment, split)
        self.seed = int(seed)
        self.drop_last = drop_last
        self.num_images = len(split) if limit is None else min(int(limit), len(split))
        self.workers = int(workers or min(available_cpus(), MOST_WORKERS))
        self.on_bad_image = on_bad_image
        self.bad: dict[int, str] = {}  # what is wrong with them, by their number in the split
        self.epoch = 0

    def __repr__(self) -> str:
        augment = "" if self.augment is None else f", augment='{self.augment}'"
        return (
            f"DataLoader({self.split}, batch_size={self.batch_size}, shuffle={self.shuffle}"
            f"{augment})"
        )

    def __len__(self) -> int:
        """The number of batches of an epoch."""
        if self.drop_last:
            return self.num_images // self.batch_size
        return math.ceil(self.num_images / self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration be this epoch, for a run that resumes."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        epoch = self.epoch
        self.epoch += 1
        return self.batches(epoch)

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of ``epoch`` from number ``first`` on; those before it cost nothing."""
        order = self.order(epoch)
        starts = iter(range(first * self.batch_size, len(self) * self.batch_size, self.batch_size))
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="minidl-data")

        memory = _Memory()

        def begin(start: int) -> _Making:
            return self._begin(pool, memory, order[start : start + self.batch_size], epoch)

        # While one batch is waited for, the parts of those ahead of it keep all threads busy.
        parts = math.ceil(self.batch_size / self.split.images_per_task)
        ahead = 1 + math.ceil(self.workers / parts)
        bad = 0
        try:
            pending = deque(begin(start) for start in islice(starts, ahead))
            while pending:
                batch = pending.popleft()
                wait(batch.parts, return_when=FIRST_EXCEPTION)  # woken once, not for each part
                for part in batch.parts:
                    self._note(part.result())
                pending.extend(begin(start) for start in islice(starts, 1))
                bad += int((~batch.good).sum())
                if self.on_bad_image != "drop" or batch.good.all():
                    yield batch.images, batch.labels
                elif batch.good.any():
                    yield batch.images[batch.good], batch.labels[batch.good]
                del batch  # its memory may be free now
        finally:
            pool.shutdown(cancel_futures=True)
        if bad:
            done = "replaced" if self.on_bad_image == "replace" else "left out"
            self._tell(f"{bad} of {self.num_images:,} images could not be decoded and were {done}")

    def order(self, epoch: int) -> np.ndarray:
        """The indices (num_images,) int64 in the order in which ``epoch`` visits them."""
        images = self._images()
        if self.shuffle:
            images = np.random.default_rng([self.seed, epoch, 0]).permutation(images)
        return images

    def _images(self) -> np.ndarray:
        return np.arange(self.num_images) * len(self.split) // self.num_images

    def _begin(
        self, pool: ThreadPoolExecutor, memory: _Memory, indices: np.ndarray, epoch: int
    ) -> _Making:
        size = self.split.image_size
        images = memory.array(len(indices), self.split.channels, size, size)
        labels, good = np.empty(len(indices), np.int64), np.ones(len(indices), bool)
        batch = _Making(images, labels, good)
        for start in range(0, len(indices), self.split.images_per_task):
            rows = slice(start, start + self.split.images_per_task)
            part = _Making(images[rows], labels[rows], good[rows])
            batch.parts.append(pool.submit(self._fill, part, indices[rows], epoch))
        return batch

    def _fill(self, part: _Making, indices: np.ndarray, epoch: int) -> dict[int, str]:
        """Make a part of a batch; returns what is wrong with bad images, by their number."""
        try:
            self._read(part, indices, epoch)
            return {}
        except ImageError as error:
            if self.on_bad_image == "fail":
                raise
            bad = {int(indices[0]): str(error)}
        if len(indices) > 1:  # one by one
            bad = {}
            for i in range(len(indices)):
                one = slice(i, i + 1)
                row = _Making(part.images[one], part.labels[one], part.good[one])
                bad |= self._fill(row, indices[one], epoch)
            return bad
        part.good[:] = False
        if self.on_bad_image == "replace":
            self._replace(part, bad, epoch)
        return bad

    def _replace(self, part: _Making, bad: dict[int, str], epoch: int) -> None:
        """Fill the one row of `part` with a successor of the image in `bad`; adds bad ones to it.

        Raises DataError when none is found.
        """
        ((index, reason),) = bad.items()
        images = self._images()
        successors = np.roll(images, -1 - int(np.searchsorted(images, index)))[:-1]
        for successor in successors[:LONGEST_SEARCH].tolist():
            try:
                self._read(part, np.array([successor]), epoch)
                return
            except ImageError as error:
                bad[successor] = str(error)
        raise DataError(
            f"{reason}, nor can any of the {len(bad) - 1} images that follow be decoded"
        )

    def _read(self, part: _Making, indices: np.ndarray, epoch: int) -> None:
        augment, seed = self.augment, self.seed
        part.labels[...] = self.split.batch(indices, augment, seed, epoch, part.images)[1]

    def _note(self, bad: dict[int, str]) -> None:
        for index, reason in bad.items():
            if index not in self.bad:
                self.bad[index] = reason
                self._tell(f"{reason}; {POLICIES[self.on_bad_image]}")
        if len(self.bad) > max(TOLERATED, self.num_images // 10) or (
            len(self.bad) == self.num_images
        ):
            raise DataError(
                f"{len(self.bad)} of {self.num_images:,} images cannot be decoded, too many to go "
                f"on without them; the first is {next(iter(self.bad.values()))}"
            )

    def _tell(self, text: str) -> None:
        print(f"minidl: {text}", file=sys.stderr, flush=True)


def _fitted(augment: Augmentation | str, split: Split) -> Augmentation:
    """What ``augment`` asks for, with what it has to know of the images of ``split``."""
    if isinstance(augment, str):
        try:
            augment = Augmentation.parse(augment)
        except ValueError as error:
            raise ValueError(f"DataLoader: augment: {error}") from None
    if not isinstance(augment, Augmentation):
        raise TypeError(
            f"DataLoader: augment is {augment!r}, expected a text such as "
            f'"pad-crop:4,flip", or an Augmentation'
        )
    augment.check(split.image_size, split.white, split.stored_shape[0])
    return augment.fit(split) if augment.components is None else augment
