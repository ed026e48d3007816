"""Machines without a GPU, or with half of what it takes, are told so in one line."""

import subprocess
import sys

import pytest

import minidl as md
from minidl import device, installation
from minidl.train import main


class NoDriver:
    """CuPy as it is on a machine whose driver is missing or too old."""

    def __init__(self, supported):
        class CUDARuntimeError(RuntimeError):
            pass

        def refuse():
            raise CUDARuntimeError("cudaErrorInsufficientDriver")

        self.__version__, self.ndarray = "14.2.0", type(None)
        self.cuda = self.runtime = self
        self.CUDARuntimeError, self.getDeviceCount = CUDARuntimeError, refuse
        self.runtimeGetVersion, self.driverGetVersion = lambda: 13000, lambda: supported


class NoLibraries:
    """CuPy for another CUDA version than the one that is installed, as it answers an import."""

    def find_spec(self, name, path=None, target=None):
        if name == "cupy":
            raise ImportError("libcublas.so.12: cannot open shared object file\nand so on")
        return None


MISSING = pytest.mark.parametrize(
    ("cupy", "text"),
    [
        (None, "device 'cuda:0': CuPy is not installed: pip install 'cupy-cuda13x[ctk]' ml_dtypes"),
        (NoDriver(0), "device 'cuda:0': no GPU, or no NVIDIA driver for it; use device 'cpu'"),
        (
            NoDriver(12040),
            "device 'cuda:0': CuPy 14.2.0 is for CUDA 13.0, but the driver supports CUDA up to "
            "12.4; install cupy-cuda12x instead, or a newer driver",
        ),
        (
            NoLibraries(),
            "device 'cuda:0': CuPy does not import (libcublas.so.12: cannot open shared object "
            "file); reinstall: pip install 'cupy-cuda13x[ctk]'",
        ),
    ],
    ids=["no CuPy", "no GPU", "old driver", "other CUDA"],
)


def pretend(monkeypatch, cupy, driver=13000):
    """As if `import cupy` found this, beside a driver for this version of CUDA."""
    monkeypatch.setattr(device, "driver_version", lambda: driver)
    device._open_gpu.cache_clear()
    if isinstance(cupy, NoLibraries):
        monkeypatch.delitem(sys.modules, "cupy", raising=False)
        monkeypatch.setattr(sys, "meta_path", [cupy, *sys.meta_path])
    else:
        monkeypatch.setitem(sys.modules, "cupy", cupy)


@MISSING
def test_what_is_missing_is_said_in_one_line(monkeypatch, cupy, text):
    pretend(monkeypatch, cupy)
    with pytest.raises(RuntimeError) as caught:
        md.zeros(1, device="cuda")
    assert str(caught.value).startswith(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cupy", [None, NoLibraries()], ids=["no CuPy", "other CUDA"])
def test_without_a_driver_nobody_is_sent_to_install_cupy(monkeypatch, cupy):
    pretend(monkeypatch, cupy, driver=0)
    with pytest.raises(RuntimeError, match=r"^device 'cuda:0': no GPU, or no NVIDIA driver for it"):
        md.zeros(1, device="cuda")


def test_cupy_is_to_be_installed_for_the_driver_that_is_there(monkeypatch):
    for driver, package in ((12080, "cupy-cuda12x"), (14000, "cupy-cuda13x")):  # or the newest
        pretend(monkeypatch, None, driver)
        with pytest.raises(RuntimeError, match=rf"pip install '{package}\[ctk\]' ml_dtypes$"):
            md.zeros(1, device="cuda")


def test_the_driver_itself_says_what_it_supports(monkeypatch):
    class Driver:
        def __init__(self, name):
            assert name == "libcuda.so.1"

        def cuDriverGetVersion(self, version):
            version._obj.value = 13020

    def none(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(device.ctypes, "CDLL", Driver)
    assert device.driver_version() == 13020
    monkeypatch.setattr(device.ctypes, "CDLL", none)
    assert device.driver_version() == 0


@MISSING
def test_the_commands_say_it_in_one_line(monkeypatch, capsys, cupy, text):
    pretend(monkeypatch, cupy)
    assert main(["--arch", "lenet5", "--device", "cuda"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"minidl.train: {text}")
    assert err.count("\n") == 1


def test_the_doctor_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(installation.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "cupy", NoDriver(12040))
    facts, problems = installation.collect_config()
    assert (facts["CuPy"], facts["GPU"]) == ("14.2.0", "none")
    problem = "GPU: CuPy 14.2.0 is for CUDA 13.0, but the driver supports"
    assert any(line.startswith(problem) for line in problems)


def test_the_command_line_says_it_in_one_line():
    code = (
        "import sys; sys.modules['cupy'] = None; import minidl.device as device; "
        "device.driver_version = lambda: 13000; from minidl.train import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", code, "--arch", "lenet5", "--device", "cuda:1"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith("minidl.train: device 'cuda:1': CuPy is not installed")
    assert result.stderr.count("\n") == 1


def test_mixed_precision_needs_a_gpu(capsys):
    assert main(["--arch", "lenet5", "--amp", "bf16"]) == 2
    assert capsys.readouterr().err == "minidl.train: --amp bf16 needs a GPU: --device cuda\n"
