"""Balancers: which server takes a request."""

from headgate._base.backend import backend
from headgate.balance._budget import RetryBudget
from headgate.balance._settings import ServerRecord

TYPE_CHECKING = False
if TYPE_CHECKING or backend == "compiled":
    from headgate.balance._compiled import (
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
    from headgate.balance._pure import (
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
