"""What a scheme is."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from headgate._base.pickling import restore
from headgate.schemes._hashes import Hash

Options = Mapping[str, str | int | bool | Hash | None]


class Scheme:
    """How points are placed and keys are hashed; returned by the functions of `headgate.schemes`.

    `name` is that of the function and `options` are its arguments. Schemes are equal if both are.
    """

    __slots__ = ("hash", "name", "options")

    def __init__(self, name: str, options: Options, hash: Hash) -> None:
        self.name = name
        self.options = options
        self.hash = hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Scheme):
            return NotImplemented
        return (self.name, self.options) == (other.name, other.options)

    def __hash__(self) -> int:
        return hash((self.name, *self.options.items()))

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"{self.name}({options})"

    def __reduce__(self) -> tuple[Any, ...]:
        return restore, ("schemes.Scheme", (self.name, self.options))

    @classmethod
    def _from_state(cls, state: tuple[str, Options]) -> Any:
        name, options = state
        return getattr(import_module("headgate.schemes"), name)(**options)
