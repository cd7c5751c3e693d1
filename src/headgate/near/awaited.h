/* Slots for a class whose objects are awaited like coroutines, so that one that need not wait costs no exception.
 *
 * Cython has no name for `am_send`, and its `__next__` would make a traceback for each StopIteration.
 */
#ifndef HEADGATE_AWAITED_H
#define HEADGATE_AWAITED_H

#include <Python.h>

static PyObject *hg_awaited_next(PyObject *self)
{
    PyObject *result = NULL, *stop;
    PySendResult sent = Py_TYPE(self)->tp_as_async->am_send(self, Py_None, &result);
    if (sent == PYGEN_NEXT)
        return result;
    if (sent == PYGEN_RETURN) {
        if (result != Py_None && (stop = PyObject_CallOneArg(PyExc_StopIteration, result)) != NULL) {
            PyErr_SetObject(PyExc_StopIteration, stop);
            Py_DECREF(stop);
        }
        Py_DECREF(result);
    }
    return NULL;
}

/* The class has `__await__` and `__next__`, and so the slots for them. */
static void hg_make_awaited(PyTypeObject *cls, sendfunc send)
{
    cls->tp_as_async->am_send = send;
    cls->tp_iternext = hg_awaited_next;
    PyType_Modified(cls);
}

#endif
