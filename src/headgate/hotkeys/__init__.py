"""Hot keys: the heavy hitters of a stream in fixed memory."""

from headgate._base.backend import backend
from headgate.hotkeys._settings import HotKey

TYPE_CHECKING = False
if TYPE_CHECKING or backend == "compiled":
    from headgate.hotkeys._compiled import HotKeys
else:
    from headgate.hotkeys._pure import HotKeys

__all__ = ["HotKey", "HotKeys"]
