"""What concurrency limits are kept in: Words, changed by single atomic steps."""

from headgate._backend import backend

TYPE_CHECKING = False
if TYPE_CHECKING or backend == "compiled":
    from headgate._compiled.ledger import Words
else:
    from headgate._pure.ledger import Words

__all__ = ["Words"]
