"""``headgate config``."""
