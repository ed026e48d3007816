"""All implementations of the kernel contract offer the same functions."""

import inspect

import pytest

from minidl._kernels import cpu, reference


def parameters(function):
    return [(p.name, p.default) for p in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize("name", reference.__all__)
def test_cpu_has_the_parameters_of_the_reference(name):
    assert parameters(getattr(cpu, name)) == parameters(getattr(reference, name))


def test_cpu_offers_no_kernel_that_the_reference_lacks():
    launched = {
        name
        for name, value in vars(cpu).items()
        if inspect.isfunction(value) and ".launch_" in value.__module__
    }
    assert launched == set(reference.__all__)
