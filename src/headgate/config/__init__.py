"""One document, JSON or YAML, that names and configures the primitives of a service."""

from headgate.config._building import check
from headgate.config._changes import Change, diff
from headgate.config._document import Document
from headgate.config._errors import ConfigError, Mark, Problem, Unknown
from headgate.config._gate import Changes, Gate, load
from headgate.config._loading import read
from headgate.config._schema import schema
from headgate.config._watching import Watcher

__all__ = [
    "Change", "Changes", "ConfigError", "Document", "Gate", "Mark", "Problem", "Unknown", "Watcher", "check",
    "diff", "load", "read", "schema",
]
