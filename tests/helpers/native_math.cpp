// The native elementary functions as functions of arrays: y from x.
#include "../../harness/kernels/native/math.h"

#define NAMED(name) \
    extern "C" void native_##name(const float* x, float* y, long floats) { \
        for (long i = 0; i < floats; i += WIDTH) store(y + i, name(load(x + i, floats - i)), floats - i); \
    }
NAMED(exp)
NAMED(expm1)
NAMED(log)
NAMED(log1p)
NAMED(tanh)
