"""What concurrency limits are kept in: Words, changed by single atomic steps."""

from headgate._base.backend import backend

TYPE_CHECKING = False
if TYPE_CHECKING or backend == "compiled":
    from headgate._base.words._compiled import Words
else:
    from headgate._base.words._pure import Words

__all__ = ["Words"]
