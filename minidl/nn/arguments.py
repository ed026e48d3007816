"""Checks of layer arguments that several layers share."""

from operator import index


def positive(layer: str, argument: str, value: int) -> int:
    """`value` as an int of at least 1.

    Raises:
        TypeError: if it is not an integer.
        ValueError: if it is below 1.

    >>> positive("Linear", "in_features", 400)
    400
    """
    try:
        number = index(value)
    except TypeError:
        raise TypeError(f"{layer}: {argument} must be an integer, got {value!r}") from None
    if number < 1:
        raise ValueError(f"{layer}: {argument} must be at least 1, got {value!r}")
    return number
