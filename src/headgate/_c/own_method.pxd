"""Descriptors of its own for a class that inherits a method without binding."""


cdef extern from "own_method.h":
    int hg_own_method(type cls, str name) except -1
