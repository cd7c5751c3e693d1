/* Hash and equality of exact str objects, without a call where CPython stores the result. */
#ifndef HEADGATE_UNICODE_EQ_H
#define HEADGATE_UNICODE_EQ_H

#include <Python.h>
#include <string.h>

static inline Py_hash_t hg_hash(PyObject *key)
{
#ifndef Py_GIL_DISABLED
    if (PyUnicode_CheckExact(key)) {
        Py_hash_t stored = ((PyASCIIObject *)key)->hash;
        if (stored != -1)
            return stored;
    }
#endif
    return PyObject_Hash(key);
}

/* Both must be exact str whose hash was taken, which makes them ready. */
static inline int hg_str_equal(PyObject *a, PyObject *b)
{
    Py_ssize_t length = PyUnicode_GET_LENGTH(a);
    return length == PyUnicode_GET_LENGTH(b) && PyUnicode_KIND(a) == PyUnicode_KIND(b)
        && memcmp(PyUnicode_DATA(a), PyUnicode_DATA(b), (size_t)length * PyUnicode_KIND(a)) == 0;
}

#endif
