"""The ``headgate bench`` command."""
