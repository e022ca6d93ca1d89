// A vector of WIDTH floats, as wide as the processor's registers (-DWIDTH: 16 AVX-512, 8 AVX2 with FMA, 4 any processor), and how it
// is read from and written to memory, in part too.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#if WIDTH > 4
#include <immintrin.h>
#endif

typedef float vec __attribute__((vector_size(WIDTH * sizeof(float)), may_alias));
typedef float unaligned_vec __attribute__((vector_size(WIDTH * sizeof(float)), may_alias, aligned(sizeof(float))));
typedef int32_t ints __attribute__((vector_size(WIDTH * sizeof(float)), may_alias));

// Return the floats at p.
static inline vec load(const float* p) { return *(const unaligned_vec*)p; }

// Return the first `floats` of them, at least 1, then zeros; what lies behind them is not read.
static inline vec load(const float* p, long floats) {
    if (floats >= WIDTH) return load(p);
#if WIDTH == 16
    return (vec)_mm512_maskz_loadu_ps((__mmask16)((1u << floats) - 1), p);
#else
    vec v = {};
    for (int i = 0; i < WIDTH - 1; i++)
        if (i < floats) v[i] = p[i];
    return v;
#endif
}

static inline void store(float* p, vec v) { *(unaligned_vec*)p = v; }

// Write the first `floats` of v, at least 1.
static inline void store(float* p, vec v, long floats) {
    if (floats >= WIDTH) return store(p, v);
#if WIDTH == 16
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << floats) - 1), (__m512)v);
#else
    for (int i = 0; i < WIDTH - 1; i++)
        if (i < floats) p[i] = v[i];
#endif
}

static inline vec root(vec v) {
#if WIDTH == 16
    return (vec)_mm512_sqrt_ps((__m512)v);
#elif WIDTH == 8
    return (vec)_mm256_sqrt_ps((__m256)v);
#else
    vec r;
    for (int i = 0; i < WIDTH; i++) r[i] = __builtin_sqrtf(v[i]);
    return r;
#endif
}
