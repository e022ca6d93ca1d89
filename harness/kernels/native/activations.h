// Activations and their slopes, by their index in ACTIVATIONS of harness/kernels/library.py.
#pragma once

#include "vector.h"

constexpr int IDENTITY = 0, RELU = 2;

// Set y to the activation of x and slope to its derivative there.
template <int A>
static inline void activate(vec x, vec& y, vec& slope) {
    static_assert(A == IDENTITY || A == RELU);
    vec none = {};
    y = A == RELU ? (vec)(x > none ? x : x != x ? x : none) : x;
    slope = A == RELU ? (vec)(x > none ? none + 1 : none) : none + 1;
}
