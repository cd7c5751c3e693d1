"""The header fields of decisions."""

from headgate._base.backend import backend

TYPE_CHECKING = False
if TYPE_CHECKING or backend == "compiled":
    from headgate.limit.fields._compiled import fields_of
else:
    from headgate.limit.fields._pure import fields_of

__all__ = ["fields_of"]
