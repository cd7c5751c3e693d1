"""The bytes of a key."""


cdef extern from "keys.h":
    ctypedef struct hg_key:
        const unsigned char *data
        Py_ssize_t size
        int kind
        unsigned char word[8]

    int hg_key_of(object key, const char *name, hg_key *out) except -1
