"""headgate's own scheme as a sorted list of tuples, with which both twins must agree."""

from bisect import bisect_left

from xxhash import xxh64_intdigest

MASK = 2**64 - 1


def splitmix64(x):
    z = (x + 0x9E3779B97F4A7C15) & MASK
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return z ^ z >> 31


def name_of(key):
    if isinstance(key, str):
        return key.encode()
    return key if isinstance(key, bytes) else key.to_bytes(8, "little", signed=True)


class ModelRing:
    def __init__(self, replicas):
        self.replicas = replicas
        self.members = {}

    def add_node(self, node, weight=1):
        if name_of(node) in self.members:
            raise ValueError(f"node must not be a member already, got {node!r}")
        self.members[name_of(node)] = node, weight

    def remove_node(self, node):
        if name_of(node) not in self.members:
            raise KeyError(f"node must be a member, got {node!r}")
        del self.members[name_of(node)]

    def set_weight(self, node, weight):
        if name_of(node) not in self.members:
            raise KeyError(f"node must be a member, got {node!r}")
        self.members[name_of(node)] = self.members[name_of(node)][0], weight

    def replace_nodes(self, nodes):
        members = self.members
        self.members = {}
        try:
            for node, weight in nodes.items() if isinstance(nodes, dict) else [(node, 1) for node in nodes]:
                self.add_node(node, weight)
        except ValueError:
            self.members = members
            raise

    def points(self):
        return sorted(
            (splitmix64(xxh64_intdigest(name) + i), name)
            for name, (_, weight) in self.members.items() if weight
            for i in range(max(1, round(weight * self.replicas)))
        )

    def locate(self, hash):
        points = self.points()
        at = bisect_left(points, (hash, b""))
        return [self.members[name][0] for _, name in points[at:] + points[:at]]

    def preference(self, key):
        return list(dict.fromkeys(self.locate(xxh64_intdigest(name_of(key)))))

    def get_node(self, key):
        return next(iter(self.preference(key)), None)

    def ownership(self):
        points = self.points()
        shares = dict.fromkeys((self.members[name][0] for name in sorted(self.members)), 0)
        before = -1
        for at, name in [*points, (MASK, points[0][1])] if points else []:
            shares[self.members[name][0]] += at - before
            before = at
        return {node: share / 2**64 for node, share in shares.items()}
