"""The compiled rooms; HEADGATE_PURE=1 builds without any. CFLAGS and LDFLAGS have the last word."""

import os
import shlex
import sys
from glob import glob
from json import dumps
from pathlib import Path
from tempfile import TemporaryDirectory

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

ROOMS = "src/headgate/_compiled"
SHARED = "src/headgate/_c"
STRIP = {"linux": ["-Wl,-s"], "darwin": ["-Wl,-x"]}.get(sys.platform, [])
LINK = [] if "LDFLAGS" in os.environ else STRIP
FLAGS = ["/O2"] if os.name == "nt" else ["-O3", "-g0", *shlex.split(os.environ.get("CFLAGS", ""))]
COMPILE = [*FLAGS, "-DHG_COMPILE_FLAGS=" + dumps(" ".join(FLAGS))]
ATOMICS = "unsigned long long word; int main(void) { return (int)__atomic_add_fetch(&word, 1, 5); }"


def atomics_link(compiler, *libraries):
    """Whether 64-bit atomics link with these libraries; on armel, for one, they are in libatomic."""
    flags = [flag for name in ("CFLAGS", "LDFLAGS") for flag in shlex.split(os.environ.get(name, ""))]
    with TemporaryDirectory() as folder:
        source = Path(folder, "atomics.c")
        source.write_text(ATOMICS)
        try:
            objects = compiler.compile([str(source)], output_dir="/")
            compiler.link_executable(objects, "atomics", folder, libraries, extra_postargs=flags)
        except (CompileError, LinkError):
            return False
        return True


class BuildRooms(build_ext):
    def build_extensions(self):
        self.parallel = self.parallel or os.cpu_count()
        linux = sys.platform == "linux"
        if linux and not atomics_link(self.compiler) and atomics_link(self.compiler, "atomic"):
            self.compiler.add_library("atomic")
        try:
            super().build_extensions()
        except Exception as error:
            raise SystemExit("headgate: no C compiler that works, or no Python headers: "
                             "set HEADGATE_PURE=1 to install the pure-Python twin.") from error


def rooms():
    from Cython.Build import cythonize
    names = [os.path.basename(path).removesuffix(".pyx") for path in sorted(glob(f"{ROOMS}/*.pyx"))]
    options = {"include_dirs": [ROOMS, SHARED], "depends": glob(f"{ROOMS}/*.h") + glob(f"{SHARED}/*.h"),
               "extra_compile_args": COMPILE, "extra_link_args": LINK}
    return cythonize([Extension(f"headgate._compiled.{name}", [f"{ROOMS}/{name}.pyx"], **options)
                      for name in names], build_dir="build/cython")


PURE = os.environ.get("HEADGATE_PURE") == "1"
setup(ext_modules=[] if PURE else rooms(), cmdclass={"build_ext": BuildRooms})
