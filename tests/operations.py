"""One call of every operation on images (2, 4, 9, 8), wherever they are."""

import minidl as md
import minidl.functional as F


def ones(x, *shape):
    return md.ones(*shape, device=x.device)


def zeros(x, *shape):
    return md.zeros(*shape, device=x.device)


def linear_map(x):
    return F.linear(x.flatten(1), ones(x, 5, 4 * 9 * 8), ones(x, 5))


OPERATIONS = {
    "conv2d": lambda x: F.conv2d(
        x, ones(x, 6, 2, 3, 3), ones(x, 6), stride=(2, 1), padding=1, groups=2
    ),
    "max_pool2d": lambda x: F.max_pool2d(x, 3, stride=2, padding=1, ceil_mode=True),
    "avg_pool2d": lambda x: F.avg_pool2d(x, (3, 2)),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, (4, 3)),
    "batch_norm": lambda x: F.batch_norm(x, zeros(x, 4), ones(x, 4), ones(x, 4), zeros(x, 4)),
    "batch_norm of the batch": lambda x: F.batch_norm(x, None, None, training=True),
    "local_response_norm": lambda x: F.local_response_norm(x),
    "dropout": lambda x: F.dropout(x),
    "linear": linear_map,
    "im2col": lambda x: F.im2col(x, 3, stride=2),
    "relu": lambda x: x.relu(),
    "leaky_relu": lambda x: F.leaky_relu(x),
    "elu": lambda x: F.elu(x),
    "sigmoid": lambda x: x.sigmoid(),
    "scaled_tanh": lambda x: F.scaled_tanh(x),
    "softmax": lambda x: x.softmax(1),
    "cross_entropy": lambda x: F.cross_entropy(x.mean((2, 3)), md.tensor([1, 2])),
    "add": lambda x: x + 2 * x,
    "add a parameter": lambda x: ones(x, 4, 1, 1) + x,
    "gate": lambda x: x * x.mean((2, 3), keepdim=True),
    "compare": lambda x: x > 0,
    "integers": lambda x: md.arange(8, device=x.device) + x.to(md.int64),
    "where": lambda x: md.where(x > 0, x, 0.0),
    "clip": lambda x: x.clip(0, 6),
    "power": lambda x: (x * x + 1) ** -0.5,
    "concat": lambda x: md.concat([x, x[:, :1]], dim=1),
    "stack": lambda x: md.stack([x, x]).mean(0),
    "split": lambda x: x.split([1, 3], dim=1)[1],
    "chunk": lambda x: x.chunk(2, dim=1)[0],
    "slices": lambda x: x[:, 1:, ::2, ::2],
    "an integer and an ellipsis": lambda x: x[0, ..., 1],
    "a list": lambda x: x[:, [3, 0, 0]],
    "pad": lambda x: md.pad(x, (1, 2, 0, 0, 3, 0)),
    "reshape": lambda x: x.reshape(2, 2, -1),
    "shuffle of channels": lambda x: x.reshape(2, 2, 2, 9, 8).transpose(1, 2).reshape(2, 4, 9, 8),
    "flatten": lambda x: x.flatten(1),
    "permute": lambda x: x.permute(0, 2, 3, 1),
    "flip": lambda x: x.flip(3),
    "expand": lambda x: x[:, :1].expand(-1, 5, -1, -1),
    "matmul": lambda x: x.flatten(2).mT @ x.flatten(2),
    "sum": lambda x: x.sum(),
    "sum of integers": lambda x: (x > 0).sum(1),
    "mean": lambda x: x.mean((2, 3)),
    "var": lambda x: x.var((0, 2, 3)),
    "max": lambda x: x.max(1),
    "logsumexp": lambda x: x.logsumexp(1),
    "argmax": lambda x: x.argmax(1),
    "cumsum": lambda x: x.cumsum(1),
    "any": lambda x: (x > 0).any(),
    "zeros_like": lambda x: md.zeros_like(x),
    "full_like": lambda x: md.full_like(x, 3.0),
    "clone": lambda x: x.clone(),
}
