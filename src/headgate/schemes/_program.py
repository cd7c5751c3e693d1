"""The scheme of another program."""

from collections.abc import Callable, Sequence
from sys import _getframe
from warnings import warn

from headgate.schemes._hashes import KEY_HASHES
from headgate.schemes._scheme import Options, Scheme

Points = Sequence[Sequence[int]]


def _stacklevel() -> int:
    """The `stacklevel` of a warning for the caller of this package; compiled functions have no frames."""
    package, level = __name__.partition(".")[0], 1
    frame = _getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        level, frame = level + 1, frame.f_back
    return level


class Program(Scheme):
    """The scheme of another program.

    `key_hash` is a name of KEY_HASHES. `points_per_weight` is 0 if it depends on the other nodes. Hashes have
    64 bits if `wide`, else 32. A key belongs to the owner of the first point at or after its hash, after
    its hash if `exclusive`, or of the nearest point if `nearest`. `starved` returns the weight of a node
    without points, or None. `check` raises ValueError for a node that the program does not support.
    """

    __slots__ = ("_check", "_points", "_starved", "exclusive", "key_hash", "nearest", "points_per_weight",
                 "wide")

    def __init__(
        self,
        name: str,
        options: Options,
        points: Callable[[Sequence[bytes], Sequence[int]], Points],
        *,
        key_hash: str,
        points_per_weight: int = 0,
        starved: Callable[[Sequence[int]], int | None] | None = None,
        wide: bool = False,
        exclusive: bool = False,
        nearest: bool = False,
        check: Callable[[object, int | None, int], None] | None = None,
    ) -> None:
        super().__init__(name, options, KEY_HASHES[key_hash])
        self.key_hash = key_hash
        self.points_per_weight = points_per_weight
        self.wide = wide
        self.exclusive = exclusive
        self.nearest = nearest
        self._points = points
        self._starved = starved
        self._check = check

    def points(self, names: Sequence[bytes], weights: Sequence[int]) -> Points:
        """The points of each node, given all nodes or, if `points_per_weight` is set, any of them."""
        return self._points(names, weights)

    def check(self, node: object, number: int | None, weight: float) -> None:
        """Raises ValueError for a node that the program does not support; `number` is its name if an int."""
        if not isinstance(weight, int):
            raise ValueError(f"weight must be an int under the scheme {self.name}, got {weight!r}")
        if weight >= 2**32:
            raise ValueError(f"weight must be below 2**32 under the scheme {self.name}, got {weight!r}")
        if self._check is not None:
            self._check(node, number, weight)

    @property
    def may_starve(self) -> bool:
        """Whether the weight of a node may be too small for a point."""
        return self._starved is not None

    def warn(self, weights: Sequence[int]) -> None:
        """Warns if the weight of a node, compared with the others, is too small for a point."""
        starved = self._starved(weights) if self._starved is not None and weights else None
        if starved is not None:
            warn(f"weight {starved} of {sum(weights)} in total is too small for a point under the scheme "
                 f"{self.name}: the node has no keys", RuntimeWarning, stacklevel=_stacklevel())


def check_choice(name: str, value: object, choices: Sequence[str | None]) -> None:
    """Raises ValueError if `value` is not one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def check_flag(name: str, value: object) -> None:
    """Raises TypeError if `value` is not a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, got {value!r}")
