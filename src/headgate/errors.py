"""Errors that no built-in exception names well."""

__all__ = ["HeadgateError", "NoServerError", "StoreError"]


class HeadgateError(Exception):
    """The root of the errors that headgate has of its own."""


class NoServerError(HeadgateError, LookupError):
    """There is no server to pick: there are none, or every one is excluded."""


class StoreError(HeadgateError):
    """A store on another machine did not respond, or not as it should; the cause is its client's error."""
