"""The ``headgate slo`` command."""
