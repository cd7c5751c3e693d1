"""The ``headgate limit`` command."""
