"""Build of the Cython CPU kernels; everything else is declared in pyproject.toml.

The kernels must run on machines other than the one that built them, so nothing is compiled with
`-march=native`: the product kernels are compiled once for each instruction set (minidl/_kernels/
cpu/simd/isa_*.c select theirs by pragma) and one is chosen when minidl is imported.
Set MINIDL_NO_OPENMP=1 to build without OpenMP, and MINIDL_SANITIZE=1 to build kernels that stop at
the first access outside an array and the first undefined behaviour (tests/sanitize.sh).
"""

import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

CPU = Path("minidl/_kernels/cpu")
SIMD_SOURCES = [str(path) for path in sorted((CPU / "simd").glob("*.c"))]

# -fno-math-errno lets sqrt become one instruction; results are unchanged. -g0 undoes the -g that
# Python was built with: what debuggers read takes a third of the time, and most of the files.
COMPILE_ARGS = ["-O3", "-fno-math-errno", "-ffp-contract=fast", "-std=gnu11", "-g0"]
# A call of memmove for each short row of an image takes longer than the row.
SIMD_ARGS = ["-fno-tree-loop-distribute-patterns"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

OPENMP_PROBE = """
#include <omp.h>
int main(void) { return omp_get_max_threads() > 0 ? 0 : 1; }
"""


def is_set(variable: str) -> bool:
    return os.environ.get(variable, "0") not in ("", "0")


def openmp_candidates() -> list[tuple[list[str], list[str]]]:
    """Pairs of (compile arguments, link arguments) worth trying on this platform."""
    if sys.platform != "darwin":
        return [(["-fopenmp"], ["-fopenmp"])]
    prefixes = [
        os.environ.get("LIBOMP_PREFIX"),
        "/opt/homebrew/opt/libomp",
        "/usr/local/opt/libomp",
    ]
    return [
        (["-Xpreprocessor", "-fopenmp", f"-I{prefix}/include"], [f"-L{prefix}/lib", "-lomp"])
        for prefix in prefixes
        if prefix and Path(prefix, "include", "omp.h").exists()
    ]


class BuildKernels(build_ext):
    """Adds the OpenMP flags that the compiler at hand accepts, or warns and builds serial kernels.

    Several compilers run side by side (as many as there are processors, or --parallel). What
    several extensions share is compiled once.
    """

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count() or 1

    def build_extensions(self) -> None:
        compile_args, link_args = self.probe_openmp()
        if is_set("MINIDL_SANITIZE"):
            compile_args = [*compile_args, *SANITIZE, "-O1", "-g1"]
            link_args = [*link_args, *SANITIZE]
        for extension in self.extensions:
            extension.extra_compile_args += compile_args
            extension.extra_link_args += link_args
        objects = self.compile_simd([*COMPILE_ARGS, *SIMD_ARGS, *compile_args])
        for extension in self.extensions:
            if "from .simd cimport" in Path(extension.sources[0]).with_suffix(".pyx").read_text():
                extension.extra_objects += objects
        super().build_extensions()

    def compile_simd(self, arguments: list[str]) -> list[str]:
        """The object files of SIMD_SOURCES."""

        def compile_one(source: str) -> list[str]:
            return self.compiler.compile(
                [source], output_dir=self.build_temp, extra_postargs=arguments
            )

        with ThreadPoolExecutor(self.parallel) as pool:
            return [name for names in pool.map(compile_one, SIMD_SOURCES) for name in names]

    def probe_openmp(self) -> tuple[list[str], list[str]]:
        if is_set("MINIDL_NO_OPENMP"):
            print("minidl: MINIDL_NO_OPENMP is set, building serial kernels")
            return [], []
        for compile_args, link_args in openmp_candidates():
            with tempfile.TemporaryDirectory() as folder:
                source = Path(folder, "probe.c")
                source.write_text(OPENMP_PROBE)
                try:
                    objects = self.compiler.compile(
                        [str(source)], output_dir=folder, extra_postargs=compile_args
                    )
                    self.compiler.link_executable(
                        objects, "probe", output_dir=folder, extra_postargs=link_args
                    )
                except (CompileError, LinkError):
                    continue
                return compile_args, link_args
        self.warn(
            "the C compiler has no working OpenMP: minidl's kernels are built serially and will "
            "use one thread (on macOS: `brew install libomp`)"
        )
        return [], []


def extension(path: Path) -> Extension:
    return Extension(
        f"minidl._kernels.cpu.{path.stem}",
        [str(path)],
        include_dirs=[numpy.get_include(), str(CPU / "simd")],
        depends=[str(source) for source in (CPU / "simd").iterdir()],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
        extra_compile_args=list(COMPILE_ARGS),
    )


setup(
    ext_modules=cythonize(
        [extension(path) for path in sorted(CPU.glob("*.pyx"))],
        language_level=3,
        compiler_directives={
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "embedsignature": True,
        },
    ),
    cmdclass={"build_ext": BuildKernels},
)
