"""PyTorch's checkpoints without PyTorch: what it writes is read to the bit, all else is refused."""

import contextlib
import io
import os
import pickle
import pickletools
import struct
import sys
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
from conftest import oracle
from hypothesis import given
from hypothesis import strategies as st

import minidl as md
from minidl.errors import CheckpointError
from minidl.io.unpickling import Name, RefusedError, unpickle

LEGACY = {"zip": False, "legacy": True}
MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
VERSION = pickle.dumps(1001, protocol=2)
MACHINE = pickle.dumps({"little_endian": True}, protocol=2)


def written(value, kind="zip", **options) -> bytes:
    """The bytes that torch.save writes."""
    file = io.BytesIO()
    oracle().save(value, file, _use_new_zipfile_serialization=not LEGACY[kind], **options)
    return file.getvalue()


@pytest.fixture
def load(tmp_path):
    """md.load of bytes, in a file whose name says nothing."""

    def read(content: bytes) -> dict[str, md.Tensor]:
        path = tmp_path / "file"
        path.write_bytes(content)
        return md.load(path)

    return read


@pytest.fixture
def complaint(load, tmp_path):
    """The text with which md.load refuses bytes: one line that begins with the path."""

    def refuse(content: bytes) -> str:
        with pytest.raises(CheckpointError) as caught:
            load(content)
        text = str(caught.value)
        assert text.startswith(f"{tmp_path / 'file'}: ")
        assert len(text.splitlines()) == 1
        assert text.isascii()
        return text

    return refuse


def archive(pickled: bytes, storages: dict[str, bytes] | None = None, **more: bytes) -> bytes:
    """A zip as PyTorch writes it, around any pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as entries:
        entries.writestr("archive/data.pkl", pickled)
        for key, content in (storages or {}).items():
            entries.writestr(f"archive/data/{key}", content)
        for name, content in more.items():
            entries.writestr(f"archive/{name}", content)
    return file.getvalue()


def legacy(pickled: bytes, keys: list[str], storages: bytes = b"") -> bytes:
    """The older format around any pickle."""
    return MAGIC + VERSION + MACHINE + pickled + pickle.dumps(keys, protocol=2) + storages


def tensor_pickle(
    shape, strides, offset=0, count=6, key="0", storage=b"ctorch\nFloatStorage\n", more=b""
) -> bytes:
    """The pickle of {"x": tensor}, with anything in its place."""

    def plain(value) -> bytes:
        return pickle.dumps(value, protocol=2)[2:-1]

    return (
        b"\x80\x02}" + plain("x") + b"ctorch._utils\n_rebuild_tensor_v2\n("
        + b"(" + plain("storage") + storage + plain(key) + plain("cpu") + plain(count) + b"tQ"
        + plain(offset) + plain(shape) + plain(strides) + b"\x89" + b"ccollections\nOrderedDict\n)R"
        + more + b"tRs."
    )  # fmt: skip


# ---- what PyTorch writes ----


@pytest.mark.parametrize("kind", LEGACY)
def test_every_type_of_number_is_read_to_the_bit(load, kind):
    torch = oracle()
    generator = torch.Generator().manual_seed(1)
    state = {}
    floats = ["float64", "float32", "float16", "bfloat16"]
    for name in [*floats, "int64", "int32", "int16", "int8", "uint8", "bool"]:
        values = torch.randn(3, 4, generator=generator) * 50
        state[name] = (values.abs() if name == "uint8" else values).to(getattr(torch, name))
    state["special"] = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0])
    tensors = load(written(state, kind))
    assert list(tensors) == list(state)
    for name, expected in state.items():
        widened = expected.float() if name == "bfloat16" else expected
        assert tensors[name].dtype.name == str(widened.dtype).removeprefix("torch.")
        np.testing.assert_array_equal(tensors[name].data, widened.numpy())


@pytest.mark.parametrize("kind", LEGACY)
def test_layouts(load, kind):
    torch = oracle()
    base = torch.arange(24.0)
    state = OrderedDict(
        scalar=torch.tensor(7),
        nothing=torch.zeros(0, 3),
        transposed=base.reshape(4, 6).t(),
        stepped=base.reshape(4, 6)[1:, ::2],
        channels_last=torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        part=base[5:9],
        parameter=torch.nn.Parameter(base.reshape(2, 12)[:, 3:5]),
        narrow=torch.ones(4, 1)[:1],
        no_column=torch.ones(4, 3)[:, :0],
    )
    tensors = load(written(state, kind))
    for name, expected in state.items():
        assert tensors[name].shape == tuple(expected.shape), name
        np.testing.assert_array_equal(tensors[name].data, expected.detach().numpy())


@pytest.mark.parametrize("kind", LEGACY)
def test_shared_storages_stay_shared(load, kind):
    torch = oracle()
    base = torch.arange(6.0)
    tensors = load(written({"all": base, "end": base[4:]}, kind))
    tensors["all"].data[5] = 100
    assert tensors["end"].tolist() == [4.0, 100.0]


@pytest.mark.parametrize("kind", LEGACY)
def test_a_whole_network_loads_with_strict_names(tmp_path, kind):
    torch = oracle()
    network = torch.nn.Sequential(
        OrderedDict(conv=torch.nn.Conv2d(3, 4, 3), norm=torch.nn.BatchNorm2d(4))
    )
    network(torch.randn(2, 3, 8, 8))
    path = tmp_path / "network.pth"
    path.write_bytes(written(network.state_dict(), kind))
    ours = md.nn.Sequential(md.nn.Conv2d(3, 4, 3), md.nn.BatchNorm2d(4))
    names = {"conv": "0", "norm": "1"}
    loaded = {names[k.split(".")[0]] + k[4:]: v for k, v in md.load(path).items()}
    ours.load_state_dict(loaded)
    images = torch.randn(2, 3, 8, 8)
    expected = network.eval()(images).detach().numpy()
    np.testing.assert_allclose(ours.eval()(md.tensor(images.numpy())).data, expected, atol=1e-5)


@pytest.mark.parametrize("kind", LEGACY)
@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net", "whatever"])
def test_a_training_checkpoint_gives_its_state_dict(load, kind, key):
    torch = oracle()
    network = torch.nn.Linear(2, 3)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    checkpoint = {
        "epoch": 90,
        "best": torch.tensor(0.9),
        key: network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": [1.0, None, ("x", True)],
    }
    tensors = load(written(checkpoint, kind))
    np.testing.assert_array_equal(tensors["weight"].data, network.weight.detach().numpy())
    assert list(tensors) == ["weight", "bias"]


def test_the_usual_name_wins_and_otherwise_the_choice_is_the_user_s(load, complaint):
    torch = oracle()
    one, two = {"a": torch.zeros(1)}, {"b": torch.ones(1)}
    assert list(load(written({"ema": one, "model": two, "net": one}))) == ["b"]
    assert "cannot choose among 'left', 'right'" in complaint(written({"left": one, "right": two}))


def test_newer_pickle_protocols_and_big_endian_archives(load):
    torch = oracle()
    state = {"a": torch.arange(5), "b": torch.ones(3).bfloat16(), "c": torch.tensor([True, False])}
    for protocol in (2, 3, 4, 5):
        assert load(written(state, pickle_protocol=protocol))["a"].tolist() == [0, 1, 2, 3, 4]
    big = archive(
        tensor_pickle((2, 3), (3, 1)), {"0": np.arange(6, dtype=">f4").tobytes()}, byteorder=b"big"
    )
    assert load(big)["x"].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert load(big)["x"].dtype == md.float32


def test_files_of_python_2_and_of_gpus(load):
    """Lists of pairs, byte strings as keys, version 1 of tensors, storages of torch.cuda."""
    tensor = (
        b"ctorch._utils\n_rebuild_tensor\n"
        b"((U\x07storagectorch.cuda\nFloatStorage\nU\x0212U\x06cuda:0K\x02NtQK\x00K\x02\x85K\x01\x85tR"
    )
    parameter = b"ctorch.nn.parameter\nParameter\n" + tensor + b"\x85R(\x88\x89]tb"
    pickled = b"\x80\x02ccollections\nOrderedDict\n]]U\x06weighta" + parameter + b"aa\x85R."
    numbers = np.array([1.5, -2.0], "<f4").tobytes()
    content = legacy(pickled, ["12"], struct.pack("<q", 2) + numbers)
    assert load(content)["weight"].tolist() == [1.5, -2.0]


def test_tensors_can_be_changed(load):
    torch = oracle()
    for kind in LEGACY:
        tensor = load(written({"a": torch.ones(3)}, kind))["a"]
        tensor.fill_(2.0)
        assert tensor.tolist() == [2.0, 2.0, 2.0]


# ---- what strangers write ----


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def hostile(marker: str) -> dict[str, tuple[bytes, str]]:
    """Pickles that would run code, and the words their refusal contains."""
    command = f"open({marker!r}, 'w').close()".encode()
    text = b"X" + struct.pack("<I", len(command)) + command
    attack = {
        "REDUCE": (pickle.dumps({"a": Call(os.system, f"touch {marker}")}, 2), "system'"),
        "GLOBAL": (b"\x80\x02cbuiltins\neval\n" + text + b"\x85R.", "'builtins.eval'"),
        "STACK_GLOBAL": (
            b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93" + text + b"\x85R.",
            "'builtins.eval'",
        ),
        "INST": (b"\x80\x02(" + text + b"ibuiltins\neval\n.", "INST 'builtins eval'"),
        "OBJ": (b"\x80\x02(cbuiltins\neval\n" + text + b"o.", "'builtins.eval'"),
        "NEWOBJ": (b"\x80\x02cbuiltins\neval\n" + text + b"\x85\x81.", "'builtins.eval'"),
        "NEWOBJ_EX": (b"\x80\x04cbuiltins\neval\n" + text + b"\x85}\x92.", "'builtins.eval'"),
        "EXT1": (b"\x80\x02\x82\x01" + text + b"\x85R.", "EXT1"),
        "EXT2": (b"\x80\x02\x83\x01\x00.", "EXT2"),
        "EXT4": (b"\x80\x02\x84\x01\x00\x00\x00.", "EXT4"),
        "PERSID": (b"\x80\x02Pevil\n.", "PERSID 'evil'"),
        "BUILD": (b"\x80\x02ccollections\nOrderedDict\n}b.", "sets attributes of a Name"),
        "BUILD of a class": (b"\x80\x02cos\nenviron\n}b.", "'os.environ'"),
        "module": (b"\x80\x02(X\x06\x00\x00\x00modulectorch\nFloatStorage\ntQ.", "'module'"),
        "near": (b"\x80\x02ctorch\nload\n" + text + b"\x85R.", "'torch.load'"),
        "dotted": (b"\x80\x04\x8c\x05torch\x8c\x0cos.system\x00\x00\x00\x93.", "os.system"),
        "storage called": (b"\x80\x02ctorch\nFloatStorage\n)R.", "calls 'torch.FloatStorage'"),
        "dict called": (b"\x80\x02})R.", "calls 'dict'"),
        "set": (b"\x80\x04\x8f.", "EMPTY_SET"),
        "bytearray": (b"\x80\x05\x96\x01\x00\x00\x00\x00\x00\x00\x00a.", "BYTEARRAY8"),
        "terminal": (b"\x80\x02cos\n\x1b[31m\n.", "x1b[31m"),
        "tuple as key": (b"\x80\x02})K\x01s.", "key of type tuple"),
    }  # fmt: skip
    return attack


@pytest.mark.parametrize("name", hostile("x"))
def test_hostile_pickles_run_nothing(complaint, tmp_path, name):
    marker = tmp_path / "ran"
    before = set(sys.modules)
    pickled, words = hostile(str(marker))[name]
    for content in (archive(pickled), legacy(pickled, []), pickled):
        assert words in complaint(content), name
    for place in range(4):  # instead of each of the older format's other pickles
        parts = [MAGIC, VERSION, MACHINE, pickle.dumps({"a": 1}, 2)]
        parts[place] = pickled
        if place:
            assert words in complaint(b"".join(parts))
    assert not marker.exists()
    assert not {module.split(".")[0] for module in set(sys.modules) - before} - {"minidl"}


def test_the_attacks_are_real(tmp_path):
    """Python's own pickle does run them: otherwise the test above would show nothing."""
    for name in ("REDUCE", "GLOBAL", "STACK_GLOBAL", "INST", "OBJ"):
        marker = tmp_path / name
        pickle.loads(hostile(str(marker))[name][0])
        assert marker.exists(), name


def test_whole_models_are_refused_by_the_name_of_their_class(complaint):
    torch = oracle()
    for kind in LEGACY:
        text = complaint(written(torch.nn.Linear(2, 2), kind))
        assert "state_dict()" in text
        assert "'torch.nn.modules.linear.Linear'" in text or "'module'" in text


def test_what_is_not_a_state_dict_is_refused(complaint):
    torch = oracle()
    for value, words in (
        (torch.ones(2), "got a tensor"),
        ([torch.ones(2)], "got a list"),
        ({"epoch": 3, "lr": 0.1}, "found none (entries that are not tensors: 'epoch', 'lr')"),
        ({0: torch.ones(2)}, "found none"),
        ({"a": torch.ones(2).to_sparse()}, "_rebuild_sparse_tensor"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "'torch.ComplexFloatStorage'"),
        ({"a": torch.ones(2, dtype=torch.complex64).conj()}, "'torch.ComplexFloatStorage'"),
        ({"a": torch.ones(2), "b": np.float64(3)}, "'numpy"),
        ({"a": torch.ones(2), "b": {1, 2}}, "set'"),
    ):
        assert words in complaint(written(value))


def test_scripts_and_other_archives_are_refused(complaint):
    script = archive(b"\x80\x02}.", **{"constants.pkl": b""})
    assert "TorchScript" in complaint(script)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as entries:
        entries.writestr("letter.txt", "hello")
    assert "a ZIP archive of 'letter.txt'" in complaint(file.getvalue())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"offset": 1}, "beyond its storage of 6 elements"),
        ({"offset": -1}, "without a storage or an offset"),
        ({"offset": True}, "without a storage or an offset"),
        ({"strides": (4, 1)}, "beyond its storage"),
        ({"strides": (-3, 1)}, "not whole numbers"),
        ({"strides": (3,)}, "2 axes with 1 strides"),
        ({"shape": (2, 4)}, "beyond its storage"),
        ({"shape": (10**9, 10**9), "strides": (0, 0)}, "beyond its storage"),
        ({"shape": (0, 10**40)}, "damaged: a tensor of shape"),
        ({"shape": (1,) * 33, "strides": (1,) * 33}, "33 axes"),
        ({"shape": (2.0, 3)}, "not whole numbers"),
        ({"shape": [2, 3]}, "not whole numbers"),
        ({"count": 7}, "of 28 bytes expected, got 24 bytes"),
        ({"count": 10**15}, "larger than the file"),
        ({"count": -6}, "without a type, a key or a number"),
        ({"key": "1"}, "got none"),
        ({"key": "../data.pkl"}, "got none"),
        ({"storage": b"ccollections\nOrderedDict\n"}, "without a type"),
        ({"storage": b"N"}, "without a type"),
        ({"more": b"}X\x04\x00\x00\x00conj\x88s"}, "conjugated"),
    ],
)
def test_no_tensor_reaches_beyond_its_storage(complaint, change, words):
    good = {"shape": (2, 3), "strides": (3, 1)}
    storages = {"0": np.arange(6, dtype="<f4").tobytes()}
    assert words in complaint(archive(tensor_pickle(**good | change), storages))


def test_strides_that_do_not_matter_are_free(load):
    storages = {"0": np.arange(6, dtype="<f4").tobytes()}
    tensor = load(archive(tensor_pickle((1, 6), (10**30, 1)), storages))["x"]
    assert tensor.tolist() == [[0, 1, 2, 3, 4, 5]]
    empty = load(archive(tensor_pickle((0, 3), (10**30, 1), offset=99), storages))["x"]
    assert empty.shape == (0, 3)


def test_bombs_are_refused_before_memory_is_taken(complaint):
    count = 1 << 22
    storages = {"0": bytes(4 * count)}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as entries:
        entries.writestr("archive/data.pkl", tensor_pickle((count,), (1,), count=count))
        entries.writestr("archive/data/0", storages["0"])
    assert "compressed" in complaint(file.getvalue())
    assert "larger than 8,388,608 bytes" in complaint(archive(b"}" * (9 << 20)))
    # a memo entry of a huge number, a string of a huge length, nests that are exponential to walk
    assert "found none" in complaint(archive(b"\x80\x02}r\xff\xff\xff\x7f."))
    assert "damaged" in complaint(archive(b"\x80\x04\x8d" + b"\xff" * 7 + b"\x00abc."))
    nest = b"\x80\x02}q\x00" + b"".join(
        b"}(K\x00h%cK\x01h%cuq%c" % (i, i, i + 1) for i in range(200)
    )  # fmt: skip
    assert "found none" in complaint(archive(nest + b"."))
    itself = b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s."
    assert "found none" in complaint(archive(itself))
    assert "damaged" in complaint(archive(b"\x80\x02" + b"(" * 1_000_000))


@pytest.mark.parametrize("kind", LEGACY)
def test_truncated_at_every_length(complaint, kind):
    torch = oracle()
    whole = written({"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(3)}, kind)
    lengths = range(len(whole)) if kind == "legacy" else range(0, len(whole), 13)
    for length in lengths:
        assert complaint(whole[:length])


@given(st.data())
def test_flipped_bits_are_refused_or_harmless(tmp_path_factory, data):
    torch = oracle()
    kind = data.draw(st.sampled_from(sorted(LEGACY)))
    state = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(3).half()}
    content = bytearray(written(state, kind))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.mktemp("flipped") / "file.pth"
    path.write_bytes(content)
    tensors = {}
    with contextlib.suppress(CheckpointError):  # any other error fails
        tensors = md.load(path)
    for tensor in tensors.values():
        assert tensor.size <= 6
        assert len(tensor.data.tobytes()) <= 24  # within its memory


def test_every_flipped_bit_of_a_zip_s_numbers_is_noticed(complaint):
    torch = oracle()
    whole = written({"weight": torch.arange(6.0)})
    start = whole.index(np.arange(6.0, dtype="<f4").tobytes())
    for position in range(start, start + 24):
        content = bytearray(whole)
        content[position] ^= 8
        assert "CRC" in complaint(bytes(content))


OPCODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]
PIECES = [*OPCODES, b"\x01", b"a\n", b"collections\nOrderedDict\n", b"q\x01", b"h\x01"]


@given(st.binary(max_size=60) | st.lists(st.sampled_from(PIECES)).map(b"".join))
def test_any_instructions_end_in_a_value_or_in_refusal(content):
    value = None
    with contextlib.suppress(RefusedError):  # any other error fails
        value = unpickle(io.BytesIO(b"\x80\x02" + content)).value
    assert isinstance(value, None | bool | int | float | str | bytes | tuple | list | dict | Name)
