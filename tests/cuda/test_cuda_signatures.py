"""The CUDA kernels offer the functions of the contract, no more and no less."""

import inspect

import pytest

from minidl._kernels import reference


def parameters(function):
    return [(p.name, p.default) for p in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize("name", reference.__all__)
def test_cuda_has_the_parameters_of_the_reference(cuda, name):
    assert parameters(getattr(cuda.kernels, name)) == parameters(getattr(reference, name))


def test_cuda_offers_no_kernel_that_the_reference_lacks(cuda):
    assert set(cuda.kernels.__all__) == set(reference.__all__)
