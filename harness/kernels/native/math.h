// Elementary functions of a vector of floats. NaN stays NaN. -ffast-math must be off: sums are rounded in the order written here.
//
// exp and log follow Cephes (Moshier, https://www.netlib.org/cephes): an argument is reduced to a small one, whose function is a
// polynomial. Errors (tests/kernels/test_native_math.py): 2.5e-7 of the value.
#pragma once

#include "vector.h"

#ifdef __FAST_MATH__
#error "compile without -ffast-math: it may change the order of additions, on which small values depend"
#endif

constexpr float LOWEST = -86.6f;  // exp of less, below 2e-38, is 0 here
constexpr float HIGHEST = 89.0f;  // exp of more, and of 88.73, is inf

static inline vec all(float f) { return f - vec{}; }
static inline ints bits(vec x) { return (ints)x; }
static inline vec magnitude(vec x) { return (vec)(bits(x) & 0x7fffffff); }
static inline ints sign(vec x) { return bits(x) & (int32_t)0x80000000; }
static inline vec at_least(vec x, float low) { return x < low ? all(low) : x; }
static inline vec at_most(vec x, float high) { return x > high ? all(high) : x; }

struct Power {  // exp(x) is 2 half (1 + rest), half a power of two
    vec half, rest;

    vec exp() const { return 2 * (half * rest + half); }
    vec expm1() const { return 2 * (half * rest + (half - 0.5f)); }
};

// Return exp(x) for x in [LOWEST, HIGHEST].
static inline Power power(vec x) {
    constexpr float SHIFT = 12582912;  // 3 2^22: a float of this size has no bits after the point, and its last ones count
    vec shifted = x * 1.44269504f + SHIFT, n = shifted - SHIFT;
    vec r = x - n * 0.693359375f + n * 2.12194440e-4f;  // log 2 in two parts, the first of which n times is exact
    vec p = 1.9875691500e-4f * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    return {(vec)((bits(shifted) + (126 - 0x4b400000)) << 23), p * (r * r) + r};
}

// Return exp(-a) for a >= 0; exp(-86.6) for more.
static inline Power decay(vec a) { return power(at_least(-a, LOWEST)); }

static inline vec exp(vec x) {
    vec y = power(at_most(at_least(x, LOWEST), HIGHEST)).exp();
    return x < LOWEST ? vec{} : y;
}

static inline vec expm1(vec x) { return power(at_most(at_least(x, LOWEST), HIGHEST)).expm1(); }

static inline vec log(vec x) {
    ints subnormal = x < 1.17549435e-38f;
    vec normal = subnormal ? x * 8388608.0f : x;
    ints exponent = (bits(normal) - 0x3f3504f3) >> 23;  // of a mantissa from sqrt(1/2) on
    vec f = (vec)(bits(normal) - (exponent << 23)) - 1;
    vec n = __builtin_convertvector(exponent - (subnormal & 23), vec);
    vec p = 7.0376836292e-2f * f - 1.1514610310e-1f;
    p = p * f + 1.1676998740e-1f;
    p = p * f - 1.2420140846e-1f;
    p = p * f + 1.4249322787e-1f;
    p = p * f - 1.6668057665e-1f;
    p = p * f + 2.0000714765e-1f;
    p = p * f - 2.4999993993e-1f;
    p = p * f + 3.3333331174e-1f;
    vec square = f * f;
    vec y = p * f * square - n * 2.12194440e-4f - 0.5f * square + f + n * 0.693359375f;
    y = x > 0 ? y : x == 0 ? all(-__builtin_inff()) : all(__builtin_nanf(""));
    return x < __builtin_inff() ? y : x > 0 ? x : x + y;  // inf as it is; NaN is not below it
}

// Return log(1 + x), with the part of x that 1 + x rounds off.
static inline vec log1p(vec x) {
    vec u = 1 + x, y = log(u), lost = (x - (u - 1)) / u;
    return u > 0 && x < 1e9f ? y + lost : y;
}

// Return log(1 + x / y) for 0 <= x <= y: 2 s (1 + s^2 / 3 + ...), s = x / (2 y + x), the later terms fitted to 5e-9.
static inline vec log1p_of_share(vec x, vec y) {
    vec s = x / (2 * y + x), q = s * s;
    vec p = 0.140122296f * q + 0.139995705f;
    p = p * q + 0.200108495f;
    p = p * q + 0.333332066f;
    return 2 * (s * q * p + s);
}

// Return log(1 + x) for x in [0, 1].
static inline vec log1p_of_share(vec x) { return log1p_of_share(x, all(1)); }

static inline vec tanh(vec x) {
    vec t = decay(2 * magnitude(x)).expm1();
    return (vec)(bits(-t / (t + 2)) ^ sign(x));
}

// Return 1 - erf(a) for a >= 0, given e = exp(-a^2): t e times a polynomial in t = 1 / (1 + a/2), fitted to 4e-8 of the value.
static inline vec erfc_with(vec a, vec e) {
    vec t = 1 / (0.5f * a + 1);
    vec p = -0.058847144312f * t + 0.283487824082f;
    p = p * t - 0.484937282453f;
    p = p * t + 0.275463417001f;
    p = p * t - 0.024819855920f;
    p = p * t + 0.201916818847f;
    p = p * t + 0.243300165907f;
    p = p * t + 0.282348021472f;
    p = p * t + 0.282087993354f;
    return p * t * e;
}
