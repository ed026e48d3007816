"""Memory of results that is used again."""

import gc
import subprocess
import sys

import numpy as np
import pytest

import minidl._kernels.cpu.buffers as buffers

SHAPE = (3, 5, 101, 103)  # large enough to be shelved


def address(array):
    return array.__array_interface__["data"][0]


def test_memory_is_used_again_once_the_last_view_is_gone():
    first = buffers.empty(SHAPE, np.float32)
    where = address(first)
    view = first[1:, ::2, 5]
    del first
    other = buffers.empty(SHAPE, np.float32)
    assert address(other) != where  # the view still reads there
    assert not np.may_share_memory(other, view)
    del view
    assert address(buffers.empty(SHAPE, np.float32)) == where


def test_arrays_are_ordinary_and_aligned():
    for shape, dtype in ((SHAPE, np.float64), ((2, 3), np.float32), ((0, 7), np.int64)):
        array = buffers.empty(shape, dtype)
        assert array.shape == shape
        assert array.dtype == dtype
        assert array.flags.c_contiguous
        assert array.flags.writeable
        array[...] = 1
        np.testing.assert_array_equal(array, np.ones(shape, dtype))
    assert address(buffers.empty(SHAPE, np.float32)) % 64 == 0


def test_memory_hardly_exceeds_what_was_in_use_at_once():
    gc.collect()
    between = []  # what keeps the gaps from becoming one
    for size in range(5_000_000, 30_000_000, 5_000_000):
        array = [buffers.empty((size,), np.float32)]
        between.append(buffers.empty(SHAPE, np.float32))
        for _ in range(2):  # with the array, and without
            in_use, most_in_use, shelved = buffers.usage()
            assert in_use + shelved <= most_in_use + max(most_in_use / 4, 2**24)
            array.clear()


def test_blocks_that_the_garbage_collector_frees_come_back():
    in_use, _, _ = buffers.usage()
    for _ in range(50):
        cycle = [buffers.empty(SHAPE, np.float32)]
        cycle.append(cycle)
    del cycle
    gc.collect()
    assert buffers.usage()[0] == in_use


def test_impossible_size_is_a_memory_error():
    with pytest.raises(MemoryError, match="no memory for an array of"):
        buffers.empty((1 << 50,), np.float64)


# In a process of its own, where no other arrays lie in between.
NEIGHBOURS = """
import numpy as np
import minidl._kernels.cpu.buffers as buffers

arrays = [buffers.empty((300_000,), np.float32) for _ in range(4)]
where = [array.__array_interface__["data"][0] for array in arrays]
del arrays[1:3]
arrays.append(buffers.empty((600_000,), np.float32))  # as large as both together
print(arrays[2].__array_interface__["data"][0] == where[1])
"""


def test_gaps_join_and_serve_arrays_of_other_sizes():
    assert subprocess.check_output([sys.executable, "-c", NEIGHBOURS], text=True) == "True\n"
