"""Hash functions: XXH64 and splitmix64."""

from headgate._backend import backend

TYPE_CHECKING = False
if TYPE_CHECKING or backend == "compiled":
    from headgate._compiled.hashing import splitmix64, xxh64
else:
    from headgate._pure.hashing import splitmix64, xxh64

__all__ = ["splitmix64", "xxh64"]
