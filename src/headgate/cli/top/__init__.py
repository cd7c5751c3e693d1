"""The ``headgate top`` command."""
