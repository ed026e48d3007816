"""Which algorithm convolutions run on."""

__all__ = ["CONV_ALGORITHMS", "get_conv_algorithm", "set_conv_algorithm"]

CONV_ALGORITHMS = ("auto", "direct", "winograd")

_conv_algorithm = "auto"


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
