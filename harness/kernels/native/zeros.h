// Where the rows of a sparse a (images) are zero, tile by tile, so that products leave these steps out.
#pragma once

#include "tile.h"

constexpr double MAX_DENSITY = 0.7;  // share of steps up to which sparse tiles are faster: each step takes longer than of a dense one
constexpr long SPARE = 16;          // ints behind each list of steps: with them lists do not share cache sets

#if WIDTH == 8
struct SetBits {  // the indices of the bits set in a byte, a byte each
    uint64_t of[256];
    constexpr SetBits() : of() {
        for (int byte = 0; byte < 256; byte++)
            for (uint64_t bit = 0, n = 0; bit < 8; bit++)
                if (byte >> bit & 1) of[byte] |= bit << 8 * n++;
    }
};
constexpr SetBits SET_BITS;
#endif

// Find the steps at which not all of the R rows from i on, whose steps are neighbours, are zero: write them to `which` and return their
// number.
template <int R>
static long steps_of(const Product& prod, long i, int* which) {
    const unsigned* bits = (const unsigned*)(prod.a + i * prod.rows);
    long count = 0, t = 0;
#if WIDTH == 16
    __m512i at = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    for (; t + WIDTH <= prod.k; t += WIDTH, at = _mm512_add_epi32(at, _mm512_set1_epi32(WIDTH))) {
        __m512i any = _mm512_loadu_si512(bits + t);
        for (int r = 1; r < R; r++) any = _mm512_or_si512(any, _mm512_loadu_si512(bits + r * prod.rows + t));
        __mmask16 kept = _mm512_test_epi32_mask(any, any);
        _mm512_storeu_si512(which + count, _mm512_maskz_compress_epi32(kept, at));
        count += __builtin_popcount(kept);
    }
#elif WIDTH == 8
    for (; t + WIDTH <= prod.k; t += WIDTH) {
        __m256i any = _mm256_loadu_si256((const __m256i*)(bits + t));
        for (int r = 1; r < R; r++) any = _mm256_or_si256(any, _mm256_loadu_si256((const __m256i*)(bits + r * prod.rows + t)));
        unsigned kept = ~_mm256_movemask_ps((__m256)_mm256_cmpeq_epi32(any, _mm256_setzero_si256())) & 0xff;
        __m256i at = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(SET_BITS.of[kept]));
        _mm256_storeu_si256((__m256i*)(which + count), _mm256_add_epi32(at, _mm256_set1_epi32(t)));
        count += __builtin_popcount(kept);
    }
#endif
    for (; t < prod.k; t++) {
        unsigned any = 0;
        for (int r = 0; r < R; r++) any |= bits[r * prod.rows + t];
        which[count] = t;
        count += any != 0;
    }
    return count;
}

// Find the same for all tiles where rows are neighbours, from every `stride`th step, with the values of a.
template <int R>
static void pack_steps(const Product& prod, long tiles, long stride, Steps* steps) {
    constexpr int TOGETHER = LINE / sizeof(float) / R;  // tiles that share cache lines
    for (long n = 0; n < tiles; n += TOGETHER) {
        long some = tiles - n < TOGETHER ? tiles - n : TOGETHER, count[TOGETHER] = {};
        for (long t = 0; t < prod.k; t += stride) {
            const float* a = prod.a + t * prod.steps + n * R;
            for (long i = 0; i < some; i++, a += R) {
                uint64_t pairs[R / 2], any = 0;
                memcpy(pairs, a, sizeof(pairs));
                for (uint64_t pair : pairs) any |= pair;
                steps[n + i].which[count[i]] = t;
                memcpy(steps[n + i].values + count[i] * R, pairs, sizeof(pairs));
                count[i] += any != 0;
            }
        }
        for (long i = 0; i < some; i++) steps[n + i].count = count[i];
    }
}

// Find the steps of all tiles of R rows. If every eighth tile or step shows that too few would be skipped, return false.
template <int R, Zeros ZEROS>
static bool find_steps(const Product& prod, long tiles, Steps* steps) {
    constexpr long SAMPLE = 8;
    long left = 0, all = 0;
    if (ZEROS == LISTED) {
        for (long n = 0; n < tiles; n += SAMPLE, all += prod.k) left += steps_of<R>(prod, n * R, steps->which);
        if (left > MAX_DENSITY * all) return false;
        for (long n = 0; n < tiles; n++) steps[n].count = steps_of<R>(prod, n * R, steps[n].which);
        return true;
    }
    pack_steps<R>(prod, tiles, SAMPLE, steps);
    for (long n = 0; n < tiles; n++, all += (prod.k + SAMPLE - 1) / SAMPLE) left += steps[n].count;
    if (left > MAX_DENSITY * all) return false;
    pack_steps<R>(prod, tiles, 1, steps);
    return true;
}
