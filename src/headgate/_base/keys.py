"""The bytes that identify a key or a node, on every platform the same."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def key_bytes(key: Any, name: str) -> bytes:
    """The bytes of a key: UTF-8 of a str, bytes, 8 little-endian bytes of an int; as an exact type."""
    if isinstance(key, str):
        try:
            return str.encode(key)
        except UnicodeEncodeError as error:
            error.reason = f"{name} must have no surrogates"
            raise
    if isinstance(key, bytes):
        return bytes.join(b"", (key,))
    if not isinstance(key, int):
        raise TypeError(f"{name} must be str, bytes or int, got {key!r}")
    try:
        return int.to_bytes(key, 8, "little", signed=True)
    except OverflowError:
        raise ValueError(f"{name} must be in [-2**63, 2**63), got {key!r}") from None


def key_name(key: Any) -> bytes:
    """A name for a key of a limit: its bytes, after a letter that distinguishes text, bytes and numbers."""
    kind = b"s" if isinstance(key, str) else b"b" if isinstance(key, bytes) else b"i"
    return kind + key_bytes(key, "key")
