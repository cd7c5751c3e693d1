"""Wrong documents: what is said of each, where and with which hint, and nothing but ConfigError ever."""

import json
import random
from pathlib import Path

import pytest
from config_documents import FULL, damaged, damaged_text
from jsonschema import Draft202012Validator

from headgate.config import ConfigError, read, schema
from headgate.config._yaml import parse_yaml

TABLE = Path(__file__).with_name("wrong_documents.txt")
ENV = {"REDIS_URL": "redis://10.0.0.1", "SECRET": "hunter2", "X": "7"}
VALID = Draft202012Validator(schema())


def wrong_documents():
    for block in TABLE.read_text(encoding="utf-8").split("### ")[1:]:
        title, _, text = block.partition("\n")
        lines = text.splitlines(keepends=True)
        document = "".join([line for line in lines if not line.startswith("! ")]).rstrip("\n")
        expected = [line[2:].rstrip("\n") for line in lines if line.startswith("! ")]
        yield pytest.param(document, expected, id=title)


@pytest.mark.parametrize(("document", "expected"), list(wrong_documents()))
def test_what_is_said(document, expected):
    with pytest.raises(ConfigError) as caught:
        read(document, env=ENV)
    assert [str(problem) for problem in caught.value.errors] == expected
    assert "hunter2" not in str(caught.value)


def test_there_are_sixty_of_them():
    assert len(list(wrong_documents())) >= 60


def values(node):
    """A tree as the values of Python that it stands for."""
    if isinstance(node.value, dict):
        return {name: values(child) for name, child in node.value.items()}
    return [values(child) for child in node.value] if isinstance(node.value, list) else node.value


def is_accepted(source):
    """Whether a document is accepted; anything but ConfigError would be raised."""
    try:
        read(source, env=ENV)
    except ConfigError as error:
        assert error.errors
        assert all(problem.place.startswith("$") and problem.message for problem in error.errors)
        assert "hunter2" not in str(error)
        return False
    return True


def is_valid_json(tree):
    """Whether the JSON Schema has anything to say: it is about JSON, which has no infinite numbers."""
    try:
        json.dumps(tree, allow_nan=False)
    except ValueError:
        return False
    return True


def count_of(exhaustive, quick):
    return 10_000 if exhaustive else quick


def test_damaged_trees(exhaustive):
    tree, draw = values(parse_yaml(FULL, None, [])), random.Random(1)
    accepted = 0
    for _ in range(count_of(exhaustive, 400)):
        found = damaged(tree, draw)
        if is_accepted(found):
            accepted += 1
            assert not is_valid_json(found) or VALID.is_valid(found), found
    assert accepted > 20


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_damaged_texts(exhaustive, form):
    tree, draw = values(parse_yaml(FULL, None, [])), random.Random(2)
    text = FULL if form == "yaml" else json.dumps(tree, indent=1)
    accepted = sum([is_accepted(damaged_text(text, draw)) for _ in range(count_of(exhaustive, 300))])
    assert accepted > 3


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_junk(exhaustive, form):
    draw = random.Random(3)
    for _ in range(count_of(exhaustive, 400)):
        text = "".join(draw.choices('{}[]:,"\'#&*!|>%@`-? \t\n\\ax0\0\ufeff\u2028é', k=draw.randrange(60)))
        is_accepted(('{"' if form == "json" else "\n") + text)
