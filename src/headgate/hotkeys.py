"""Hot keys: the heavy hitters of a stream in fixed memory."""

from headgate._backend import backend
from headgate._hot import HotKey

TYPE_CHECKING = False
if TYPE_CHECKING or backend == "compiled":
    from headgate._compiled.hotkeys import HotKeys
else:
    from headgate._pure.hotkeys import HotKeys

__all__ = ["HotKey", "HotKeys"]
