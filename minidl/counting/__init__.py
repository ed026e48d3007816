"""Counting networks: shapes, parameters, multiply-accumulates, memory, receptive fields.

The questions of a lecture on AlexNet, answered without running a network. An image of 227x227
meets 96 filters of 11x11 with stride 4. How large is the output, and how many weights are there?

>>> import minidl as md
>>> md.conv_output_size(227, kernel_size=11, stride=4)
55
>>> conv1 = md.nn.Conv2d(3, 96, kernel_size=11, stride=4)
>>> counted = md.summary(conv1, (3, 227, 227))
>>> counted.layers[0].shape, counted.weights, counted.params
((96, 55, 55), 34848, 34944)

Why stacks of 3x3 convolutions? Three of them see as much as one of 7x7, with fewer weights:

>>> md.receptive_field([3, 3, 3]).size == md.receptive_field([7]).size == (7, 7)
True
>>> def weights(window, layers):
...     stack = [md.nn.Conv2d(64, 64, window, bias=False) for _ in range(layers)]
...     return md.summary(md.nn.Sequential(*stack), (64, 28, 28)).weights
>>> weights(3, layers=3), weights(7, layers=1)
(110592, 200704)

Why 1x1 convolutions in front of the large ones? They make them cheap:

>>> direct = md.nn.Conv2d(256, 96, 5, padding=2)
>>> reduced = md.nn.Sequential(md.nn.Conv2d(256, 64, 1), md.nn.Conv2d(64, 96, 5, padding=2))
>>> [md.summary(network, (256, 28, 28)).macs for network in (direct, reduced)]
[481689600, 133267456]

Where does VGG16 keep its parameters, and where does it spend its time? Networks by name are
counted without drawing their weights:

>>> vgg = summary_of("vgg16", depth=1)
>>> [(block.name, block.params, block.macs) for block in vgg.layers]
[('features', 14714688, 15346630656), ('classifier', 123642856, 123633664)]

What does doubling the side of the images do? Four times the work for the convolutions, and in
VGG16 a grid of 14x14 before the linear layers:

>>> summary_of("vgg16", depth=1, image_size=448).layers[0].macs / vgg.layers[0].macs
4.0

And which field does the last convolution of VGG16 have, and at which distance?

>>> last = [layer for layer in summary_of("vgg16").layers if "conv" in layer.layer][-1]
>>> last.receptive_field, last.jump
((196, 196), (16, 16))

The same from a terminal: `python -m minidl.summary vgg16`.
"""

from .summary import LayerCount, Summary, summary, summary_of
from .windows import conv_output_size, receptive_field

__all__ = [
    "LayerCount",
    "Summary",
    "conv_output_size",
    "receptive_field",
    "summary",
    "summary_of",
]
