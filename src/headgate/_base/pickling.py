"""How every structure of both twins pickles, so that either twin reads what the other wrote.

A pickle names the public class, such as ``cache.LRUCache``, or the user's subclass, never a twin's module.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


_IDEAS = ("headgate.cache.", "headgate.hotkeys.", "headgate.placement.")


def name_class(obj: object) -> type | str:
    """The subclass of a user as it is, a twin's class by its public name ``idea.Class``."""
    cls = type(obj)
    if cls.__module__.startswith(_IDEAS):
        return f"{cls.__module__.split('.')[1]}.{cls.__qualname__}"
    return cls


def restore(target: type | str, state: tuple[Any, ...]) -> Any:
    """What a pickle calls: the class named by `target`, filled from a versioned `state`."""
    cls: Any = target
    if isinstance(target, str):
        from importlib import import_module

        idea, name = target.split(".")
        cls = getattr(import_module(f"headgate.{idea}"), name)
    return cls._from_state(state)


def attributes(obj: object) -> dict[str, Any]:
    """The instance dictionary of a user's subclass, an empty one for the twins' own classes."""
    return getattr(obj, "__dict__", {})


def carried(obj: object) -> Any:
    """What a user's subclass added to an instance, as pickle passes it on: None, its dictionary, or both this
    and a dictionary of its slots."""
    state: Any = object.__getstate__(obj)
    if not isinstance(state, tuple):
        return state
    own, slots = state
    ours = {name for cls in type(obj).__mro__ if cls.__module__.startswith(_IDEAS)
            for name in cls.__dict__.get("__slots__", ())}
    added = {name: value for name, value in slots.items() if name not in ours}
    return (own, added) if added else own


def carry(obj: object, state: Any) -> None:
    """Gives a copy what `carried` returned."""
    own, slots = state if isinstance(state, tuple) else (state, None)
    attributes(obj).update(own or {})
    for name, value in (slots or {}).items():
        setattr(obj, name, value)


def initialized(made: object) -> TypeError:
    """What ``__init__`` raises when it is called again, where others may use what it would replace."""
    return TypeError(f"a {type(made).__name__} is initialized once, got another call of __init__")


def checked_state(state: Any) -> Any:
    """What ``__reduce__`` wrote for ``__setstate__``: attributes, and what else belongs to the object."""
    if type(state) is not tuple or len(state) != 2:
        raise TypeError(f"state must be a tuple of two, got {state!r}")
    return state
