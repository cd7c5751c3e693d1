/* Macros that name the compiler. HG_COMPILE_FLAGS comes from setup.py. */
#ifndef HEADGATE_BUILDINFO_H
#define HEADGATE_BUILDINFO_H

#include <Python.h>

#define HG_QUOTE(text) #text
#define HG_EXPAND(macro) HG_QUOTE(macro)

#if defined(__clang__)
#define HG_COMPILER __VERSION__
#elif defined(__GNUC__)
#define HG_COMPILER "GCC " __VERSION__
#elif defined(_MSC_VER)
#define HG_COMPILER "MSVC " HG_EXPAND(_MSC_FULL_VER)
#else
#define HG_COMPILER "unknown compiler"
#endif

#if defined(__GNUC__) && __GCC_ATOMIC_LLONG_LOCK_FREE == 2
#define HG_ATOMICS_LOCK_FREE 1
#elif defined(_MSC_VER) && defined(_WIN64)
#define HG_ATOMICS_LOCK_FREE 1
#else
#define HG_ATOMICS_LOCK_FREE 0
#endif

#ifdef Py_GIL_DISABLED
#define HG_FREE_THREADED 1
#else
#define HG_FREE_THREADED 0
#endif

#endif
