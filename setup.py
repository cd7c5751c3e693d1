"""The compiled rooms; HEADGATE_PURE=1 builds without any. CFLAGS and LDFLAGS have the last word."""

import os
import shlex
import sys
from glob import glob
from json import dumps

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOMS = "src/headgate/_compiled"
STRIP = {"linux": ["-Wl,-s"], "darwin": ["-Wl,-x"]}.get(sys.platform, [])
LINK = [] if "LDFLAGS" in os.environ else STRIP
FLAGS = ["/O2"] if os.name == "nt" else ["-O3", "-g0", *shlex.split(os.environ.get("CFLAGS", ""))]
COMPILE = [*FLAGS, "-DHG_COMPILE_FLAGS=" + dumps(" ".join(FLAGS))]


class BuildRooms(build_ext):
    def build_extensions(self):
        self.parallel = self.parallel or os.cpu_count()
        try:
            super().build_extensions()
        except Exception as error:
            raise SystemExit("headgate: no C compiler that works, or no Python headers: "
                             "set HEADGATE_PURE=1 to install the pure-Python twin.") from error


def rooms():
    from Cython.Build import cythonize
    names = [os.path.basename(path).removesuffix(".pyx") for path in sorted(glob(f"{ROOMS}/*.pyx"))]
    options = {"include_dirs": [ROOMS], "depends": glob(f"{ROOMS}/*.h"),
               "extra_compile_args": COMPILE, "extra_link_args": LINK}
    return cythonize([Extension(f"headgate._compiled.{name}", [f"{ROOMS}/{name}.pyx"], **options)
                      for name in names], build_dir="build/cython")


PURE = os.environ.get("HEADGATE_PURE") == "1"
setup(ext_modules=[] if PURE else rooms(), cmdclass={"build_ext": BuildRooms})
