"""NVIDIA's run-time compiler through ctypes: it needs no GPU, only its library.

The library comes with `pip install nvidia-cuda-nvrtc`, the headers for 16-bit numbers with
`nvidia-cuda-runtime`; a CUDA toolkit in CUDA_HOME or /usr/local/cuda has both.
"""

import ctypes
import functools
import importlib.util
import os
import re
from pathlib import Path

OPTIONS = ["-ftz=true", "--device-as-default-execution-space"]  # those that CuPy adds


def compile_program(code: str, names: tuple[str, ...], options: tuple[str, ...], arch: str) -> str:
    """Compile to machine code for `arch` ("sm_90") and return all that the compiler says.

    Raises RuntimeError with that text if it does not compile, OSError if there is no compiler.
    """
    library = _library()
    program = ctypes.c_void_p()
    _check(library, library.nvrtcCreateProgram(
        ctypes.byref(program), code.encode(), b"kernels.cu", 0, None, None
    ))  # fmt: skip
    for name in names:
        _check(library, library.nvrtcAddNameExpression(program, name.encode()))
    flags = [*options, *OPTIONS, f"-arch={arch}", "-Xptxas", "-v"]
    flags += [f"-I{folder}" for folder in _folders("include")]
    array = (ctypes.c_char_p * len(flags))(*(flag.encode() for flag in flags))
    result = library.nvrtcCompileProgram(program, len(flags), array)
    size = ctypes.c_size_t()
    _check(library, library.nvrtcGetProgramLogSize(program, ctypes.byref(size)))
    log = ctypes.create_string_buffer(size.value)
    _check(library, library.nvrtcGetProgramLog(program, log))
    _check(library, library.nvrtcDestroyProgram(ctypes.byref(program)))
    text = log.value.decode()
    if result:
        raise RuntimeError(f"{arch}: {text}")
    return text


def spills(log: str) -> list[str]:
    """The kernels for which registers did not suffice, from what the assembler says."""
    found = re.findall(
        r"entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads", log, re.S
    )
    return [name for name, *stored_and_loaded in found if any(map(int, stored_and_loaded))]


def _check(library: ctypes.CDLL, result: int) -> None:
    if result:
        raise RuntimeError(f"NVRTC: {library.nvrtcGetErrorString(result).decode()}")


@functools.cache
def _library() -> ctypes.CDLL:
    paths = [path for folder in _folders("lib", "lib64") for path in folder.glob("libnvrtc*.so*")]
    for path in sorted(paths):
        if "builtins" in path.name and ".alt." not in path.name:
            ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)  # the compiler looks for it by name
    for path in sorted(paths):
        if re.fullmatch(r"libnvrtc\.so(\.\d+)?", path.name):
            library = ctypes.CDLL(str(path))
            library.nvrtcGetErrorString.restype = ctypes.c_char_p
            return library
    raise OSError("no libnvrtc; pip install nvidia-cuda-nvrtc nvidia-cuda-runtime")


def _folders(*names: str) -> list[Path]:
    """Where the wheels and the toolkits have their files, those that are there."""
    spec = importlib.util.find_spec("nvidia")
    roots = (
        [Path(path) / "cu13" for path in (spec.submodule_search_locations or [])] if spec else []
    )
    roots += [Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"))]
    return [root / name for root in roots for name in names if (root / name).is_dir()]
