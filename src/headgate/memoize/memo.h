/* Calls of memoized functions by vectorcall, and the wrappers of instances. */
#ifndef HEADGATE_MEMO_H
#define HEADGATE_MEMO_H

#include <Python.h>

/* Objects of `type` hold a vectorcallfunc at `offset`. Those that bind do so as functions: a call by way of an
 * instance has it as its first argument, whether ``__get__`` was called or not. */
static void hg_call_by_vector(PyTypeObject *type, Py_ssize_t offset, int binds)
{
    type->tp_vectorcall_offset = offset;
    type->tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL | (binds ? Py_TPFLAGS_METHOD_DESCRIPTOR : 0);
    PyType_Modified(type);
}

/* Whether `reference` is a weak reference to `object`. */
static inline int hg_refers_to(PyObject *reference, PyObject *object)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *referent = NULL;
    int refers = PyWeakref_GetRef(reference, &referent) > 0 && referent == object;
    Py_XDECREF(referent);
    return refers;
#else
    return PyWeakref_GET_OBJECT(reference) == object;
#endif
}

/* The wrapper of `instance` in a dict of (weak reference, wrapper) by address, with a reference; NULL without an
 * error where there is none. */
static inline PyObject *hg_wrapper_of(PyObject *by_id, PyObject *instance)
{
    PyObject *address = PyLong_FromVoidPtr(instance), *row = NULL, *wrapper = NULL;
    if (address == NULL)
        return NULL;
#if PY_VERSION_HEX >= 0x030D0000
    PyDict_GetItemRef(by_id, address, &row);
#else
    row = PyDict_GetItemWithError(by_id, address);
    Py_XINCREF(row);
#endif
    Py_DECREF(address);
    if (row != NULL && hg_refers_to(PyTuple_GET_ITEM(row, 0), instance)) {
        wrapper = PyTuple_GET_ITEM(row, 1);
        Py_INCREF(wrapper);
    }
    Py_XDECREF(row);
    return wrapper;
}

#endif
