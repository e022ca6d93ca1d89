// Everything native, as one translation unit: one compiler run, no linking of parts.
#include "heads.cpp"
#include "images.cpp"
#include "layers.cpp"
#include "operators.cpp"
#include "uniform.cpp"

// The digest of the sources of this library, by which harness/kernels/library.py knows whether it is theirs.
extern "C" const char* harness_sources() { return SOURCES; }
