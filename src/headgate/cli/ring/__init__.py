"""The ``headgate ring`` command."""
