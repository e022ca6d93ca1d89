// Products of fp32 matrices for one thread.
//
// a and b are read by any two strides, so that they may be transposed. b is packed into contiguous memory, a panel of V vectors of
// columns at a time, and multiplied with a tile by tile. If a is sparse (images are), each tile skips the steps at which all its rows
// of a are zero; tiles then have fewer rows, which share more zeros.
#pragma once

#include "zeros.h"

constexpr long FAR = 1 << 17;  // floats from which b is taken to lie beyond the cache that a core has for itself

// Compute all rows times a panel of `vectors` vectors, at most V.
template <int R, int V, bool ADAM, Zeros ZEROS>
static void columns_of(const Product& prod, const Steps* k, const Panel& panel, int vectors) {
    if constexpr (V > 1)
        if (vectors < V) return columns_of<R, V - 1, ADAM, ZEROS>(prod, k, panel, vectors);
    Adam adam = ADAM ? *prod.adam : Adam{};
    long i = 0;
    for (; i + R <= prod.m; i += R) {
        long next = i + 2 * R <= prod.m ? i + R : i;
        tile<R, V, ADAM, ZEROS>(prod, adam, ZEROS == UNKNOWN ? Steps{prod.k} : *k++, panel, i, next);
    }
    for (; i < prod.m; i++) tile<1, V, ADAM, UNKNOWN>(prod, adam, Steps{prod.k}, panel, i, i);
}

#ifdef __clang__
#define SHUFFLED(x, y, ...) __builtin_shufflevector(x, y, __VA_ARGS__)
#else
#define SHUFFLED(x, y, ...) __builtin_shuffle(x, y, ints{__VA_ARGS__})
#endif
#define PAIR(i) i, i + WIDTH
#define PAIRS(i) PAIR(i), PAIR(i + 1)
// Two vectors interleaved: their first halves if i is 0, their second if it is WIDTH / 2.
#if WIDTH == 16
#define INTERLEAVED(x, y, i) SHUFFLED(x, y, PAIRS(i), PAIRS(i + 2), PAIRS(i + 4), PAIRS(i + 6))
#elif WIDTH == 8
#define INTERLEAVED(x, y, i) SHUFFLED(x, y, PAIRS(i), PAIRS(i + 2))
#else
#define INTERLEAVED(x, y, i) SHUFFLED(x, y, PAIRS(i))
#endif

// Transpose a square of WIDTH by WIDTH floats of b into the panel.
static inline void transpose(const float* b, long across, float* panel, long wide) {
    constexpr int HALF = WIDTH / 2;
    vec from[WIDTH], to[WIDTH];
    for (int j = 0; j < WIDTH; j++) from[j] = load(b + j * across);
    for (int round = 1; round < WIDTH; round *= 2) {  // each round interleaves the first half with the second
        for (int j = 0; j < HALF; j++) {
            to[2 * j] = INTERLEAVED(from[j], from[j + HALF], 0);
            to[2 * j + 1] = INTERLEAVED(from[j], from[j + HALF], HALF);
        }
        memcpy(from, to, sizeof(to));
    }
    for (int t = 0; t < WIDTH; t++) store(panel + t * wide, from[t]);
}

// Copy columns of b (k rows, strides `down` and `across`) into the panel as k rows of `wide` floats, zeros after the last column.
static void pack(const float* b, long down, long across, long k, long columns, long wide, float* panel) {
    for (long j = 0; j < wide; j += WIDTH) {
        long t = 0, floats = columns - j;
        if (across == 1 && floats > 0)
            for (; t < k; t++) store(panel + t * wide + j, load(b + t * down + j, floats));
        if (down == 1 && floats >= WIDTH)
            for (; t + WIDTH <= k; t += WIDTH) transpose(b + j * across + t, across, panel + t * wide + j, wide);
        for (; t < k; t++)
            for (long q = j; q < j + WIDTH; q++) panel[t * wide + q] = q < columns ? b[t * down + q * across] : 0;
    }
}

// Return at least so many bytes of memory that this thread keeps from call to call, one piece for each use.
template <int USE = 0>
static char* workspace(size_t bytes) {
    static thread_local char* memory = nullptr;
    static thread_local size_t size = 0;
    if (bytes > size) {
        free(memory);
        size = (bytes + LINE - 1) / LINE * LINE;
        memory = (char*)aligned_alloc(LINE, size);
        if (!memory) abort();
    }
    return memory;
}

// Compute a product by tiles of R rows and at most WIDEST vectors. If zeros are to be skipped, but too few steps would be, return false
// and compute nothing.
template <int R, int WIDEST, bool ADAM, Zeros ZEROS>
static bool multiply(const Product& prod) {
    long tiles = prod.m / R, room = prod.k + SPARE, floats = ZEROS == PACKED ? room * R : 0;
    size_t lists = ZEROS == UNKNOWN ? 0 : tiles * (sizeof(Steps) + sizeof(int) * room + sizeof(float) * floats);
    float* packed = (float*)workspace(sizeof(float) * prod.k * WIDEST * WIDTH + lists);
    Steps* steps = (Steps*)(packed + prod.k * WIDEST * WIDTH);
    if (ZEROS != UNKNOWN) {
        int* which = (int*)(steps + tiles);
        for (long n = 0; n < tiles; n++) steps[n] = {0, which + n * room, (float*)(which + tiles * room) + n * floats};
        if (!find_steps<R, ZEROS>(prod, tiles, steps)) return false;
    }
    for (long j = 0; j < prod.n;) {
        long left = (prod.n - j + WIDTH - 1) / WIDTH, panels = (left + WIDEST - 1) / WIDEST;
        int vectors = (left + panels - 1) / panels;
        long wide = vectors * WIDTH, columns = prod.n - j < wide ? prod.n - j : wide;
        const float* b = prod.b + j * prod.across;
        // Tiles of few images, and the few rows of a convolution's weights, read rows of b too few times for packing to be worthwhile.
        bool unpacked = (ZEROS == LISTED || prod.add) && prod.across == 1 && columns == wide;
        if (!unpacked) pack(b, prod.down, prod.across, prod.k, columns, wide, packed);
        Panel panel{unpacked ? b : packed, unpacked ? prod.down : wide, j, columns};
        if (ZEROS == UNKNOWN && prod.across == 1 && panels > 1 && prod.k * prod.n > FAR) panel.next = b + wide;
        columns_of<R, WIDEST, ADAM, ZEROS>(prod, steps, panel, vectors);
        j += columns;
    }
    return true;
}

template <bool ADAM>
static void product(const Product& prod, bool sparse) {
    if (sparse && prod.rows == 1) {
        if (multiply<SPARSE_COLUMNS.rows, SPARSE_COLUMNS.vectors, ADAM, PACKED>(prod)) return;
    } else if constexpr (!ADAM) {  // images are the transposed factor of a gradient, so that Adam's are all above
        if (sparse && prod.steps == 1 && multiply<SPARSE_ROWS.rows, SPARSE_ROWS.vectors, false, LISTED>(prod)) return;
    }
    multiply<DENSE.rows, DENSE.vectors, ADAM, UNKNOWN>(prod);
}

// Compute a product whose a has many zeros where `sparse`.
static void product(const Product& prod, bool sparse) { prod.adam ? product<true>(prod, sparse) : product<false>(prod, sparse); }
