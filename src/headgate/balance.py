"""Balancers: which server takes a request."""

from headgate._backend import backend
from headgate._budget import RetryBudget
from headgate._fleet import ServerRecord

TYPE_CHECKING = False
if TYPE_CHECKING or backend == "compiled":
    from headgate._compiled.balance import (
        AddressHash,
        KeyHash,
        LeastLoaded,
        PeakEWMA,
        PowerOfTwo,
        RandomChoice,
        RoundRobin,
        WeightedRoundRobin,
    )
else:
    from headgate._pure.balance import (
        AddressHash,
        KeyHash,
        LeastLoaded,
        PeakEWMA,
        PowerOfTwo,
        RandomChoice,
        RoundRobin,
        WeightedRoundRobin,
    )

__all__ = [
    "AddressHash",
    "KeyHash",
    "LeastLoaded",
    "PeakEWMA",
    "PowerOfTwo",
    "RandomChoice",
    "RetryBudget",
    "RoundRobin",
    "ServerRecord",
    "WeightedRoundRobin",
]
