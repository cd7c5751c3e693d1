"""The compiled twin: one Cython module a room."""
