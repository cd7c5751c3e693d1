"""``cachedmethod``: a descriptor that stores a wrapper for each instance in the instance's ``__dict__``.

    class access      _Unbound          takes the instance as first argument
    instance access   _Method           in instance.__dict__[name], later found without the descriptor;
                                        methods reached only by super(), in instance.__dict__[_OTHERS]
"""

from __future__ import annotations

from functools import update_wrapper
from inspect import Parameter, getattr_static, signature

from headgate.cachetools._decorators import CacheInfo, Calls
from headgate.cachetools.keys import methodkey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_OTHERS = "__cachetools_cachedmethods"


class _Method:
    """The wrapper of the method of one instance."""

    def __init__(self, descriptor: _Descriptor, instance: Any) -> None:
        update_wrapper(self, descriptor.function)
        self._descriptor, self._instance = descriptor, instance
        self._calls = Calls(descriptor.lock is not None, descriptor.condition is not None)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        descriptor, instance, calls = self._descriptor, self._instance, self._calls
        key = args if descriptor.takes_args and not kwargs else descriptor.key(instance, *args, **kwargs)
        cache = descriptor.cache(instance)
        if calls.is_locked:
            return calls.call(cache, self.cache_lock, self.cache_condition, key, descriptor.function,
                                (instance, *args), kwargs)
        try:
            found = cache[key]
        except KeyError:
            return calls.load(cache, key, descriptor.function, (instance, *args), kwargs)
        calls.hits += 1
        return found

    @property
    def cache(self) -> Any:
        """The instance's cache."""
        return self._descriptor.cache(self._instance)

    @property
    def cache_lock(self) -> Any:
        """The instance's lock, or its condition, or None."""
        descriptor = self._descriptor
        lock = descriptor.condition if descriptor.lock is None else descriptor.lock
        return None if lock is None else lock(self._instance)

    @property
    def cache_condition(self) -> Any:
        """The instance's condition, or None."""
        condition = self._descriptor.condition
        return None if condition is None else condition(self._instance)

    def cache_key(self, /, *args: Any, **kwargs: Any) -> Any:
        """The key of a call."""
        return self._descriptor.key(self._instance, *args, **kwargs)

    def cache_clear(self) -> None:
        """Clear the cache and the counters of ``cache_info``"""
        self._calls.clear(self.cache, self.cache_lock)

    def __repr__(self) -> str:
        return f"<cachedmethod {self._descriptor.function!r} of {object.__repr__(self._instance)}>"

    def __reduce__(self) -> Any:
        return _method_of, (self._descriptor.owner, self._descriptor.name, self._instance)


class _MethodWithInfo(_Method):
    def cache_info(self) -> CacheInfo:
        """Hits, misses, maxsize and currsize"""
        return self._calls.info(self.cache, self.cache_lock)


def _method_of(owner: type, name: str, instance: Any) -> _Method:
    descriptor: _Descriptor = vars(owner)[name]
    return descriptor.new_method(instance)


class _Unbound:
    """The wrapper of the function, accessed on the class."""

    def __init__(self, descriptor: _Descriptor) -> None:
        update_wrapper(self, descriptor.function)
        self._descriptor = descriptor

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        if not args:
            name = self._descriptor.first_parameter()
            if name not in kwargs:
                raise TypeError(f"{self.__qualname__}() needs an instance as its first argument")
            args = (kwargs.pop(name),)
        return self._descriptor.bind(args[0])(*args[1:], **kwargs)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else self._descriptor.bind(instance)

    def __repr__(self) -> str:
        return f"<cachedmethod {self._descriptor.function!r}>"

    def __copy__(self) -> _Unbound:
        return self

    def __deepcopy__(self, memo: object) -> _Unbound:
        return self

    def __reduce__(self) -> str:
        return self.__qualname__

    if TYPE_CHECKING:
        __qualname__: str


class _Descriptor:
    """The attribute of the class."""

    def __init__(self, function: Any, cache: Any, key: Any, lock: Any, condition: Any, info: bool) -> None:
        self.function, self.cache, self.key, self.lock, self.condition = function, cache, key, lock, condition
        self.new_method = self._new_method_with_info if info else self._new_method
        self.takes_args = key is methodkey
        self.owner: type | None = None
        self.name: str | None = None
        self.unbound = _Unbound(self)

    def _new_method(self, instance: Any) -> _Method:
        return _Method(self, instance)

    def _new_method_with_info(self, instance: Any) -> _Method:
        return _MethodWithInfo(self, instance)

    def __set_name__(self, owner: type, name: str) -> None:
        if self.name not in (None, name):
            raise TypeError(f"cannot give one cachedmethod two names, {self.name!r} and {name!r}")
        if self.name is None:
            self.owner, self.name = owner, name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self.unbound if instance is None else self.bind(instance)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        if args and isinstance(args[0], type):
            raise TypeError("cachedmethod cannot decorate a class method")
        raise TypeError("cachedmethod must be the outermost decorator")

    def first_parameter(self) -> str | None:
        """The name of the first parameter, if the instance may be passed by keyword."""
        for parameter in signature(self.function).parameters.values():
            return parameter.name if parameter.kind is Parameter.POSITIONAL_OR_KEYWORD else None
        return None

    def bind(self, instance: Any) -> Any:
        """The wrapper of the method of `instance`."""
        if isinstance(instance, type):
            raise TypeError("cachedmethod cannot decorate a class method")
        if self.name is None or self.owner is None:
            raise TypeError("cachedmethod has no name: it was not defined in the body of a class")
        if not callable(self.key):
            raise TypeError(f"key must be callable, got {self.key!r}")
        try:
            attributes = instance.__dict__
        except AttributeError:
            raise TypeError(f"No '__dict__' attribute on {type(instance).__name__!r} instance to keep "
                            f"{self.name!r} in") from None
        if getattr_static(type(instance), self.name, None) is self:
            return self._method_in(attributes, self.name, instance)
        others = self._put_default(attributes, _OTHERS, instance, {})
        return self._method_in(others, (self.owner, self.name), instance)

    def _method_in(self, methods: Any, key: Any, instance: Any) -> Any:
        found = methods.get(key)
        if found is not None:
            return found
        return self._put_default(methods, key, instance, self.new_method(instance))

    def _put_default(self, attributes: Any, key: Any, instance: Any, value: Any) -> Any:
        try:
            return attributes.setdefault(key, value)
        except TypeError:
            raise TypeError(f"The '__dict__' attribute on {type(instance).__name__!r} instance does not "
                            f"support item assignment for {self.name!r}") from None


def cachedmethod(cache: Callable[[Any], Any], key: Callable[..., Any] = methodkey,
                 lock: Callable[[Any], Any] | None = None, condition: Callable[[Any], Any] | None = None,
                 info: bool = False) -> Callable[[Any], Any]:
    """`cached` for methods: `cache`, `lock` and `condition` are called with the instance and return its own.

    ``key(self, *args, **kwargs)`` makes the key of a call, by default without ``self``. Instances need a
    ``__dict__``.

    Raises TypeError if `cache` is not callable.

    >>> from headgate.cachetools import LRUCache, cachedmethod
    >>> class Squares:
    ...     def __init__(self):
    ...         self.cache = LRUCache(maxsize=10)
    ...     @cachedmethod(lambda self: self.cache, info=True)
    ...     def of(self, number):
    ...         return number * number
    >>> squares = Squares()
    >>> squares.of(3), squares.of(3), squares.of.cache_info()
    (9, 9, CacheInfo(hits=1, misses=1, maxsize=10, currsize=1))
    """
    if not callable(cache):
        raise TypeError(f"cache must be callable, got {cache!r}")

    def decorating_function(function: Any) -> _Descriptor:
        return _Descriptor(function, cache, key, lock, condition, info)

    return decorating_function
