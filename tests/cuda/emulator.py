"""Compiles `.cu` text with g++ against emulator.h, and runs its kernels on the CPU."""

import ctypes
import functools
import hashlib
import os
import re
import subprocess
import tempfile
from pathlib import Path

HEADER = Path(__file__).with_name("emulator.h")
INCLUDE = Path(__file__).with_name("include")  # in place of CUDA's headers for 16-bit numbers
SANITIZE = os.environ.get("MINIDL_CUDA_SANITIZE") == "1"  # needs libasan preloaded
FLAGS = ["-std=c++17", "-O1", "-g", "-fPIC", "-shared", "-fno-strict-aliasing", "-ffp-contract=off"]
WARNINGS = ["-Wall", "-Werror", "-Wno-unused-function", "-Wno-unknown-pragmas"]
WARNINGS += [
    "-Wno-sign-compare",
    "-Wno-unused-variable",
    "-Wno-unused-but-set-variable",
    "-U_FORTIFY_SOURCE",
]
if SANITIZE:
    FLAGS += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "--param=asan-stack=0"]

ORDERS = {"ascending": 0, "descending": 1, "shuffled": 2}

# How this launch and the next ones run; tests set it through the fixture `thread_order`.
order = "ascending"


class Program:
    """A compiled `.cu` text and the kernels in it that were named."""

    def __init__(self, code: str, names: tuple[str, ...]) -> None:
        self.names = names
        self.library = ctypes.CDLL(str(_compiled(_translated(code, names))))
        for i in range(len(names)):
            getattr(self.library, f"parameters_{i}").restype = ctypes.c_char_p
            getattr(self.library, f"launch_{i}").restype = ctypes.c_char_p

    @functools.cache  # noqa: B019  programs live as long as the tests
    def parameters(self, name: str) -> tuple[str, ...]:
        """The types of a kernel's parameters: "f4", "i8", or with a star for pointers, "*f4"."""
        text = getattr(self.library, f"parameters_{self.names.index(name)}")()
        return tuple(text.decode().split())

    def launch(self, name, grid, block, arguments, shared_bytes: int) -> None:
        """Run a kernel; `arguments` are ctypes values. Raises RuntimeError for what goes wrong."""
        addresses = (ctypes.c_void_p * len(arguments))(*map(ctypes.addressof, arguments))
        sizes = [(ctypes.c_uint * 3)(*(*entry, 1, 1)[:3]) for entry in (grid, block)]
        message = getattr(self.library, f"launch_{self.names.index(name)}")(
            addresses, *sizes, ctypes.c_size_t(shared_bytes), ORDERS[order]
        )
        if message is not None:
            raise RuntimeError(f"{name}: {message.decode()}")


def _translated(code: str, names: tuple[str, ...]) -> str:
    """`__shared__` variables, of which a block's threads have one, need another declaration."""
    code = re.sub(
        r"extern\s+__shared__\s+(?:__align__\(\d+\)\s+)?([\w\s]+?)\s*(\w+)\[\];",
        r"\1* \2 = (\1*)emulator::dynamic_memory;",
        code,
    )
    code = re.sub(
        r"__shared__\s+(?:__align__\(\d+\)\s+)?([^;=]+?)\s*\b(\w+)((?:\[[^;]+\])?);",
        r"typedef \1 \2_shared_t\3; static char \2_key; "
        r"auto& \2 = emulator::shared<\2_shared_t>(&\2_key);",
        code,
    )
    entries = "".join(f"EMULATOR_KERNEL({i}, {name})\n" for i, name in enumerate(names))
    return f'#include "{HEADER}"\n{code}\n#line 1 "instances"\n{entries}'


def _compiled(code: str) -> Path:
    headers = [path.read_text() for path in (HEADER, *sorted(INCLUDE.iterdir()))]
    key = hashlib.sha256("\0".join([code, *headers, *FLAGS]).encode()).hexdigest()[:24]
    folder = Path(tempfile.gettempdir()) / f"minidl-cuda-emulator-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f"{key}.so"
    if not library.exists():
        text = folder / f"{key}.{os.getpid()}.cpp"
        text.write_text(code, encoding="utf-8")
        made = text.with_suffix(".so")
        command = ["g++", *FLAGS, *WARNINGS, f"-I{INCLUDE}", "-o", made, text]
        result = subprocess.run(command, capture_output=True, text=True)
        text.unlink()
        if result.returncode:
            raise RuntimeError(f"the kernels do not compile:\n{result.stderr[:8000]}")
        made.replace(library)
    return library
