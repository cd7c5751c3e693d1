"""Errors that no built-in exception names well."""

__all__ = ["HeadgateError", "NoServerError"]


class HeadgateError(Exception):
    """The root of the errors that headgate has of its own."""


class NoServerError(HeadgateError, LookupError):
    """There is no server to pick: there are none, or every one is excluded."""
