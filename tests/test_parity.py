"""The twins agree in every name, signature, docstring and attribute, and so do the stubs."""

import ast
import inspect
from importlib import import_module
from pathlib import Path

import pytest
from twins import homes

import headgate
from headgate.cli.twins import IDEAS, twin_module
from headgate.limit._algorithms import Bounds

PRIVATE = {"fields", "joint", "near", "permits", "words"}
NO_VALUE = inspect.Parameter.empty
REQUIRED = {"maxsize": 8, "ttl": 60, "capacity": 5, "refill_rate": 2, "k": 3, "servers": ("a", "b"),
            "rate": "10/s", "memory": bytearray(16), "limiters": {}, "networks": {}, "overrides": {},
            "tallies": {}, "shadow": (), "target": 99, "tokens": 1, "parts": [],
            "ledger": None, "shares": {}, "bounds": Bounds(1, 9), "algorithm": "fixed", "max_latency": None,
            "clock": None, "prefixes": ("user:",), "run_id": "1", "key": "user:1"}


def public(module):
    """What `module` itself defines for others, by name."""
    known = homes(module)
    return {name: value for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", None) in known}


def classes(idea):
    return [name for name, value in public(twin_module("pure", idea)).items()
            if isinstance(value, type)]


CLASSES = [(idea, name) for idea in IDEAS for name in classes(idea)]


def attributes(cls):
    return {name: inspect.getattr_static(cls, name) for name in dir(cls) if not name.startswith("_")}


def special_methods(cls):
    """The special methods that `cls` and its bases in this package define, finalizers aside."""
    own = [base for base in cls.__mro__ if base.__module__.startswith("headgate")]
    found = {name for base in own for name, value in vars(base).items()
             if name.startswith("__") and name.endswith("__") and kind(value) in ("method", "class")}
    return found - {"__del__"}


def kind(attribute):
    """The kind of an attribute as its user sees it, however a twin implements it."""
    for name, types in {"class": classmethod, "static": staticmethod, "nested": type}.items():
        if isinstance(attribute, types):
            return name
    if inspect.isdatadescriptor(attribute):
        return "data"
    return "method" if callable(attribute) else repr(attribute)


def signature(function):
    """What a caller passes, as text without annotations: the stubs have those."""
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
    return [f"{p.replace(annotation=NO_VALUE)} ({p.kind.description})" for p in parameters]


def constructor(cls):
    """The parameters of a pure twin's constructor."""
    function = cls.__init__ if inspect.isfunction(cls.__init__) else cls.__new__
    return list(inspect.signature(function).parameters.values())[1:]


def arguments(parameters, cls):
    """A value for each of `parameters`: its default, or one that suits its name and the twin of `cls`."""
    twin = "compiled" if cls.__module__.endswith("_compiled") else "pure"
    required = REQUIRED | {"placement": twin_module(twin, "placement").HashRing()}
    return {p.name: required[p.name] if p.default is NO_VALUE else p.default for p in parameters}


@pytest.fixture(params=IDEAS)
def modules(request, both_twins):
    return [getattr(twin, request.param) for twin in both_twins]


def of_both_twins(twins, idea, name):
    """The class of the compiled twin, and that of the pure one."""
    return [getattr(getattr(twin, idea), name) for twin in twins]


@pytest.fixture(params=CLASSES, ids="-".join)
def pair(request, both_twins):
    return of_both_twins(both_twins, *request.param)


def test_modules_define_the_same_names(modules):
    compiled, pure = map(public, modules)
    assert compiled.keys() == pure.keys()


def test_packages_export_every_name_of_their_modules(modules):
    package = import_module(modules[1].__package__)
    assert public(modules[1]).keys() <= set(package.__all__)
    assert sorted(package.__all__, key=lambda name: (not name.isupper(), name)) == package.__all__
    if package.__name__.rpartition(".")[2] not in PRIVATE:
        assert set(package.__all__) <= set(headgate.__all__), "all that is public is at the top"


def test_functions_and_classes_share_docstrings_and_signatures(modules):
    compiled, pure = map(public, modules)
    for name, value in pure.items():
        assert inspect.getdoc(compiled[name]) == inspect.getdoc(value), name
        if not isinstance(value, type):
            assert signature(compiled[name]) == signature(value), name


def test_everything_public_is_documented(modules):
    documented = dict(public(modules[1]))
    for name, value in public(modules[1]).items():
        if isinstance(value, type):
            documented |= {f"{name}.{member}": item for member, item in attributes(value).items()}
    assert [name for name, value in documented.items() if not inspect.getdoc(value)] == []


def test_classes_have_the_same_attributes(pair):
    compiled, pure = ({name: kind(value) for name, value in attributes(cls).items()} for cls in pair)
    assert compiled == pure


def test_classes_have_the_same_special_methods(pair):
    compiled, pure = pair
    missing = {name for name in special_methods(pure) if not hasattr(compiled, name)}
    assert missing == set()
    assert (compiled.__hash__ is None) == (pure.__hash__ is None)


def test_methods_share_docstrings_and_signatures(pair):
    compiled, pure = pair
    for name, value in attributes(pure).items():
        assert inspect.getdoc(inspect.getattr_static(compiled, name)) == inspect.getdoc(value), name
        if callable(getattr(pure, name)):
            assert signature(getattr(compiled, name)) == signature(getattr(pure, name)), name


def test_a_compiled_constructor_shows_its_parameters(pair):
    shown = list(inspect.signature(pair[0]).parameters.values())
    assert list(map(str, shown)) == list(map(str, constructor(pair[1])))


def test_constructors_take_every_argument_by_keyword(pair):
    parameters = constructor(pair[1])
    for cls in pair:
        cls(**arguments(parameters, cls))


def test_constructors_take_the_same_arguments_by_position(pair):
    parameters = constructor(pair[1])
    by_position = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    by_keyword = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is NO_VALUE]
    for cls in pair:
        values, required = arguments(by_position, cls).values(), arguments(by_keyword, cls)
        cls(*values, **required)
        with pytest.raises(TypeError):
            cls(*values, None, **required)


def test_constructors_refuse_what_they_do_not_know(pair):
    parameters = constructor(pair[1])
    for cls in pair:
        known = arguments(parameters, cls)
        with pytest.raises(TypeError):
            cls(**known, no_such_argument=1)
        for required in (p.name for p in parameters if p.default is NO_VALUE):
            rest = {name: value for name, value in known.items() if name != required}
            with pytest.raises(TypeError):
                cls(**rest)


@pytest.mark.parametrize("idea", IDEAS)
def test_stubs_name_what_the_modules_define(idea):
    module = twin_module("pure", idea)
    pure = public(module)
    body = ast.parse(Path(module.__file__).with_name("_compiled.pyi").read_text()).body
    stub = {node.name: node for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    assert {name for name in stub if not name.startswith("_")} == pure.keys()
    for name, cls in pure.items():
        if isinstance(cls, type):
            listed = {node.name for node in stub[name].body if isinstance(node, ast.FunctionDef)}
            assert {member for member in listed if not hasattr(cls, member)} == set()
