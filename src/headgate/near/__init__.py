"""A cache in front of a remote store that announces what changes; the protocol, without any I/O."""

from headgate._base.backend import backend
from headgate.near._source import NearSource
from headgate.near._stats import NearStats

TYPE_CHECKING = False
if TYPE_CHECKING or backend == "compiled":
    from headgate.near._compiled import NearEntry, NearEpoch, NearTable
else:
    from headgate.near._pure import NearEntry, NearEpoch, NearTable

__all__ = ["NearEntry", "NearEpoch", "NearSource", "NearStats", "NearTable"]
