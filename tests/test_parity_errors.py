"""The twins refuse the same, in the same words: each argument of each class is given values of wrong kinds.

The messages for missing, superfluous and unknown arguments are those of CPython and of Cython, which differ:
of these only the type is compared.
"""

import copy
import inspect
import re
from contextlib import suppress

import pytest
from test_parity import (
    CLASSES,
    NO_VALUE,
    PRIVATE,
    arguments,
    attributes,
    constructor,
    of_both_twins,
    special_methods,
)


@pytest.fixture(params=[case for case in CLASSES if case[0] not in PRIVATE], ids="-".join)
def pair(request, both_twins):
    return of_both_twins(both_twins, *request.param)


class Odd:
    """Nothing that anything takes: it can neither be hashed nor called nor iterated."""

    __hash__ = None

    def __repr__(self):
        return "Odd()"


WRONG = [None, True, -1, 0, 1.5, float("nan"), 2**70, "x", b"x", [], ("a",), {"a": 1}, Odd()]
WAITS = {"acquire", "aacquire", "dump", "load"}
MADE_BY_TYPE = {"__init__", "__new__", "__init_subclass__", "__class_getitem__"}
BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
PROTOCOLS = {
    "reversed": reversed, "iter": iter, "next": next, "len": len, "bool": bool, "hash": hash, "int": int,
    "float": float, "abs": abs, "index": lambda thing: [][thing], "call": lambda thing: thing(),
    "add": lambda thing: thing + 1, "or": lambda thing: thing | {}, "less": lambda thing: thing < thing,
    "equal": lambda thing: thing == 1, "copy": copy.copy, "enter": lambda thing: thing.__enter__(),
    "anext": anext, "missing": lambda thing: thing.no_such_attribute,
}


def outcome(function, *args, **kwargs):
    """What a call comes to, as far as the twins must agree in it: its error, or that there is none."""
    try:
        result = function(*args, **kwargs)
    except Exception as error:
        message = re.sub(r"headgate\.[\w.]+\._compiled\.", "", str(error))  # a C type's name is dotted
        message = re.sub(r"cannot use '[\w.]+' as a dict key \((.*)\)", r"\1", message)  # since 3.14
        return type(error), message
    if inspect.iscoroutine(result) or hasattr(result, "cr_await"):
        result.close()
    return None


def made(cls, parameters, **others):
    known = arguments(parameters, cls)
    if "clock" in known:
        known["clock"] = lambda: 10**9
    return cls(**known | others)


def methods(cls, instance):
    """The methods that can be tried, and their parameters."""
    for name in sorted({*attributes(cls), *special_methods(cls)} - WAITS - MADE_BY_TYPE):
        method = getattr(instance, name)
        if callable(method):
            with suppress(ValueError, TypeError):
                yield name, list(inspect.signature(method).parameters.values())


def calls(parameters):
    """Positional and keyword arguments in which one of `parameters` is of a wrong kind."""
    required = [p for p in parameters if p.default is NO_VALUE and p.kind in BY_POSITION]
    for at in range(len(required)):
        for wrong in WRONG:
            yield tuple(wrong if other == at else "x" for other in range(len(required))), {}
    for p in parameters:
        if p.default is not NO_VALUE and p.kind is not p.POSITIONAL_ONLY:
            for wrong in WRONG:
                yield ("x",) * len(required), {p.name: wrong}


def test_constructors_refuse_the_same(pair):
    pure = pair[1]
    parameters = constructor(pure)
    for name in (p.name for p in parameters if p.name != "path"):
        for wrong in WRONG:
            found, expected = (outcome(made, cls, parameters, **{name: wrong}) for cls in pair)
            assert found == expected, (name, wrong)


def test_methods_refuse_the_same(pair):
    pure = pair[1]
    parameters = constructor(pure)
    for name, taken in methods(pure, made(pure, parameters)):
        for args, kwargs in calls(taken):
            found, expected = (outcome(getattr(made(cls, parameters), name), *args, **kwargs) for cls in pair)
            assert found == expected, (name, args, kwargs)


def test_methods_refuse_what_they_do_not_take(pair):
    pure = pair[1]
    parameters = constructor(pure)
    instances = [made(cls, parameters) for cls in pair]
    for name, taken in methods(pure, instances[1]):
        most = sum(p.kind in BY_POSITION for p in taken)
        required = [p.name for p in taken if p.default is NO_VALUE and p.kind in BY_POSITION]
        wrong = [(("x",) * (len(required) - 1), {})] if required else []
        if not any(p.kind is p.VAR_POSITIONAL for p in taken):
            wrong.append((("x",) * (most + 1), {}))
        if not any(p.kind is p.VAR_KEYWORD for p in taken):
            wrong.append((("x",) * len(required), {"no_such_argument": 1}))
        for args, kwargs in wrong:
            for instance in instances:
                assert outcome(getattr(instance, name), *args, **kwargs)[0] is TypeError, (name, args, kwargs)


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_protocols_are_there_or_not(pair, protocol):
    parameters = constructor(pair[1])
    found, expected = (outcome(protocol, made(cls, parameters)) for cls in pair)
    assert found == expected
