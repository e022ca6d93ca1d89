// The native sources of elementwise functions, and each of these as a function of arrays: y from x, and the slope of activations.
#include "activations.h"
#include "heads.cpp"
#include "images.cpp"

template <class Function>
static void apply(Function f, const float* x, float* y, float* slope, long floats) {
    for (long i = 0; i < floats; i += WIDTH) {
        vec to = {}, derivative = {};
        f(load(x + i, floats - i), to, derivative);
        store(y + i, to, floats - i);
        store(slope + i, derivative, floats - i);
    }
}

#define NAMED(name) \
    extern "C" void native_##name(const float* x, float* y, float* slope, long floats) { \
        apply([](vec x, vec& y, vec&) { y = name(x); }, x, y, slope, floats); \
    }
NAMED(exp)
NAMED(expm1)
NAMED(log)
NAMED(log1p)
NAMED(tanh)

template <int A>
static void activation(const float* x, float* y, float* slope, long floats) {
    apply(activate<A>, x, y, slope, floats);
}

extern "C" void native_activation(long which, const float* x, float* y, float* slope, long floats) {
    constexpr decltype(&activation<0>) ALL[] = {
        activation<IDENTITY>, activation<ELU>,  activation<RELU>, activation<LEAKY_RELU>, activation<SELU>,   activation<GELU>,
        activation<SILU>,     activation<MISH>, activation<TANH>, activation<SOFTPLUS>,   activation<SIGMOID>};
    ALL[which](x, y, slope, floats);
}
