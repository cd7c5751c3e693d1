/* Descriptors of its own for a class that inherits a method of C.
 *
 * CPython specialises a call of a method only where the descriptor's type is the very type of the object, not where
 * the object is of a subclass.
 */
#ifndef HEADGATE_OWN_METHOD_H
#define HEADGATE_OWN_METHOD_H

#include <Python.h>

static int hg_own_method(PyTypeObject *cls, PyObject *name)
{
    PyObject *inherited = PyObject_GetAttr((PyObject *)cls, name), *own = NULL;
    int failed = -1;
    if (inherited != NULL)
        own = PyDescr_NewMethod(cls, ((PyMethodDescrObject *)inherited)->d_method);
    if (own != NULL)
        failed = PyDict_SetItem(cls->tp_dict, name, own);
    Py_XDECREF(own);
    Py_XDECREF(inherited);
    PyType_Modified(cls);
    return failed;
}

#endif
