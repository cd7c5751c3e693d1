/* What a memoizer asks of C: to be called by vectorcall. */
#ifndef HEADGATE_MEMO_H
#define HEADGATE_MEMO_H

#include <Python.h>

/* Objects of `type` hold a vectorcallfunc at `offset`. Those that bind do so as functions: a call by way of an
 * instance has it as its first argument, whether ``__get__`` was asked or not. */
static void hg_call_by_vector(PyTypeObject *type, Py_ssize_t offset, int binds)
{
    type->tp_vectorcall_offset = offset;
    type->tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL | (binds ? Py_TPFLAGS_METHOD_DESCRIPTOR : 0);
    PyType_Modified(type);
}

/* Call `function`, whose reference is taken over. */
static inline PyObject *hg_call(PyObject *function, PyObject **args, size_t count)
{
    PyObject *result = PyObject_Vectorcall(function, args, count, NULL);
    Py_DECREF(function);
    return result;
}

#endif
