"""Tensor itself: making, converting, showing and changing tensors."""

import copy
import json
import operator
import pickle
import subprocess
import sys

import numpy as np
import pytest
from conftest import oracle

import minidl as md

# ---- making tensors ----


def test_dtypes_of_new_tensors():
    assert md.tensor(1.5).dtype == md.float32
    assert md.tensor([1.0, 2]).dtype == md.float32
    assert md.tensor([1, 2]).dtype == md.int64
    assert md.tensor(True).dtype == md.bool
    assert md.tensor(np.ones(2)).dtype == md.float64
    assert md.tensor(np.float64(1)).dtype == md.float64
    assert md.tensor([1, 2], dtype=md.float64).dtype == md.float64
    assert md.tensor(np.ones(2, np.uint8)).dtype == md.uint8
    assert md.tensor(md.ones(2)).dtype == md.float32
    assert md.arange(3).dtype == md.int64
    assert md.arange(3.0).dtype == md.float32
    assert md.arange(3, dtype=md.int32).dtype == md.int32
    assert md.full((2,), 1).dtype == md.int64
    assert md.full((2,), 1.0).dtype == md.float32
    assert md.zeros(2, dtype="float64").dtype == md.float64


def test_shapes_and_values_of_new_tensors():
    assert md.zeros(2, 3).tolist() == md.zeros((2, 3)).tolist() == [[0.0] * 3] * 2
    assert md.ones([2]).tolist() == [1.0, 1.0]
    assert md.zeros().shape == ()
    assert md.empty(0, 2).shape == (0, 2)
    assert md.arange(1, 7, 2).tolist() == [1, 3, 5]
    assert md.linspace(0, 1, 3).tolist() == [0.0, 0.5, 1.0]
    assert md.eye(2, 3).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert md.full(2, 7.0).tolist() == [7.0, 7.0]
    x = md.ones(2, dtype=md.float64)
    for like, value in ((md.zeros_like(x), 0), (md.ones_like(x), 1), (md.full_like(x, 3), 3)):
        assert (like.dtype, like.tolist()) == (md.float64, [value, value])
    assert md.zeros_like(x, dtype=md.int64).dtype == md.int64
    assert md.ones(2, requires_grad=True).requires_grad


def test_copying_and_sharing():
    array = np.zeros(3, np.float32)
    shared, copied = md.from_numpy(array), md.tensor(array)
    assert md.as_tensor(array).data is array
    assert md.as_tensor(shared) is shared
    assert md.as_tensor(shared, dtype=md.float64).dtype == md.float64
    array[0] = 1
    assert shared.tolist() == [1, 0, 0]
    assert copied.tolist() == [0, 0, 0]


def test_random_tensors_follow_the_seed():
    def draw():
        md.manual_seed(5)
        return [
            md.rand(2, 2),
            md.randn(3, dtype=md.float64),
            md.randint(0, 9, (4,)),
            md.randperm(5),
        ]

    for a, b in zip(draw(), draw(), strict=True):
        np.testing.assert_array_equal(a.data, b.data)
    uniform, normal, integers, order = draw()
    assert (uniform.dtype, normal.dtype, integers.dtype) == (md.float32, md.float64, md.int64)
    assert sorted(order.tolist()) == [0, 1, 2, 3, 4]
    assert ((integers >= 0) & (integers < 9)).all()
    sample = md.randn(20000)
    assert abs(sample.mean().item()) < 0.03
    assert abs(sample.std().item() - 1) < 0.03


def test_the_random_state_survives_json():
    md.manual_seed(1)
    md.randn(3)
    md.functional.dropout(md.ones(10))
    state = json.loads(json.dumps(md.get_rng_state()))
    first = md.randn(7).tolist(), md.functional.dropout(md.ones(50)).tolist()
    md.manual_seed(2)
    md.set_rng_state(state)
    assert (md.randn(7).tolist(), md.functional.dropout(md.ones(50)).tolist()) == first
    with pytest.raises(ValueError, match="set_rng_state: expected a dict from get_rng_state"):
        md.set_rng_state({})
    with pytest.raises(ValueError, match="manual_seed: seed must be a non-negative integer"):
        md.manual_seed(-1)


# ---- attributes ----


def test_attributes():
    x = md.ones(2, 3, requires_grad=True)
    y = x * 2
    assert (x.shape, x.ndim, x.size, x.device, len(x)) == ((2, 3), 2, 6, "cpu", 2)
    assert (x.is_leaf, x.grad_fn, y.is_leaf, y.grad_fn.name) == (True, None, False, "mul")
    assert x.T.shape == (3, 2)
    assert isinstance(x.data, np.ndarray)
    assert x.cpu() is x
    assert x.to("cpu") is x
    assert x.to(md.float32) is x
    assert x.requires_grad_(False) is x


def test_requires_grad_needs_a_float_leaf():
    with pytest.raises(TypeError, match="requires_grad: needs a floating-point dtype, the tensor"):
        md.tensor([1], requires_grad=True)
    y = md.ones(1, requires_grad=True) * 2
    with pytest.raises(RuntimeError, match="requires_grad: can only be changed on a leaf"):
        y.requires_grad = False


def test_casts_carry_gradients():
    x = md.ones(2, requires_grad=True)
    (x.astype(md.float64) * 2).sum().backward()
    assert (x.grad.dtype, x.grad.tolist()) == (md.float32, [2.0, 2.0])
    assert not x.to(md.int64).requires_grad


def test_detach_shares_memory():
    x = md.ones(2, requires_grad=True)
    y = x.detach()
    y.zero_()
    assert x.tolist() == [0, 0]
    assert not y.requires_grad


def test_results_from_subclasses_are_tensors():
    class Special(md.Tensor):
        pass

    x = Special([1.0], requires_grad=True)
    assert type(x * 2) is md.Tensor
    assert type(copy.deepcopy(x)) is Special


# ---- in-place changes ----


def test_in_place_changes():
    x = md.zeros(2, 2)
    x[0] = 1
    x[md.tensor([1]), 0] = md.tensor([5.0])
    x[x > 4] = 7
    assert x.tolist() == [[1, 1], [7, 0]]
    assert x.add_(1).mul_(md.tensor([1.0, 2.0])).tolist() == [[2, 4], [8, 2]]
    assert x.fill_(3).tolist() == [[3, 3], [3, 3]]
    assert x.copy_([1.0, 2.0]).tolist() == [[1, 2], [1, 2]]
    assert x.zero_().sum().item() == 0
    view = x[0]
    view.add_(1)
    assert x.tolist() == [[1, 1], [0, 0]]
    counter = md.tensor(0)
    counter.add_(1)
    assert counter.item() == 1


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda x: x.add_(0.5), TypeError, "add_: .* from dtype.'float64'. to dtype.'int64'"),
        (lambda x: x.mul_(md.ones(2)), TypeError, "mul_: .* to dtype.'int64'"),
        (lambda x: x.add_(md.ones(3, 2, dtype=md.int64)), ValueError, r"add_: .* shape \(3,2\)"),
        (lambda x: x.copy_(md.ones(3)), ValueError, r"copy_: .* shape \(3,\) into shape \(2,\)"),
    ],
)
def test_in_place_changes_that_do_not_fit(change, error, text):
    x = md.arange(2)
    with pytest.raises(error, match=text):
        change(x)
    assert x.tolist() == [0, 1]


# ---- NumPy and other libraries ----


def test_numpy_sees_tensors():
    x = md.tensor([[1.0, 2.0]])
    assert x.numpy() is x.data
    assert np.asarray(x) is x.data
    assert np.array(x) is not x.data
    assert np.asarray(x, dtype=np.float64).dtype == np.float64
    np.testing.assert_array_equal(np.concatenate([x, x]), [[1, 2], [1, 2]])
    assert np.exp(md.zeros(2)).tolist() == [1.0, 1.0]
    assert np.sum(x) == 3.0
    assert np.mean(x, axis=0).tolist() == [1.0, 2.0]
    assert np.ones(3)[md.tensor(1)] == 1.0
    assert [10, 20][md.tensor(1)] == 20


def test_arrays_cannot_carry_gradients():
    x = md.ones(2, requires_grad=True)
    for call in (x.numpy, lambda: np.asarray(x)):
        with pytest.raises(RuntimeError, match=r"numpy: the tensor requires a gradient.*detach"):
            call()
    with pytest.raises(RuntimeError, match="dlpack: the tensor requires a gradient"):
        np.from_dlpack(x)


def test_dlpack_shares_memory_both_ways():
    torch = oracle()
    theirs = torch.arange(3.0)
    ours = md.from_dlpack(theirs)
    theirs[0] = 5
    assert ours.tolist() == [5, 1, 2]
    back = torch.from_dlpack(ours)
    back[1] = 7
    assert ours.tolist() == [5, 7, 2]
    assert np.from_dlpack(ours).tolist() == [5, 7, 2]
    with pytest.raises(TypeError, match="from_dlpack: list does not offer DLPack"):
        md.from_dlpack([1])
    with pytest.raises(TypeError, match="from_numpy: expected a NumPy array, got list"):
        md.from_numpy([1])


def test_byte_order_of_other_machines():
    array = np.array([1.5, 2.0], ">f4")
    assert md.tensor(array).dtype == md.float32
    assert md.nn.Linear(2, 3)(md.tensor(array)).shape == (3,)
    assert md.as_tensor(np.array([258], ">i8")).tolist() == [258]
    for x in (md.Tensor([258.0], ">f4"), md.tensor([258.0]).to(">f4")):
        assert (x.relu().tolist(), x.dtype) == ([258.0], md.float32)
    with pytest.raises(TypeError, match=r"share .* another byte order, got dtype >f4; md.tensor"):
        md.from_numpy(array)


@pytest.mark.parametrize("thing", [md.ones(2), md.nn.Linear(2, 3)])
def test_to_what_is_neither_a_device_nor_a_dtype(thing):
    expected = (
        r"expected a device \('cpu', 'cuda' or 'cuda:N'\) or a dtype such as md.float32, got "
    )
    for target in ("foo", "gpu", 7):
        with pytest.raises(TypeError, match=f"to: {expected}{target!r}$"):
            thing.to(target)
    with pytest.raises(ValueError, match="device must be 'cpu', 'cuda' or 'cuda:N', got 3"):
        thing.to(device=3)


# ---- Python's protocols ----


def test_conversion_to_python():
    assert md.tensor([[2.5]]).item() == 2.5
    assert (float(md.tensor(2.5)), int(md.tensor(3)), bool(md.tensor([1]))) == (2.5, 3, True)
    assert f"{md.tensor(0.12345):.3f}" == "0.123"
    assert (round(md.tensor(2.567), 1), round(md.tensor([3.7]))) == (2.6, 4)
    assert f"{md.tensor([1])}" == "tensor([1])"
    assert [row.tolist() for row in md.eye(2)] == [[1, 0], [0, 1]]
    assert 2 in md.arange(3)
    assert 5 not in md.arange(3)
    assert range(5)[md.tensor(3)] == 3
    with pytest.raises(ValueError, match=r"item: the tensor has 2 elements"):
        md.ones(2).item()
    with pytest.raises(ValueError, match=r"bool: a tensor of shape \(2,\) is neither"):
        bool(md.ones(2))
    with pytest.raises(TypeError, match="index: needs an integer tensor, got float32"):
        range(5)[md.tensor(1.0)]
    with pytest.raises(TypeError, match="len: the tensor has no axes"):
        len(md.tensor(1))
    with pytest.raises(TypeError, match="iter: the tensor has no axes"):
        iter(md.tensor(1))


def test_tensors_are_hashed_by_identity():
    a, b = md.ones(1), md.ones(1)
    assert {a: 1, b: 2}[b] == 2


def test_repr():
    assert repr(md.tensor([1.0, 2.0])) == "tensor([1., 2.])"
    assert repr(md.tensor(1, dtype=md.int32)) == "tensor(1, dtype=int32)"
    x = md.ones(1, requires_grad=True)
    assert repr(x) == "tensor([1.], requires_grad=True)"
    assert repr(x + 1) == "tensor([2.], grad_fn=<add>)"
    assert repr(md.zeros(0, 2)) == "tensor([], shape=(0, 2))"


def test_deepcopy_and_pickle():
    x = md.ones(2, requires_grad=True)
    (x * 2).sum().backward()
    x.register_hook(lambda g: g)
    y = copy.deepcopy({"a": x, "b": x})
    assert y["a"] is y["b"]
    assert (y["a"].requires_grad, y["a"].grad.tolist()) == (True, [2.0, 2.0])
    y["a"].detach().zero_()
    assert x.tolist() == [1, 1]
    with pytest.raises(RuntimeError, match="copy: only leaves can be copied or pickled"):
        copy.deepcopy(x * 2)
    with pytest.raises(RuntimeError, match="copy: only leaves can be copied or pickled"):
        pickle.dumps(x * 2)
    z = pickle.loads(pickle.dumps(x))
    assert (z.requires_grad, z.tolist(), z.grad.tolist()) == (True, [1.0, 1.0], [2.0, 2.0])
    assert (y["a"].hooks, z.hooks) == ({}, {})


# ---- errors, devices, import ----


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: md.tensor("abc"), TypeError, "tensor: cannot hold str data"),
        (lambda: md.tensor([1j]), TypeError, "tensor: cannot hold list data of dtype complex128"),
        (lambda: md.tensor(None), TypeError, "tensor: cannot hold NoneType data"),
        (lambda: md.tensor([[1], [1, 2]]), ValueError, "inhomogeneous"),
        (lambda: md.zeros(2.5), TypeError, "zeros: sizes must be integers"),
        (lambda: md.zeros(-1), ValueError, "zeros: sizes must not be negative"),
        (lambda: md.zeros(2, device="tpu"), ValueError, "device must be 'cpu', 'cuda' or 'cuda:N'"),
    ],
)
def test_error_texts(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_importing_is_light():
    code = (
        "import sys, minidl; "
        "print([m for m in ('cupy', 'matplotlib', 'torch', 'PIL', 'rich', 'safetensors') "
        "if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


def test_large_tensors_without_values_begin_with_a_cache_line():
    for size in ((300, 301), (70_001,)):
        x = md.empty(*size, dtype=md.float64)
        assert x.data.ctypes.data % 64 == 0
        assert x.data.flags.c_contiguous
        assert x.data.flags.writeable
        assert (x.shape, x.dtype) == (size, md.float64)
    with pytest.raises(TypeError, match="cannot hold ndarray data of dtype object"):
        md.empty(1 << 20, dtype=object)


def test_an_array_changed_in_place_by_a_tensor_stays_the_array():
    array = np.zeros((2, 3), np.float32)
    same = array
    array += md.ones(3)
    array *= md.full((2, 3), 4.0)
    array[0] -= md.ones(3)
    assert array is same
    assert array.tolist() == [[3, 3, 3], [4, 4, 4]]
    with pytest.raises(RuntimeError, match=r"requires a gradient.*detach\(\)"):
        array += md.ones(3, requires_grad=True)


@pytest.mark.parametrize("array", [np.float32([3, 2, 1]), np.float64(2), np.int64(2)], ids=repr)
@pytest.mark.parametrize(
    "name",
    ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "eq", "ne", "lt", "le", "gt", "ge"],
)
def test_an_array_and_a_tensor_make_a_tensor(name, array):
    function = getattr(operator, name)
    x = np.float32([1, 2, 3])
    y = function(array, md.tensor(x))
    assert type(y) is md.Tensor
    assert y.dtype == function(x, x).dtype
    np.testing.assert_allclose(y.data, function(array, x), rtol=1e-6)


def test_functions_of_numpy_see_the_array_of_a_tensor():
    x = md.tensor([1.0, 2.0])
    for result in (np.exp(x), np.add(x, 1), np.maximum(np.ones(2), x), np.multiply.outer(x, x)):
        assert type(result) is np.ndarray
    assert np.add.reduce(x) == 3
    with pytest.raises(TypeError, match=r"add: out must be an array, got a Tensor; pass t\.data"):
        np.add(x, x, out=x)


def test_only_gradients_are_taken_for_gradients():
    x = md.ones(2, requires_grad=True)
    with pytest.raises(TypeError, match="grad: must be a Tensor or None, got ndarray"):
        x.grad = np.ones(2)
    with pytest.raises(ValueError, match=r"grad: has shape \(3,\), the tensor \(2,\)"):
        x.grad = md.ones(3)
    x.grad = md.ones(2)
    (2 * x).sum().backward()
    assert x.grad.tolist() == [3.0, 3.0]
