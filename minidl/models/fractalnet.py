"""FractalNet: deep and shallow paths side by side, without residuals.

Larsson, Maire, Shakhnarovich, "FractalNet: Ultra-Deep Neural Networks without Residuals", ICLR 2017
(arXiv:1605.07648), figures 1 and 2, sections 3 and 4.
"""

from __future__ import annotations

from .. import random
from ..nn import (
    AdaptiveAvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Identity,
    Linear,
    MaxPool2d,
    Module,
    ModuleList,
    ReLU,
    Sequential,
    init,
)
from ..tensor import Tensor
from .classifier import ImageClassifier
from .registry import register_model


class Join(Module):
    """The mean of the paths that meet; in training, of those that local drop-path leaves.

    Each path is dropped with probability `drop_path`, for the whole batch. If that drops all of
    them, one of them, chosen by chance, is kept (section 3.1, "local").

    Raises:
        ValueError: if drop_path is outside [0, 1].

    >>> import minidl as md
    >>> Join(drop_path=0.15).eval()(md.zeros(2), md.ones(2)).data.tolist()
    [0.5, 0.5]
    """

    def __init__(self, drop_path: float) -> None:
        super().__init__()
        if not 0.0 <= drop_path <= 1.0:
            raise ValueError(f"FractalNet: drop_path must be in [0, 1], got {drop_path}")
        self.drop_path = drop_path

    def forward(self, *paths: Tensor) -> Tensor:
        """Tensors of one shape -> their mean."""
        if self.training:
            generator = random.generator()
            kept = generator.random(len(paths)) >= self.drop_path
            if not kept.any():
                kept[generator.integers(len(paths))] = True
            paths = tuple(path for path, keep in zip(paths, kept, strict=True) if keep)
        total = paths[0]
        for path in paths[1:]:
            total = total + path
        return total / len(paths)

    def extra_repr(self) -> str:
        """The argument."""
        return f"drop_path={self.drop_path}"


def make_layer(in_channels: int, width: int, dropout: float, affine: bool) -> Sequential:
    """One convolution of a column: (N, in_channels, H, W) -> (N, width, H, W)."""
    return Sequential(
        {
            "conv": Conv2d(in_channels, width, kernel_size=3, padding=1),
            "dropout": Dropout(dropout),
            "bn": BatchNorm2d(width, affine=affine),
            "relu": ReLU(),
        }
    )


class FractalBlock(Module):
    """Columns of 1, 2, 4, ... convolutions that meet wherever two or more of them end a layer.

    x (N, in_channels, H, W) -> (N, width, H // 2, W // 2). Three columns, from top to bottom, a
    line for every place where columns are joined:

        conv   conv   conv
          |      |    conv
          |      +------+
          |    conv   conv
          |      |    conv
          +------+------+

    Args:
        in_channels, width: feature maps that come in, and of all convolutions.
        columns: number of columns, C; the deepest has 2^(C-1) convolutions.
        dropout: probability, after each convolution.
        drop_path: see `Join`.
        affine: whether batch normalisation scales and shifts.
        doubling: put a 1x1 convolution, from in_channels to width, in front.

    As in the authors' generator, the block ends with a 2x2 max pooling of each column, and joins
    the pooled columns.

    >>> import minidl as md
    >>> block = FractalBlock(3, 8, columns=3, dropout=0.0, drop_path=0.15, affine=False)
    >>> [len(column) for column in block.columns], block(md.zeros(1, 3, 8, 8)).shape
    ([1, 2, 4], (1, 8, 4, 4))
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        columns: int,
        dropout: float,
        drop_path: float,
        affine: bool,
        doubling: bool = False,
    ) -> None:
        super().__init__()
        self.double = Conv2d(in_channels, width, kernel_size=1) if doubling else Identity()
        first = width if doubling else in_channels
        self.columns = ModuleList(
            Sequential(
                *(
                    make_layer(width if index else first, width, dropout, affine)
                    for index in range(2**column)
                )
            )
            for column in range(columns)
        )
        self.pool = MaxPool2d(2)
        self.join = Join(drop_path)

    def forward(self, x: Tensor, column: int | None = None) -> Tensor:
        """x (N, in_channels, H, W) -> (N, width, H // 2, W // 2), through one column or all."""
        x = self.double(x)  # (N, width, H, W), if at all
        if column is not None:
            return self.pool(self.columns[column](x))  # (N, width, H // 2, W // 2)
        columns = [list(layers.children()) for layers in self.columns]
        ends = [x] * len(columns)  # what the columns have put out so far
        rows = len(columns[-1])
        for row in range(1, rows + 1):
            meeting = []
            for index, layers in enumerate(columns):
                number, rest = divmod(row * len(layers), rows)
                if rest == 0:  # this column has a layer that ends in this row
                    ends[index] = layers[number - 1](ends[index])
                    meeting.append(index)
            if row == rows:
                ends = [self.pool(end) for end in ends]
            if len(meeting) > 1:
                joined = self.join(*(ends[index] for index in meeting))
                for index in meeting:
                    ends[index] = joined
        return ends[-1]


class FractalNet(ImageClassifier):
    """B fractal blocks of C columns, B * 2^(C-1) convolutions deep, and a linear layer.

    Args:
        arch: the name.
        columns: C.
        widths: feature maps of the B blocks.
        classes: number of outputs where num_classes is None.
        num_classes, in_channels: outputs, and channels of the images.
        image_size: the side of the images; any from 32 on will do, before and after.
        drop_path: probability of local drop-path, see `Join`.
        global_drop: probability that a training step uses a single column of the whole network,
            chosen by chance, instead of all columns with local drop-path.
        dropout: probability in the last block; it grows linearly from 0 in the first.
        affine: whether batch normalisation scales and shifts.
        doubling: put a 1x1 convolution in front of blocks whose width differs from the last one's.

    Raises:
        ValueError: if image_size, or an image, is smaller than 32; if a probability is outside
            [0, 1].

    In evaluation mode the network is the full one: all columns, means in all joins. What is dropped
    in a training step gets no gradient in it. All choices come from minidl's generator, so that
    `md.manual_seed` repeats a run.

    The networks are those of the authors' published generator: biases and dropout between
    convolution and batch normalisation, max pooling of every column before the last join of a
    block, no scale and shift in batch normalisation. It gives 33,714,314 parameters for
    fractalnet20_cifar, not the 38.6M of the paper, and 76,084,554 for fractalnet40_cifar, whose
    paper has 22.9M with widths it does not state. fractalnet20_cifar_doubling is a guess at the
    paper's network: with 1x1 convolutions that double the feature maps, scale and shift, and 100
    classes it has 38,598,884 parameters. The thin networks of the paper's table of ultra-deep
    FractalNets, with scale and shift and 100 classes, have its counts: 258,660, 848,820, 2,127,780,
    4,784,340, 10,196,100 and 21,118,260 for 1 to 6 columns.

    Dropout in front of batch normalisation lets the running variances hold what dropout adds, and
    in evaluation there is no dropout: after short training the full network then classifies far
    worse than in training. dropout=0.0 avoids that.

    What deviates: running statistics are moving averages with momentum 0.1. Weights are uniform
    with variance 1 / fan-in, what Caffe calls "xavier". Images from 64 on leave more than one pixel
    for the linear layer, which gets the mean.
    """

    min_image_size = 32

    def __init__(
        self,
        arch: str,
        columns: int,
        widths: tuple[int, ...],
        classes: int,
        num_classes: int | None = None,
        in_channels: int = 3,
        image_size: int = 32,
        drop_path: float = 0.15,
        global_drop: float = 0.5,
        dropout: float = 0.4,
        affine: bool = False,
        doubling: bool = False,
    ) -> None:
        num_classes = classes if num_classes is None else num_classes
        super().__init__(arch, in_channels, num_classes, image_size)
        if not 0.0 <= global_drop <= 1.0:
            raise ValueError(f"FractalNet: global_drop must be in [0, 1], got {global_drop}")
        self.global_drop = global_drop
        self.num_columns = columns
        self.blocks = ModuleList()
        channels = in_channels
        for index, width in enumerate(widths):
            rate = dropout * index / max(len(widths) - 1, 1)
            double = doubling and index > 0 and width != channels
            self.blocks.append(
                FractalBlock(channels, width, columns, rate, drop_path, affine, double)
            )
            channels = width
        self.avgpool = AdaptiveAvgPool2d(1)
        self.fc = Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, Conv2d | Linear):
                init.lecun_uniform_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> logits (N, num_classes)."""
        self.check_images(x)
        column = None
        if self.training and random.generator().random() < self.global_drop:
            column = int(random.generator().integers(self.num_columns))
        for block in self.blocks:
            x = block(x, column)  # (N, width, H/2, W/2), then H/4, ...
        x = self.avgpool(x)  # (N, width, 1, 1)
        return self.fc(x.flatten(1))  # (N, num_classes)


_widths = (64, 128, 256, 512, 512)
for _arch, _options in {
    "fractalnet20_cifar": {"columns": 3, "classes": 10, "affine": False, "doubling": False},
    "fractalnet20_cifar_doubling": {"columns": 3, "classes": 100, "affine": True, "doubling": True},
    "fractalnet40_cifar": {"columns": 4, "classes": 10, "affine": False, "doubling": False},
}.items():
    register_model(_arch, arch=_arch, widths=_widths, **_options)(FractalNet)

_thin = {"widths": (16, 32, 64, 128, 128), "classes": 100, "affine": True, "doubling": False}
for _columns in range(1, 7):
    _arch = f"fractalnet_thin_c{_columns}"
    register_model(_arch, arch=_arch, columns=_columns, **_thin)(FractalNet)
