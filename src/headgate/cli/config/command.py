"""Checks documents of configuration, and shows what changes from one to another."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from headgate._base.texts import escaped
from headgate.cli.config.show import (
    changes_as_json,
    document_as_json,
    problems_as_json,
    show_changes,
    show_document,
    unknown_as_json,
)
from headgate.cli.errors import CommandError
from headgate.cli.tables import printer
from headgate.config import ConfigError, Document, Problem, Unknown, check, diff, read, schema


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("config", help="check a document of configuration, or compare two",
                                 description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    checking = _action(actions, "check", "check a document; the exit status is 1 if it is not valid")
    checking.add_argument("file", type=Path, metavar="FILE", help="YAML, or JSON")
    checking.add_argument("overlays", nargs="*", type=Path, default=[], metavar="OVERLAY",
                          help="documents to merge into it")
    checking.add_argument("--partial", action="store_true",
                          help="accept variables that are not set and files of secrets that cannot be read")
    checking.set_defaults(run=_check)
    comparing = _action(
        actions, "diff", "show what changes; the exit status is 1 if a running process would refuse it"
    )
    comparing.add_argument("old", type=Path, metavar="OLD", help="the document that is in use")
    comparing.add_argument("new", type=Path, metavar="NEW", help="the document that is to replace it")
    comparing.add_argument("--overlay", action="append", default=[], type=Path, metavar="OVERLAY",
                           help="a document to merge into both; may be repeated")
    comparing.set_defaults(run=_diff)
    for action in (checking, comparing):
        action.add_argument("--json", action="store_true", help="print JSON")
    printing = _action(actions, "schema", "print the JSON Schema of documents, for editors")
    printing.set_defaults(run=_schema)


def _action(actions: Any, name: str, about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(
        name, help=about, description=f"{about[0].upper()}{about[1:]}."
    )
    return parser


def _check(args: argparse.Namespace) -> int:
    return _with(args, (args.file, *args.overlays), partial(_show_document, args))


def _show_document(args: argparse.Namespace, document: Document) -> int:
    if args.json:
        print(json.dumps(document_as_json(document), indent=1))
    else:
        show_document(args.file, document, printer())
    return 0


def _show_unknown(args: argparse.Namespace, unknown: Sequence[Unknown]) -> int:
    """What could not be checked of a document that is valid otherwise."""
    if args.json:
        print(json.dumps(unknown_as_json(unknown), indent=1))
        return 0
    _print(unknown)
    values = "1 value is" if len(unknown) == 1 else f"{len(unknown):,} values are"
    printer().text(f"{args.file} is valid as far as it is known here; {values} not.")
    return 0


def _print(problems: Sequence[Problem]) -> None:
    for problem in problems:
        print(escaped(str(problem)), file=sys.stderr)


def _diff(args: argparse.Namespace) -> int:
    def compare(old: Document) -> int:
        return _with(args, (args.new, *args.overlay), partial(_show_changes, args, old))

    return _with(args, (args.old, *args.overlay), compare)


def _show_changes(args: argparse.Namespace, old: Document, new: Document) -> int:
    changes = diff(old, new)
    if args.json:
        print(json.dumps(changes_as_json(changes), indent=1))
    else:
        show_changes(args.old, args.new, changes, printer())
    return 0 if all(change.live for change in changes) else 1


def _with(args: argparse.Namespace, files: Sequence[Path], use: Callable[[Document], int]) -> int:
    """Use the document of these files, or report all that is wrong with it."""
    try:
        document = read(*files)
        problems = check(document)
    except ConfigError as error:
        problems = error.errors
    except ImportError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}") from error
    if not problems:
        return use(document)
    unknown = [problem for problem in problems if isinstance(problem, Unknown)]
    if getattr(args, "partial", False):
        if len(unknown) == len(problems):
            return _show_unknown(args, unknown)
        problems = [problem for problem in problems if problem not in unknown]
    if args.json:
        print(json.dumps(problems_as_json(problems), indent=1))
        return 1
    _print(problems)
    count = "1 error" if len(problems) == 1 else f"{len(problems):,} errors"
    raise CommandError(f"{files[0]} is not valid: {count}")


def _schema(args: argparse.Namespace) -> int:
    print(json.dumps(schema(), indent=1))
    return 0
