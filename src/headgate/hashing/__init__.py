"""Hash functions: XXH64 and splitmix64."""

from headgate._base.backend import backend

TYPE_CHECKING = False
if TYPE_CHECKING or backend == "compiled":
    from headgate.hashing._compiled import splitmix64, xxh64
else:
    from headgate.hashing._pure import splitmix64, xxh64

__all__ = ["splitmix64", "xxh64"]
