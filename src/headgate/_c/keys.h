/* The key rule: the bytes of a str (its UTF-8), of bytes, or of an int (8 bytes, little-endian
 * two's complement). ASCII text and bytes are read where they lie: no object is made. */
#ifndef HEADGATE_KEYS_H
#define HEADGATE_KEYS_H

#include <Python.h>
#include <stdint.h>

typedef struct {
    const unsigned char *data;
    Py_ssize_t size;
    unsigned char word[8];
    enum hg_key_kind { HG_BYTES, HG_STR, HG_INT } kind;
} hg_key;

static int hg_key_int(PyObject *key, const char *name, hg_key *out)
{
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(key, &overflow);
    if (value == -1 && PyErr_Occurred())
        return -1;
    if (overflow) {
        PyErr_Format(PyExc_ValueError, "%s must be in [-2**63, 2**63), got %R", name, key);
        return -1;
    }
    for (int i = 0; i < 8; i++)
        out->word[i] = (unsigned char)((uint64_t)value >> (8 * i));
    out->data = out->word;
    out->size = 8;
    out->kind = HG_INT;
    return 0;
}

/* Names the argument in the error of a str that has no UTF-8. */
static int hg_key_not_text(const char *name)
{
    PyObject *type, *value, *trace;
    char reason[64];
    PyOS_snprintf(reason, sizeof reason, "%s must have no surrogates", name);
    PyErr_Fetch(&type, &value, &trace);
    PyErr_NormalizeException(&type, &value, &trace);
    if (PyErr_GivenExceptionMatches(value, PyExc_UnicodeEncodeError) && PyUnicodeEncodeError_SetReason(value, reason))
        PyErr_Clear();
    PyErr_Restore(type, value, trace);
    return -1;
}

static int hg_key_other(PyObject *key, const char *name, hg_key *out)
{
    if (PyUnicode_Check(key)) {
        out->data = (const unsigned char *)PyUnicode_AsUTF8AndSize(key, &out->size);
        out->kind = HG_STR;
        return out->data == NULL ? hg_key_not_text(name) : 0;
    }
    if (PyBytes_Check(key)) {
        out->data = (const unsigned char *)PyBytes_AS_STRING(key);
        out->size = PyBytes_GET_SIZE(key);
        out->kind = HG_BYTES;
        return 0;
    }
    if (PyLong_Check(key))
        return hg_key_int(key, name, out);
    PyErr_Format(PyExc_TypeError, "%s must be str, bytes or int, got %R", name, key);
    return -1;
}

/* Fills `out`, which stays valid as long as `key` lives; -1 with an exception set on a wrong key. */
static inline int hg_key_of(PyObject *key, const char *name, hg_key *out)
{
    if (PyUnicode_CheckExact(key) && PyUnicode_IS_COMPACT_ASCII(key)) {
        out->data = (const unsigned char *)PyUnicode_DATA(key);
        out->size = PyUnicode_GET_LENGTH(key);
        out->kind = HG_STR;
        return 0;
    }
    return hg_key_other(key, name, out);
}

#endif
