// Activations and their slopes, as torch's functions of these names with their default arguments compute them.
#pragma once

#include "math.h"

enum { IDENTITY, ELU, RELU, LEAKY_RELU, SELU, GELU, SILU, MISH, TANH, SOFTPLUS, SIGMOID };

struct Logistic {  // sigmoid(x), and its slope without cancellation
    vec e, y, slope;
    explicit Logistic(vec x) : e(decay(magnitude(x)).exp()) {
        vec inverse = 1 / (1 + e);
        y = (x < 0 ? e : all(1)) * inverse;
        slope = e * inverse * inverse;
    }
};

// Set y to activation A of x, and slope to its derivative there.
template <int A>
static inline __attribute__((always_inline)) void activate(vec x, vec& y, vec& slope) {
    constexpr float SCALE = 1.0507009873554804934193349852946f, ALPHA = 1.6732632423543772848170429916717f;  // selu
    if constexpr (A == IDENTITY) y = x, slope = all(1);
    if constexpr (A == RELU) y = x < 0 ? vec{} : x, slope = x <= 0 ? vec{} : all(1);
    if constexpr (A == LEAKY_RELU) y = x > 0 ? x : 0.01f * x, slope = x > 0 ? all(1) : all(0.01f);
    if constexpr (A == ELU || A == SELU) {
        constexpr float ABOVE = A == SELU ? SCALE : 1, BELOW = A == SELU ? SCALE * ALPHA : 1;
        Power e = power(at_most(at_least(x, LOWEST), 0));
        y = x > 0 ? ABOVE * x : BELOW * e.expm1();
        slope = x > 0 ? all(ABOVE) : BELOW * e.exp();
    }
    if constexpr (A == GELU) {  // x times the normal distribution function of x
        vec e = exp(-0.5f * x * x), tail = 0.5f * erfc_with(magnitude(x) * 0.70710678f, e), below = x > 0 ? 1 - tail : tail;
        y = x * below;
        slope = below + x * e * 0.39894228f;
    }
    if constexpr (A == SILU) {
        Logistic s(x);
        y = x * s.y;
        slope = s.y + x * s.slope;
    }
    if constexpr (A == MISH) {  // tanh(log(1 + exp x)) is (q - 1) / (q + 1) with q = (1 + exp x)^2; e is exp(-|x|)
        Logistic s(x);
        vec above = 2 * s.e * s.e, top = x < 0 ? s.e * (s.e + 2) : 1 + 2 * s.e, gap = x < 0 ? all(2) : above;
        vec inverse = 1 / (top + gap), t = top * inverse;
        y = x * t;
        slope = t + x * s.y * (gap * inverse * (1 + t));
    }
    if constexpr (A == TANH) y = tanh(x), slope = 1 - y * y;
    if constexpr (A == SOFTPLUS) {
        Logistic s(x);
        y = at_least(x, 0) + log1p_of_share(s.e);
        slope = s.y;
    }
    if constexpr (A == SIGMOID) {
        Logistic s(x);
        y = s.y, slope = s.slope;
    }
}
