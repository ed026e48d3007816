"""What this installation of minidl consists of, and what is wrong with it."""

import importlib.util
import os
import platform
import sys
from pathlib import Path

import numpy as np

from ._kernels import cpu
from ._kernels.cpu.threads import available_cpus
from .device import cuda_version, why_no_compiler, why_no_gpu

__all__ = ["collect_config", "show_config"]

OPTIONAL_PACKAGES = ("matplotlib", "ml_dtypes", "torch")


def _version(package: str) -> str:
    import importlib.metadata  # here, because it costs a tenth of the time of `import minidl`

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _blas() -> str:
    """Name and version of the BLAS that NumPy was built with."""
    config = np.show_config(mode="dicts") or {}
    blas = config.get("Build Dependencies", {}).get("blas", {})
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()


def _processor() -> str:
    """The processor's name as the operating system knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _gpus(problems: list[str]) -> tuple[str, str]:
    """CuPy's version and the GPUs, without importing CuPy where it is not installed."""
    if importlib.util.find_spec("cupy") is None:
        return "not installed", "none"
    try:
        import cupy
    except ImportError as error:
        reason = str(error).strip().splitlines()[0]
        problems.append(f"CuPy is installed but does not import: {reason}")
        return "does not import", "unknown"
    runtime = cupy.cuda.runtime
    try:
        numbers = range(runtime.getDeviceCount())
    except runtime.CUDARuntimeError as error:
        problems.append(f"GPU: {why_no_gpu(cupy, error)}")
        return cupy.__version__, "none"
    if problem := why_no_compiler(cupy):
        problems.append(problem)
    gpus = []
    for number in numbers:
        facts = runtime.getDeviceProperties(number)
        name, memory = facts["name"].decode(), facts["totalGlobalMem"] / 2**30
        gpus.append(f"cuda:{number} {name}, {memory:.0f} GiB, sm_{facts['major']}{facts['minor']}")
    built_for, supported = map(
        cuda_version, (runtime.runtimeGetVersion(), runtime.driverGetVersion())
    )
    return f"{cupy.__version__} for CUDA {built_for}, driver for {supported}", "; ".join(gpus)


def collect_config() -> tuple[dict[str, str], list[str]]:
    """What `show_config` prints: facts by name, and a list of problems of one line each."""
    problems: list[str] = []
    threads, cpus = cpu.get_num_threads(), available_cpus()
    openmp = cpu.has_openmp()
    if not openmp and cpus > 1:
        problems.append(
            "the kernels were built without OpenMP and use one thread "
            "(install a compiler with OpenMP; on macOS `brew install libomp`; then reinstall)"
        )
    if threads > cpus:
        problems.append(
            f"{threads} threads on {cpus} available processors slow each other down "
            "(set OMP_NUM_THREADS or MINIDL_NUM_THREADS)"
        )
    wanted = os.environ.get("MINIDL_ISA", cpu.instruction_set())
    if wanted != cpu.instruction_set():
        problems.append(
            f"MINIDL_ISA={wanted} is not available here (avx512, avx2, portable are known); "
            f"{cpu.instruction_set()} is in use"
        )
    if cpu.instruction_set() == "portable" and platform.machine() in ("x86_64", "AMD64"):
        problems.append("neither AVX2 nor AVX-512 is in use: products are about 4 times slower")
    cupy_version, gpus = _gpus(problems)
    facts = {
        "minidl": _version("minidl"),
        "Python": f"{platform.python_version()} ({sys.executable})",
        "NumPy": f"{np.__version__}, BLAS {_blas()} (not used by minidl's products)",
        "platform": platform.platform(),
        "processor": _processor(),
        "instruction set": cpu.instruction_set(),
        "threads": f"{threads} of {cpus} available processors",
        "OpenMP": "yes" if openmp else "no",
        "CuPy": cupy_version,
        "GPU": gpus,
    }
    facts |= {package: _version(package) for package in OPTIONAL_PACKAGES}
    return facts, problems


def show_config() -> None:
    """Print versions, instruction set, threads, OpenMP, BLAS, CuPy and GPU, and what is wrong.

    >>> import minidl as md
    >>> md.show_config()  # doctest: +ELLIPSIS
    minidl ...
    """
    facts, problems = collect_config()
    for name, value in facts.items():
        print(f"{name:16} {value}")
    for problem in problems:
        print(f"problem: {problem}")
    if not problems:
        print("no problems found")
