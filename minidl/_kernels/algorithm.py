"""How convolutions and products are computed: the settings behind `md.config`."""

__all__ = [
    "CONV_ALGORITHMS",
    "get_allow_tf32",
    "get_conv_algorithm",
    "set_allow_tf32",
    "set_conv_algorithm",
]

CONV_ALGORITHMS = ("auto", "direct", "winograd", "im2col", "tensor_core")

_conv_algorithm = "auto"
_allow_tf32 = False


def get_conv_algorithm() -> str:
    """One of CONV_ALGORITHMS; "auto" at first."""
    return _conv_algorithm


def set_conv_algorithm(name: str) -> None:
    """Raises ValueError for anything but one of CONV_ALGORITHMS."""
    global _conv_algorithm
    if name not in CONV_ALGORITHMS:
        expected = ", ".join(map(repr, CONV_ALGORITHMS))
        raise ValueError(f"conv_algorithm: expected one of {expected}, got {name!r}")
    _conv_algorithm = name


def get_allow_tf32() -> bool:
    """Whether a GPU may round the factors of float32 products to TF32; False at first."""
    return _allow_tf32


def set_allow_tf32(allow: bool) -> None:
    """Raises TypeError for anything but a bool."""
    global _allow_tf32
    if not isinstance(allow, bool):
        raise TypeError(f"allow_tf32: expected True or False, got {allow!r}")
    _allow_tf32 = allow
