"""Shows how evenly nodes share the load, and how many keys a change of nodes moves."""

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
from headgate.cli.options import check_excludes, check_needs, positive_int
from headgate.cli.outputs import add_output_options, check_outputs, deliver
from headgate.cli.ring.analysis import analyse, sample_keys
from headgate.cli.ring.nodes import read_nodes, split_weight
from headgate.cli.ring.placements import KINDS, OWN_SCHEME, RING, Placement, Spec
from headgate.cli.ring.plot import draw
from headgate.cli.ring.show import as_json, show

_NODES = (
    "file with a node per line, optionally followed by its weight, or JSON or YAML: a list of nodes, or a "
    "mapping of nodes to weights; '-' is standard input"
)
_SAMPLE = 200_000
_FOREIGN_SCHEMES = set(schemes.__all__) - {"Scheme", "headgate"}


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "ring", help="show load and movement on a hash ring, rendezvous or Maglev", description=__doc__
    )
    parser.set_defaults(run=run)
    parser.add_argument("nodes", type=Path, metavar="NODES", help=_NODES)
    parser.add_argument(
        "--replicas",
        type=positive_int,
        metavar="N",
        help="virtual nodes of a node of weight 1 on a ring (default: 150)",
    )
    parser.add_argument(
        "--scheme",
        help=f"scheme: headgate (default); on a ring also {', '.join(sorted(_FOREIGN_SCHEMES))}, "
        "with rendezvous also pymemcache",
    )
    parser.add_argument("--placement", choices=KINDS, default=RING,
                        help="placement algorithm (default: %(default)s)")
    parser.add_argument(
        "--size", type=positive_int, metavar="PRIME", help="slots of Maglev's table (default: 65537)"
    )
    migration = parser.add_argument_group("migration, with the same nodes or changed ones")
    migration.add_argument("--to-placement", choices=KINDS, help="move to another placement")
    migration.add_argument("--to-scheme", metavar="SCHEME", help="move to another scheme")
    migration.add_argument("--to-replicas", type=positive_int, metavar="N", help="move to N virtual nodes")
    migration.add_argument("--to-size", type=positive_int, metavar="PRIME", help="move to PRIME slots")
    parser.add_argument("--keys", type=Path, metavar="LOG", help="key log, instead of a sample of user ids")
    parser.add_argument(
        "--keys-format",
        choices=keylog.FORMATS,
        help="format of the key log (default: auto)",
    )
    parser.add_argument(
        "--sample",
        type=positive_int,
        metavar="N",
        help=f"size of the sample (default: {_SAMPLE})",
    )
    parser.add_argument(
        "--add", action="append", default=[], metavar="NODE[=WEIGHT]", help="add a node; repeatable"
    )
    parser.add_argument(
        "--weight",
        action="append",
        default=[],
        metavar="NODE=WEIGHT",
        help="change the weight of a node; repeatable",
    )
    parser.add_argument(
        "--remove", action="append", default=[], metavar="NODE", help="remove a node; repeatable"
    )
    add_output_options(parser)


def run(args: argparse.Namespace) -> int:
    """Build the placements, look up the keys, and print the report."""
    check_outputs(args)
    check_needs(args, "keys", "keys-format")
    check_excludes(args, "keys", "sample")
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            ring = _spec(args).build(read_nodes(args.nodes))
            changed = _changed(ring, args)
        found = analyse(ring, changed, _keys(args))
    except (ValueError, KeyError) as error:
        raise CommandError(error.args[0]) from error
    for warning in warned:
        print(f"headgate ring: {warning.message}", file=sys.stderr)
    if not found.requests:
        raise CommandError(f"{args.keys} has no keys")
    deliver(args, partial(show, found), partial(as_json, found), partial(draw, found))
    return 0


def _keys(args: argparse.Namespace) -> Iterable[str | int]:
    if args.keys:
        return keylog.read_keys(args.keys, args.keys_format or "auto")
    return sample_keys(args.sample or _SAMPLE)


def _weighted(text: str) -> tuple[str, float]:
    if "=" not in text:
        raise CommandError(f"{text}: expected NODE=WEIGHT")
    return split_weight(text)


def _spec(args: argparse.Namespace) -> Spec:
    return Spec(args.placement, args.scheme, args.replicas, args.size)


def _changed_spec(args: argparse.Namespace) -> Spec:
    """The target of the migration. Options that are not given are kept, unless the kind changes."""
    old = _spec(args)
    kept = old if args.to_placement in (None, old.kind) else Spec(args.to_placement)
    if args.to_scheme not in (None, OWN_SCHEME):
        kept = kept._replace(replicas=None)
    given = {"scheme": args.to_scheme, "replicas": args.to_replicas, "size": args.to_size}
    return kept._replace(**{name: value for name, value in given.items() if value is not None})


def _changed(ring: Placement, args: argparse.Namespace) -> Placement | None:
    """The placement after the change, or None if no change is given."""
    spec = _changed_spec(args)
    if spec == _spec(args) and not (args.add or args.remove or args.weight):
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
    return changed if spec == _spec(args) else spec.build(changed.weights)
