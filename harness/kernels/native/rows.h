// Rows of pixels under a head: what adds up log p and its gradient for any of them.
//
// A head adds for each pixel `term` to log p and multiplies `factor` into a product, whose logarithm log p loses. The logarithm is
// taken once for as many vectors of pixels as the product stays within the range of floats, EVERY: it costs as much as the rest.
// Its `at` sets g to the derivatives of -log p by the pixel's outputs; `whole` turns the row's sum of terms and logarithms to log p.
#pragma once

#include "heads.h"
#include "math.h"

struct Scale {  // sigma = floor + exp(raw + start), where raw + start is at most the ceiling
    float floor, start, ceiling;

    Scale(const double* settings) : floor(settings[0]), start(settings[1]), ceiling(settings[2]) {}

    // Return sigma and set slope to its derivative by raw.
    vec of(vec raw, vec& slope) const {
        vec log_excess = raw + start, excess = exp(at_most(log_excess, ceiling));
        slope = log_excess > ceiling ? vec{} : excess;
        return floor + excess;
    }
};

// Return what the products and terms of a row make of log p and, with GRADIENT, set g to the gradient, times `by`.
template <class Head, bool GRADIENT>
static double row(Head& head, const float* x, const float* out, float* g, float by, long pixels) {
    vec sum = {}, product = all(Head::EXCESS ? 0 : 1), logs = {};
    auto take_log = [&]() __attribute__((always_inline)) {
        logs += Head::EXCESS ? log1p(product) : log(product);
        product = all(Head::EXCESS ? 0 : 1);
    };
    int taken = 0;
    auto add = [&](long p, long count) __attribute__((always_inline)) {
        vec o[Head::OUTPUTS], by_output[Head::OUTPUTS], term, factor = all(1);
        for (int k = 0; k < Head::OUTPUTS; k++) o[k] = load(out + k * pixels + p, count);
        head.at(load(x + p, count), o, by_output, term, factor);
        for (int k = 0; k < Head::OUTPUTS && GRADIENT; k++) store(g + k * pixels + p, by * by_output[k], count);
        if (count < WIDTH)
            for (int i = count; i < WIDTH; i++) term[i] = 0, factor[i] = !Head::EXCESS;
        sum += term;
        if (!Head::EVERY) return;
        product = Head::EXCESS ? product + factor * (1 + product) : product * factor;
        if (++taken == Head::EVERY) take_log(), taken = 0;
    };
    long p = 0;
    for (; p + WIDTH <= pixels; p += WIDTH) add(p, WIDTH);
    if (p < pixels) add(p, pixels - p);
    if (Head::EVERY) take_log();
    double total = 0;
    for (int i = 0; i < WIDTH; i++) total += (double)sum[i] - logs[i];
    return head.whole(total, pixels);
}

template <class Head, bool GRADIENT>
static void score(
    const double* settings, const float* x, const float* out, const float* shared, float* g, float* g_shared, float* log_px,
    float scale, long rows, long images, long pixels) {
    Head head(settings, shared);
    for (long r = 0; r < rows; r++) {
        long at = r * Head::OUTPUTS * pixels;
        log_px[r] = row<Head, GRADIENT>(head, x + r % images * pixels, out + at, g + at, scale, pixels);
    }
    if (Head::SHARED && GRADIENT) head.shared(g_shared, scale);
}
