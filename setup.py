"""Builds every .pyx under src; HEADGATE_PURE=1 builds none. CFLAGS and LDFLAGS have the last word."""

import os
import shlex
import sys
from json import dumps
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

STRIP = {"linux": ["-Wl,-s"], "darwin": ["-Wl,-x"]} if "LDFLAGS" not in os.environ else {}
FLAGS = ["/O2"] if os.name == "nt" else ["-O3", "-g0", *shlex.split(os.environ.get("CFLAGS", ""))]
FLAGS.append("-DHG_COMPILE_FLAGS=" + dumps(" ".join(FLAGS)))
WAY_OUT = "headgate: no C compiler or Python headers: set HEADGATE_PURE=1 to install the pure-Python twin."
ATOMIC = ["atomic"] if sys.platform == "linux" and sys.maxsize < 2**32 else []


class BuildExtensions(build_ext):
    def build_extensions(self):
        self.parallel = self.parallel or os.cpu_count()
        try:
            super().build_extensions()
        except Exception as error:
            raise SystemExit(WAY_OUT) from error


def extensions():
    from Cython.Build import cythonize
    options = {"depends": sorted(map(str, Path("src").rglob("*.h"))), "libraries": ATOMIC,
               "extra_compile_args": FLAGS, "extra_link_args": STRIP.get(sys.platform)}
    found = [Extension(".".join(path.relative_to("src").with_suffix("").parts), [str(path)],
                       include_dirs=["src/headgate/_c", str(path.parent)], **options)
             for path in sorted(Path("src").rglob("*.pyx"))]
    return cythonize(found, build_dir="build/cython", include_path=["src"])


PURE = os.environ.get("HEADGATE_PURE") == "1"
setup(ext_modules=[] if PURE else extensions(), cmdclass={"build_ext": BuildExtensions})
