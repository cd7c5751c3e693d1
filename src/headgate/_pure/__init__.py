"""The pure-Python twin: the same names, the same behaviour."""
