"""The compiled rooms; HEADGATE_PURE=1 builds without any."""

import os
import sys
from glob import glob
from json import dumps

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError

ROOM = "src/headgate/_compiled"
COMPILE, LINK = (["/O2"], []) if sys.platform == "win32" else (["-O3", "-g0"], [])
if sys.platform == "linux":
    LINK = ["-Wl,-s"]
COMPILE.append("-DHG_COMPILE_FLAGS=" + dumps(" ".join([*COMPILE, os.environ.get("CFLAGS", "")]).strip()))


class BuildRooms(build_ext):
    def build_extensions(self):
        self.parallel = self.parallel or os.cpu_count()
        try:
            super().build_extensions()
        except BaseError as error:
            raise SystemExit(f"headgate: no working C compiler ({error}). "
                             "Set HEADGATE_PURE=1 to install the pure-Python twin.") from error


def rooms():
    from Cython.Build import cythonize

    names = [os.path.basename(path)[:-4] for path in sorted(glob(f"{ROOM}/*.pyx"))]
    return cythonize(
        [Extension(f"headgate._compiled.{name}", [f"{ROOM}/{name}.pyx"], include_dirs=[ROOM],
                   depends=glob(f"{ROOM}/*.h"), extra_compile_args=COMPILE, extra_link_args=LINK) for name in names],
        build_dir="build/cython",
    )


setup(ext_modules=[] if os.environ.get("HEADGATE_PURE") == "1" else rooms(), cmdclass={"build_ext": BuildRooms})
