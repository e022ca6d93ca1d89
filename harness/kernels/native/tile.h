// A tile of a product of fp32 matrices: R rows by V vectors that stay in registers from the first multiplication to the last.
#pragma once

#include "adam.h"

// The shape of a tile, whose sums and vectors of b fit the registers: 32 with AVX-512, else 16.
struct Shape {
    int rows, vectors;
};
constexpr Shape DENSE = WIDTH == 16 ? Shape{8, 3} : Shape{4, 3};
constexpr Shape SPARSE_ROWS = WIDTH == 16 ? Shape{2, 8} : Shape{2, 4};     // rows of a are images
constexpr Shape SPARSE_COLUMNS = WIDTH == 16 ? Shape{4, 6} : Shape{4, 3};  // columns of a are images, rows neighbouring pixels

// A product of a (m, k) and b (k, n). It is written to c (m, n), contiguous, or, with `adam`, used as the gradient of that update.
struct Product {
    long m, n, k;
    const float* a;
    long rows, steps;  // strides of a (m, k)
    const float* b;
    long down, across;  // strides of b (k, n)
    float* c;
    const Adam* adam = nullptr;
    const float* bias = nullptr;   // (n), added to every row
    const float* slope = nullptr;  // (m, n), by which the product is multiplied
    bool add = false;              // to what is in c
};

// What is known of zeros in a: nothing; which steps each tile has to take; that, and what a is at these steps.
enum Zeros { UNKNOWN, LISTED, PACKED };

struct Steps {  // the steps along k that a tile takes: `count` of them, at the indices `which` if zeros are LISTED or PACKED
    long count;
    int* which = nullptr;
    float* values = nullptr;  // if PACKED: a at the first of these steps, for all rows of the tile, then at the second ...
};

struct Panel {  // `columns` columns of b from column `at` on: k rows, `wide` floats apart
    const float* b;
    long wide, at, columns;
    const float* next = nullptr;  // the next panel of b, to be prefetched; null if that is not worthwhile
};

// Prefetch the rows of the next panel that fall to row i of a.
template <int V>
static inline void prefetch_panel(const Product& prod, const Panel& panel, long i) {
    long share = prod.k / prod.m + 1;
    for (long t = i * share; t < (i + 1) * share && t < prod.k; t++)
        for (int v = 0; v < V * WIDTH; v += LINE / (int)sizeof(float)) __builtin_prefetch(panel.next + t * prod.down + v);
}

// A loop that is unrolled, so that sums stay in registers: otherwise GCC keeps them in memory too, which takes a tenth of a product.
#ifdef __clang__
#define EACH(i, n) _Pragma("unroll") for (int i = 0; i < n; i++)
#else
#define EACH(i, n) _Pragma("GCC unroll 16") for (int i = 0; i < n; i++)
#endif

// Use the sums of a tile for what they are wanted, from `at` on; of each row's vector v there are `floats(v)`.
template <int R, int V, bool ADAM, class F>
static inline __attribute__((always_inline)) void finish(
    const Product& prod, const Adam& adam, vec (&sum)[R][V], long at, long column, F floats) {
    if (ADAM) {
        EACH(r, R) EACH(v, V) adam.step(at + r * prod.n + v * WIDTH, sum[r][v], floats(v));
        return;
    }
    if (prod.bias)
        EACH(v, V) {
            vec bias = load(prod.bias + column + v * WIDTH, floats(v));
            EACH(r, R) sum[r][v] += bias;
        }
    if (prod.slope) EACH(r, R) EACH(v, V) sum[r][v] *= load(prod.slope + at + r * prod.n + v * WIDTH, floats(v));
    if (prod.add) EACH(r, R) EACH(v, V) sum[r][v] += load(prod.c + at + r * prod.n + v * WIDTH, floats(v));
    EACH(r, R) EACH(v, V) store(prod.c + at + r * prod.n + v * WIDTH, sum[r][v], floats(v));
}

// Compute R rows from row i on, times a panel of V vectors. `next` is the first row of the tile after this one. `adam` is a copy of the
// product's, which stores cannot change.
template <int R, int V, bool ADAM, Zeros ZEROS>
static inline __attribute__((always_inline)) void tile(
    const Product& prod, const Adam& adam, Steps k, const Panel& panel, long i, long next) {
    const float* a = prod.a + i * prod.rows;
    vec sum[R][V];
    EACH(r, R) EACH(v, V) sum[r][v] = vec{};
    auto prefetch = [&](long row) __attribute__((always_inline)) {  // of R, at equal distances
        if (ADAM) adam.prefetch((next + row) * prod.n + panel.at, V * WIDTH);  // what the next tile updates
        else if (panel.next) prefetch_panel<V>(prod, panel, i + row);
    };
    long row = 0, piece = ADAM || panel.next ? k.count / R + 1 : k.count;  // steps between two prefetches
    for (long t0 = 0; t0 < k.count; t0 += piece) {
        prefetch(row++);
        for (long s = t0; s < (t0 + piece < k.count ? t0 + piece : k.count); s++) {
            long t = ZEROS == UNKNOWN ? s : k.which[s];
            vec b[V];
            EACH(v, V) b[v] = load(panel.b + t * panel.wide + v * WIDTH);
            EACH(r, R) {
                float f = ZEROS == PACKED ? k.values[s * R + r] : a[r * prod.rows + (ZEROS == LISTED ? t : t * prod.steps)];
                EACH(v, V) sum[r][v] += f * b[v];
            }
        }
    }
    while (ADAM && row < R) prefetch(row++);  // few steps, or none, were taken
    long at = i * prod.n + panel.at;
    if (panel.columns >= V * WIDTH) {
        finish<R, V, ADAM>(prod, adam, sum, at, panel.at, [](int) { return WIDTH; });
    } else {
        finish<R, V, ADAM>(prod, adam, sum, at, panel.at, [&](int v) { return panel.columns - v * WIDTH; });
    }
}
