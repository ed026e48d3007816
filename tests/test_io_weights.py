"""md.save and md.load: safetensors and .npz both ways, and weights into models."""

import errno
import io
import os
import pickle
import re
import stat
import subprocess
import sys
import traceback
import zipfile

import numpy as np
import pytest
from conftest import oracle
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file, save_file

import minidl as md
from minidl.errors import CheckpointError
from minidl.io import npz
from minidl.training import save_checkpoint

SUFFIXES = [".safetensors", ".npz"]
FLOATS, SIGNED = ["float64", "float32", "float16"], ["int64", "int32", "int16", "int8"]
DTYPES = [*FLOATS, *SIGNED, "uint64", "uint32", "uint16", "uint8", "bool"]


def complaint(path) -> str:
    """The text with which md.load refuses a file."""
    with pytest.raises(CheckpointError) as caught:
        md.load(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert len(text.splitlines()) == 1
    return text


def same(tensors, arrays) -> None:
    """Equal names, types, shapes and bits."""
    assert sorted(tensors) == sorted(arrays)
    for name, array in arrays.items():
        assert (tensors[name].dtype, tensors[name].shape) == (array.dtype, array.shape), name
        assert tensors[name].data.tobytes() == array.tobytes(), name


# ---- there and back ----


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(data=st.data())
def test_there_and_back_to_the_bit(tmp_path_factory, suffix, data):
    shapes = hnp.array_shapes(min_dims=0, min_side=0, max_dims=4, max_side=4)
    kinds = st.sampled_from(DTYPES).map(np.dtype)
    names = st.text(st.characters(codec="utf-8", exclude_characters="/\x00"), min_size=1)
    arrays = data.draw(st.dictionaries(names, hnp.arrays(kinds, shapes), max_size=4))
    arrays.pop("__metadata__", None)
    path = tmp_path_factory.mktemp("there") / f"weights{suffix}"
    md.save(arrays, path)
    same(md.load(path), arrays)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_layouts(tmp_path, suffix):
    base = np.arange(24.0).reshape(4, 6)
    arrays = {
        "transposed": base.T,
        "stepped": base[::-1, ::2],
        "big-endian": base.astype(">f8"),
        "read-only": np.broadcast_to(np.float32(3), (2, 2)),
        "scalar": np.float32(2.5),
    }
    path = tmp_path / f"weights{suffix}"
    md.save(arrays, path)
    tensors = md.load(path)
    for name, array in arrays.items():
        np.testing.assert_array_equal(tensors[name].data, array)
        assert tensors[name].shape == array.shape
        assert tensors[name].dtype.isnative
    tensors["read-only"].fill_(1.0)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_model_there_and_back(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    model = md.nn.Sequential(md.nn.Conv2d(1, 2, 3), md.nn.BatchNorm2d(2))
    model(md.randn(2, 1, 5, 5))
    md.save(model, path)
    other = md.nn.Sequential(md.nn.Conv2d(1, 2, 3), md.nn.BatchNorm2d(2))
    other.load_state_dict(md.load(path))
    same(other.state_dict(), {name: value.data for name, value in model.state_dict().items()})


def test_other_libraries_read_what_is_saved(tmp_path):
    arrays = {"a.weight": np.arange(6.0).reshape(2, 3), "n": np.array(3), "file": np.ones(2)}
    md.save(arrays, tmp_path / "a.safetensors")
    md.save(arrays, tmp_path / "a.npz")
    oracle()
    from safetensors.torch import load_file as load_torch

    by_torch = load_torch(tmp_path / "a.safetensors")
    with np.load(tmp_path / "a.npz") as by_numpy:
        for name, array in arrays.items():
            np.testing.assert_array_equal(load_file(tmp_path / "a.safetensors")[name], array)
            np.testing.assert_array_equal(by_torch[name].numpy(), array)
            np.testing.assert_array_equal(by_numpy[name], array)


def test_the_format_is_told_by_content(tmp_path):
    for number, suffix in enumerate(SUFFIXES):
        md.save({"a": np.full(2, number)}, tmp_path / f"right{suffix}")
        wrong = tmp_path / f"wrong{number}.pth"
        (tmp_path / f"right{suffix}").rename(wrong)
        assert md.load(str(wrong))["a"].tolist() == [number, number]


@pytest.mark.parametrize("start", [b"PK", b"\x80\x00"])
def test_a_length_that_looks_like_another_format(tmp_path, start):
    """A safetensors file begins with the length of its header, whatever bytes that makes."""
    path, length = tmp_path / "a.safetensors", int.from_bytes(start, "little")
    arrays = {"a": np.ones(2)}
    fill = 0
    while not path.exists() or path.read_bytes()[:2] != start:
        save_file(arrays, path, metadata={"fill": "x" * fill})
        fill += max(1, length - 8 - int.from_bytes(path.read_bytes()[:8], "little"))
    same(md.load(path), arrays)


def test_bfloat16_becomes_float32(tmp_path):
    torch = oracle()
    from safetensors.torch import save_file as save_torch

    values = torch.tensor([[1.0, -2.5, 3e38], [float("inf"), -0.0, 1e-40]]).bfloat16()
    state = {"a": torch.ones(3), "b": values, "c": values[0, 0].clone(), "d": values[:0].clone()}
    save_torch(state, tmp_path / "b.safetensors")
    tensors = md.load(tmp_path / "b.safetensors")
    same(tensors, {name: value.float().numpy() for name, value in state.items()})
    save_torch({"x": torch.ones(2).to(torch.float8_e4m3fn)}, tmp_path / "c.safetensors")
    text = complaint(tmp_path / "c.safetensors")
    assert "tensor 'x' has numbers of type 'F8_E4M3'; expected integers" in text


def test_a_run_s_checkpoint_gives_its_weights(tmp_path):
    arrays = {"fc.weight": np.ones((2, 3)), "optimizer/0/momentum": np.zeros(2)}
    save_checkpoint(tmp_path / "last.safetensors", arrays, {"step": 1})
    assert list(md.load(tmp_path / "last.safetensors")) == ["fc.weight"]
    md.save(arrays, tmp_path / "other.safetensors")  # no run: the name may be anybody's
    assert len(md.load(tmp_path / "other.safetensors")) == 2


# ---- wrong arguments ----


def test_wrong_arguments_of_save(tmp_path):
    with pytest.raises(ValueError, match=r"must end in .safetensors or .npz, got '.*model.pth'"):
        md.save({"a": np.ones(2)}, tmp_path / "model.pth")
    for value, words in (
        ([1, 2], "expected a Module or a mapping, got list"),
        ({1: np.ones(2)}, "names must be strings, got 1"),
        ({"a": "text"}, "'a' must be a Tensor or an array of numbers, got str"),
        ({"a": np.array(["x"])}, "'a' must be a Tensor or an array of numbers, got dtype <U1"),
        ({"a": np.array([None])}, "got dtype object"),
        ({"a": np.ones(2, complex)}, "got dtype complex128"),
    ):
        with pytest.raises(TypeError) as caught:
            md.save(value, tmp_path / "a.npz")
        assert words in str(caught.value)
    assert not list(tmp_path.iterdir())


# ---- writing goes wrong ----


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_permissions_are_the_user_s(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    before = os.umask(0o027)
    try:
        md.save({"a": np.ones(2)}, path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_leaves_the_older_file(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    md.save({"a": np.ones(2)}, path)
    before = path.read_bytes()
    script = (
        "import resource, signal, sys, numpy, minidl\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: minidl.save({'a': numpy.ones((500, 500))}, sys.argv[1])\n"
        "except minidl.errors.CheckpointError as error: print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True)
    assert run.stderr == ""
    assert run.stdout.startswith(f"{path}: cannot write weights of 2.0 MB (")
    assert run.stdout.endswith("; the previous file is unchanged\n")
    assert len(run.stdout.splitlines()) == 1
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_no_such_folder(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot write weights of .*; nothing was written"):
        md.save({"a": np.ones(2)}, tmp_path / "none" / "a.npz")


def test_a_full_disk_is_one_traceback(tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(npz.npy, "write_array", full)
    with pytest.raises(CheckpointError) as caught:
        md.save({"a": np.ones(2)}, tmp_path / "a.npz")
    assert str(caught.value).endswith(
        "cannot write weights of 0.0 MB (No space left on device); nothing was written"
    )
    assert "".join(traceback.format_exception(caught.value)).count("Traceback") == 1


# ---- reading goes wrong ----


def test_files_that_are_none(tmp_path):
    assert "cannot be read (No such file" in complaint(tmp_path / "missing")
    assert "cannot be read (Is a directory)" in complaint(tmp_path)
    for content in (b"", b"\x00", b"hello, world, this is no weights file", b"\x93NUMPY\x01\x00"):
        path = tmp_path / "file"
        path.write_bytes(content)
        assert "expected safetensors, .npz, .pth, .h5 or .caffemodel, got" in complaint(path)
    path.write_bytes(b"\x1b[31m\n" * 9)
    assert "\\x1b[31m\\n" in complaint(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_truncated_at_every_length(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    md.save({"a.weight": np.arange(6.0).reshape(2, 3), "b": np.ones(2, np.int8)}, path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert complaint(path)


@given(data=st.data())
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_flipped_bits_are_refused_or_harmless(tmp_path_factory, suffix, data):
    path = tmp_path_factory.mktemp("flipped") / f"weights{suffix}"
    md.save({"a.weight": np.arange(6.0).reshape(2, 3), "b": np.ones(2, np.int8)}, path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    sizes = [0]
    try:
        sizes += [tensor.size for tensor in md.load(path).values()]
    except CheckpointError as error:
        sizes += [len(str(error).splitlines()) - 1]
    assert max(sizes) <= 6


def entries(path, contents: dict[str, bytes], compression=zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


def npy(array, **options) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, **options)
    return file.getvalue()


def test_compressed_npz_and_other_layouts(tmp_path):
    arrays = {"a": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "b": np.array(3, ">i4")}
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    tensors = md.load(tmp_path / "a.npz")
    np.testing.assert_array_equal(tensors["a"].data, arrays["a"])
    assert tensors["b"].item() == 3
    entries(tmp_path / "v2.npz", {"a.npy": npy(np.ones(3), version=(2, 0))})
    assert md.load(tmp_path / "v2.npz")["a"].shape == (3,)


class Call:
    """Pickles as a call."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_npz_that_is_refused(tmp_path, monkeypatch):
    path, marker = tmp_path / "a.npz", tmp_path / "ran"
    np.savez(path, fine=np.ones(2), bad=np.array([Call(str(marker))], dtype=object))
    assert "entry 'bad.npy' holds object, expected integers" in complaint(path)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Call(str(marker))))
    assert marker.exists()  # it would have run
    good = npy(np.arange(6.0))
    for content, words in (
        (npy(np.array(["text"])), "holds <U4"),
        (npy(np.zeros(2, [("x", "f4")])), "expected integers"),
        (npy(np.ones(2, complex)), "holds complex128"),
        (good.replace(b"(6,)", b"(7,)"), "expects 56 bytes, got 48"),
        (good.replace(b"(6,), ", b"(10**9,), ")[: len(good)], "damaged"),
        (good.replace(b"(6,), }     ", b"(-2, -3), } "), "of shape (-2, -3)"),
        (good.replace(b"(6,)", b"(os)"), "damaged"),
        (b"no array", "damaged"),
    ):
        entries(path, {"a.npy": content})
        assert words in complaint(path), content
    entries(path, {"a.npy": good}, zipfile.ZIP_BZIP2)
    assert "compressed in an unusual way" in complaint(path)
    monkeypatch.setattr("minidl.io.files.MAX_UNPACKED", 0)
    entries(path, {"a.npy": npy(np.zeros(1 << 20))}, zipfile.ZIP_DEFLATED)
    assert "that unpack to 8,388,736" in complaint(path)


def test_safetensors_that_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"a": np.arange(6.0)}, path)
    whole = path.read_bytes()
    for content in (
        whole + b"x",
        whole.replace(b"[6]", b"[7]"),
        whole.replace(b"F64", b"F99"),
        b"\xff\xff\xff\xff\xff\xff\xff\x7f{}",
        (10).to_bytes(8, "little") + b'{"a":[]}  ',
    ):
        path.write_bytes(content)
        assert "not a complete safetensors file" in complaint(path)


# ---- into models ----


def test_create_with_weights_of_a_file(tmp_path):
    model = md.models.create("lenet5")
    for suffix in SUFFIXES:
        path = tmp_path / f"lenet{suffix}"
        md.save(model, path)
        other = md.models.create("lenet5", weights=path)
        same(other.state_dict(), {name: v.data for name, v in model.state_dict().items()})


def test_older_files_of_the_same_network(tmp_path):
    """DataParallel's names, and batch normalisation without counters, in PyTorch's old format."""
    torch = oracle()
    model = md.models.create("vgg11_bn", num_classes=2, image_size=32)
    state = {
        f"module.{name}": torch.from_numpy(np.array(value.data))
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    path = tmp_path / "model_best.pth.tar"
    torch.save({"epoch": 1, "state_dict": state}, path, _use_new_zipfile_serialization=False)
    other = md.models.create("vgg11_bn", num_classes=2, image_size=32, weights=path)
    same(other.state_dict(), {name: v.data for name, v in model.state_dict().items()})


def test_parts_that_the_network_can_do_without(tmp_path, monkeypatch):
    model = md.models.create("lenet5")
    path = tmp_path / "a.npz"
    md.save(model.state_dict() | {"aux1.fc.weight": np.ones(3)}, path)
    with pytest.raises(CheckpointError, match=r"1 unexpected \('aux1.fc.weight'\)"):
        md.models.create("lenet5", weights=path)
    monkeypatch.setattr(md.models.LeNet5, "spare_names", r"aux\d\.")
    other = md.models.create("lenet5", weights=path)
    same(other.state_dict(), {name: v.data for name, v in model.state_dict().items()})


@pytest.mark.parametrize(
    ("name", "options", "spare"),
    [("googlenet_tv", {"width": 0.125, "num_classes": 2}, 20), ("inception_v3", {}, 14)],
)
def test_torchvision_s_files_have_heads_that_a_network_lacks(tmp_path, name, options, spare):
    path = tmp_path / "a.safetensors"
    model = md.models.create(f"{name}_aux", **options)
    md.save(model, path)
    other = md.models.create(name, weights=path, **options).state_dict()
    weights = {key: v.data for key, v in model.state_dict().items() if key in other}
    same(other, weights)
    assert len(weights) == len(model.state_dict()) - spare


def test_torchvision_s_densenet_has_older_names(tmp_path):
    """As in features.denseblock1.denselayer1.norm.1.weight."""
    path = tmp_path / "a.npz"
    model = md.models.create("densenet121", num_classes=2)
    pattern = r"(denselayer\d+\.)(norm|conv)([12])\."
    state = {re.sub(pattern, r"\1\2.\3.", k): v for k, v in model.state_dict().items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in state
    md.save(state, path)
    other = md.models.create("densenet121", num_classes=2, weights=path)
    same(other.state_dict(), {name: v.data for name, v in model.state_dict().items()})


def test_weights_that_do_not_fit_change_nothing(tmp_path):
    path = tmp_path / "a.npz"
    model = md.models.create("lenet5")
    arrays = {name: np.array(tensor.data) for name, tensor in model.state_dict().items()}
    first, *_, last = arrays
    for change, words in (
        ({first: None}, f"1 missing ('{first}')"),
        ({"other": np.ones(1)}, "1 unexpected ('other')"),
        ({last: np.ones(9)}, f"1 mis-shaped ('{last} (9,) for {arrays[last].shape}')"),
        ({last: None, "other": np.ones(1)}, f"1 missing ('{last}'), 1 unexpected ('other')"),
    ):
        changed = {name: array for name, array in (arrays | change).items() if array is not None}
        md.save({name: array + 1 for name, array in changed.items()}, path)
        with pytest.raises(CheckpointError) as caught:
            md.models.pretrained.load_weights(model, path)
        assert str(caught.value) == f"{path}: does not fit lenet5: {words}"
        same(model.state_dict(), arrays)
    with pytest.raises(CheckpointError, match=r"22 missing .* and 19 more"):
        md.models.create("vgg11", num_classes=2, image_size=32, weights=path)


def test_weights_for_another_number_of_classes_tell_how_to_replace_the_head(tmp_path):
    path = tmp_path / "ten.npz"
    source = md.models.create("lenet5", num_classes=10)
    md.save(source, path)
    with pytest.raises(CheckpointError, match=r"2 mis-shaped.*replace_head=True.* for 26 classes"):
        md.models.create("lenet5", num_classes=26, weights=path)
    with pytest.raises(CheckpointError, match=r"missing") as caught:
        md.models.create("resnet18", num_classes=26, weights=path)
    assert "replace_head" not in str(caught.value)
