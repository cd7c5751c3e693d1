/* What a memoizer asks of C: to be called by vectorcall, and the hash of a call. */
#ifndef HEADGATE_MEMO_H
#define HEADGATE_MEMO_H

#include <Python.h>
#include <stdint.h>

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

#define HG_CALL_SEED UINT64_C(0x27D4EB2F165667C5)

/* One step of XXH64. */
static inline uint64_t hg_call_mix(uint64_t state, uint64_t lane)
{
    state += lane * UINT64_C(0xC2B2AE3D27D4EB4F);
    state = state << 31 | state >> 33;
    return state * UINT64_C(0x9E3779B185EBCA87);
}

#endif
