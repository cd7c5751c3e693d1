"""The ``headgate simulate`` command."""
