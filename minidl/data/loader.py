"""Batches of a split: shuffled, augmented and prefetched, the same on every run and machine."""

import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np

from .augment import Augmentation
from .splits import Split

Batch = tuple[np.ndarray, np.ndarray]


class DataLoader:
    """Iterate over a split in batches of NumPy arrays.

    A batch is images (N, C, H, W) float32 and labels (N,) int64; the last one may be smaller
    unless ``drop_last``. ``shuffle`` and ``augment`` are for training: the order depends on
    (``seed``, epoch) alone, what ``augment`` does to an image on (``seed``, epoch, image) alone, so
    a resumed run sees what the uninterrupted one would have seen, whatever ``workers`` is.

    Every iteration is a new epoch: the first is epoch 0, or what :meth:`set_epoch` said.
    ``limit`` takes that many images only, always the same ones, spread evenly over the split.

    Batches are made ahead in ``workers`` background threads. An error there, such as an image
    that cannot be decoded, is raised in the loop that consumes the batches; leaving that loop
    early ends the threads.

    Raises ``ValueError`` for a ``batch_size``, ``limit`` or ``workers`` below 1, and for what
    ``augment`` cannot do to images of the split's size.

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
        augment: Augmentation | None = None,
        seed: int = 0,
        drop_last: bool = False,
        limit: int | None = None,
        workers: int = 1,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("limit", limit), ("workers", workers)):
            if value is not None and value < 1:
                raise ValueError(f"DataLoader: {name} is {value}, expected at least 1")
        if augment is not None:
            augment.check(split.image_size)
        self.split = split
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.augment = augment
        self.seed = seed
        self.drop_last = drop_last
        self.num_images = len(split) if limit is None else min(limit, len(split))
        self.workers = workers
        self.epoch = 0

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

        def make(number: int) -> Batch:
            indices = order[number * self.batch_size : (number + 1) * self.batch_size]
            return self.split.batch(indices, self.augment, self.seed, epoch)

        numbers = iter(range(first, len(self)))
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="minidl-data")
        pending: deque[Future[Batch]] = deque()
        try:
            # One batch more than there are threads: none waits for the consumer.
            pending.extend(pool.submit(make, n) for n in islice(numbers, self.workers + 1))
            while pending:
                batch = pending.popleft().result()
                pending.extend(pool.submit(make, n) for n in islice(numbers, 1))
                yield batch
        finally:
            pool.shutdown(cancel_futures=True)

    def order(self, epoch: int) -> np.ndarray:
        """The indices (num_images,) int64 in the order in which ``epoch`` visits them."""
        images = np.arange(self.num_images) * len(self.split) // self.num_images
        if self.shuffle:
            images = np.random.default_rng([self.seed, epoch, 0]).permutation(images)
        return images
