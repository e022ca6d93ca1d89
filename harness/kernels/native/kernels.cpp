// Everything native, as one translation unit: one compiler run, no linking of parts.
#include "heads.cpp"
#include "images.cpp"
#include "layers.cpp"
#include "levels.cpp"
#include "operators.cpp"
#include "uniform.cpp"

// The digest of the sources of this library, by which harness/kernels/library.py knows whether it is theirs.
extern "C" const char* harness_sources() { return SOURCES; }

// Return whether this processor has the instructions of this library.
extern "C" int harness_runs() {
#if WIDTH == 16
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
#elif WIDTH == 8
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return 1;
#endif
}
