// Images as the model sees them, and draws of z with their gradients.

#include "heads.h"
#include "math.h"

enum { GREY, BINARISED, DEQUANTISED, THRESHOLD };

// Return the grey levels at p as floats. GCC 12 would convert the vector one by one.
static inline vec levels_at(const uint8_t* p) {
#if WIDTH == 16
    return (vec)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p)));
#elif WIDTH == 8
    return (vec)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p)));
#else
    return __builtin_convertvector((ints{p[0], p[1], p[2], p[3]}), vec);
#endif
}

// Return the first `count` of them, then zeros.
static inline vec levels_at(const uint8_t* p, long count) {
    if (count >= WIDTH) return levels_at(p);
    uint8_t some[WIDTH] = {};
    for (long i = 0; i < count; i++) some[i] = p[i];
    return levels_at(some);
}

// Return v / 255 for grey levels v, rounded as a division is: the product with the inverse, corrected by what is left.
static inline vec share(vec v) {
    constexpr float INVERSE = 1 / 255.0f;
    vec q = v * INVERSE;
    return q + (v - q * 255.0f) * INVERSE;
}

template <int KIND>
static void observe(const uint8_t* levels, const int64_t* batch, const float* u, float* x, long rows, long pixels) {
    vec one = all(1), none = {}, half = all(0.5f);
    for (long r = 0; r < rows; r++) {
        const uint8_t *image = levels + batch[r] * pixels, *next = levels + batch[r + 1 < rows ? r + 1 : r] * pixels;
        auto see = [&](long p, long count) __attribute__((always_inline)) {
            long at = r * pixels + p;
            vec v = levels_at(image + p, count), seen;
            __builtin_prefetch(next + p);  // it lies anywhere
            if constexpr (KIND == GREY) seen = share(v);
            if constexpr (KIND == BINARISED) seen = load(u + at, count) < share(v) ? one : none;
            if constexpr (KIND == DEQUANTISED) seen = (v + load(u + at, count)) * (1 / 256.0f);
            if constexpr (KIND == THRESHOLD) seen = half < share(v) ? one : none;
            store(x + at, seen, count);
        };
        long p = 0;
        for (; p + WIDTH <= pixels; p += WIDTH) see(p, WIDTH);
        if (p < pixels) see(p, pixels - p);
    }
}

void harness_observe(
    int64_t kind, const uint8_t* levels, const int64_t* batch, const float* u, float* x, int64_t rows, int64_t pixels) {
    constexpr decltype(&observe<GREY>) KINDS[] = {observe<GREY>, observe<BINARISED>, observe<DEQUANTISED>, observe<THRESHOLD>};
    KINDS[kind](levels, batch, u, x, rows, pixels);
}

void harness_draw(
    const float* q, const float* eps, float* z, float* kl, int64_t draws, int64_t rows, int64_t latents) {
    for (long j = 0; j < latents; j += WIDTH) {
        long count = latents - j;
        vec sum = {};
        for (long r = 0; r < rows; r++) {
            vec mean = load(q + 2 * r * latents + j, count), log_var = load(q + (2 * r + 1) * latents + j, count);
            vec sigma = exp(0.5f * log_var);
            for (long l = 0; l < draws; l++) {
                long at = (l * rows + r) * latents + j;
                store(z + at, mean + sigma * load(eps + at, count), count);
            }
            sum += mean * mean + (expm1(log_var) - log_var);
        }
        store(kl + j, sum * (0.5f / rows), count);
    }
}

void harness_draw_back(
    const float* q, const float* eps, const float* gz, const float* kl_weight, float* gq, int64_t draws, int64_t rows,
    int64_t latents) {
    for (long j = 0; j < latents; j += WIDTH) {
        long count = latents - j;
        vec weight = load(kl_weight + j, count) * (1.0f / rows);
        for (long r = 0; r < rows; r++) {
            long to_mean = 2 * r * latents + j, to_log_var = to_mean + latents;
            vec log_var = load(q + to_log_var, count), sum = {}, with_eps = {};
            for (long l = 0; l < draws; l++) {
                long at = (l * rows + r) * latents + j;
                vec g = load(gz + at, count);
                sum += g;
                with_eps += g * load(eps + at, count);
            }
            store(gq + to_mean, sum + weight * load(q + to_mean, count), count);
            store(gq + to_log_var, 0.5f * (exp(0.5f * log_var) * with_eps + weight * expm1(log_var)), count);
        }
    }
}
