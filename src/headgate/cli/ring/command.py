"""Shows how evenly nodes share the load, and what a change of the nodes moves."""

import argparse
import sys
import warnings
from collections.abc import Iterable
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

from headgate import schemes
from headgate.cli import keylog
from headgate.cli.errors import CommandError
from headgate.cli.options import positive_int
from headgate.cli.outputs import add_output_options, check_outputs, deliver
from headgate.cli.ring.analysis import analyse, sample_keys
from headgate.cli.ring.nodes import read_nodes, split_weight
from headgate.cli.ring.plot import draw
from headgate.cli.ring.show import as_json, show
from headgate.placement import HashRing


def _server_id(node: str) -> int:
    """HAProxy places a server by its id, which is then the node's name."""
    try:
        return int(node)
    except ValueError:
        raise ValueError(f"node must be a server id under the scheme haproxy, got {node!r}") from None


_NODES = (
    "a file with a node a line, and after it perhaps its weight, or JSON or YAML: a list of nodes, or a "
    "mapping to weights; '-' is standard input"
)
_NODE_KEYS = {"haproxy": _server_id}
_FOREIGN_SCHEMES = set(schemes.__all__) - {"Scheme", "headgate"}


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("ring", help="show load and movement on a hash ring", description=__doc__)
    parser.set_defaults(run=run)
    parser.add_argument("nodes", type=Path, metavar="NODES", help=_NODES)
    parser.add_argument(
        "--replicas",
        type=positive_int,
        default=150,
        metavar="N",
        help="points of a node of weight 1 (default: %(default)s)",
    )
    parser.add_argument(
        "--scheme",
        default="headgate",
        help=f"place points as headgate does (default), or {', '.join(sorted(_FOREIGN_SCHEMES))}",
    )
    parser.add_argument("--keys", type=Path, metavar="LOG", help="a key log, instead of a sample of user ids")
    parser.add_argument(
        "--keys-format",
        choices=keylog.FORMATS,
        default="auto",
        help="what the key log is (default: %(default)s)",
    )
    parser.add_argument(
        "--sample",
        type=positive_int,
        default=200_000,
        metavar="N",
        help="size of the sample (default: %(default)s)",
    )
    parser.add_argument(
        "--add", action="append", default=[], metavar="NODE[=WEIGHT]", help="add a node; repeatable"
    )
    parser.add_argument(
        "--weight",
        action="append",
        default=[],
        metavar="NODE=WEIGHT",
        help="give a node another weight; repeatable",
    )
    parser.add_argument(
        "--remove", action="append", default=[], metavar="NODE", help="remove a node; repeatable"
    )
    add_output_options(parser)


def run(args: argparse.Namespace) -> int:
    """Build the rings, send the keys through, and show what came out."""
    check_outputs(args)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            ring = _ring(args)
            changed = _changed(ring, args)
        found = analyse(ring, changed, _keys(args))
    except (ValueError, KeyError) as error:
        raise CommandError(error.args[0]) from error
    for warning in warned:
        print(f"headgate ring: {warning.message}", file=sys.stderr)
    if not found.requests:
        raise CommandError(f"{args.keys} has no keys")
    deliver(args, partial(show, found, ring), partial(as_json, found, ring), partial(draw, found))
    return 0


def _ring(args: argparse.Namespace) -> HashRing[str]:
    node_key = _NODE_KEYS.get(args.scheme)
    return HashRing(read_nodes(args.nodes), args.replicas, scheme=args.scheme, node_key=node_key)


def _keys(args: argparse.Namespace) -> Iterable[str | int]:
    return keylog.read_keys(args.keys, args.keys_format) if args.keys else sample_keys(args.sample)


def _weighted(text: str) -> tuple[str, float]:
    if "=" not in text:
        raise CommandError(f"{text}: expected NODE=WEIGHT")
    return split_weight(text)


def _changed(ring: HashRing[str], args: argparse.Namespace) -> HashRing[str] | None:
    """The ring with the nodes added, removed and reweighted; None when nothing was asked for."""
    if not (args.add or args.remove or args.weight):
        return None
    changed = copy(ring)
    for node in args.remove:
        changed.remove_node(node)
    for node, weight in map(_weighted, args.weight):
        changed.remove_node(node)
        changed.add_node(node, weight)
    for node, weight in map(split_weight, args.add):
        changed.add_node(node, weight)
    if not len(changed):
        raise CommandError("the change leaves no node")
    return changed
