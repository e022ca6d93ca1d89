// Products of fp32 matrices for one thread.
//
// a and b are read by any two strides, so that they may be transposed. A tile of R rows by V vectors of the result stays in registers
// from the first multiplication to the last. b is packed into contiguous memory, a panel of V vectors of columns at a time. If a is
// sparse (images are), each tile skips the steps at which all its rows of a are zero; tiles then have fewer rows, which share more
// zeros, and more vectors.
#pragma once

#include "adam.h"

constexpr double MAX_DENSITY = 0.7;  // share of steps up to which sparse tiles are faster: they take 1.3 times as long for each
constexpr long FAR = 1 << 17;        // floats from which b is taken to lie beyond the cache that a core has for itself

// The shape of a tile, whose sums and vectors of b fit the registers: 32 with AVX-512, else 16.
struct Shape {
    int rows, vectors;
};
constexpr Shape DENSE = WIDTH == 16 ? Shape{8, 3} : Shape{4, 3};
constexpr Shape SPARSE_ROWS = WIDTH == 16 ? Shape{2, 8} : Shape{4, 3};     // rows of a are images
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

struct Steps {  // the steps along k that a tile takes: `count` of them, at the indices `which`, or 0 .. count - 1 if that is null
    long count;
    const int* which;
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

// Compute R rows from row i on, times a panel of V vectors. `next` is the first row of the tile after this one.
template <int R, int V, bool ADAM, bool SPARSE>
static inline __attribute__((always_inline)) void tile(const Product& prod, Steps k, const Panel& panel, long i, long next) {
    const float* a = prod.a + i * prod.rows;
    vec sum[R][V] = {};
    long piece = ADAM || panel.next ? k.count / R + 1 : k.count;  // steps between two prefetches
    for (long t0 = 0, row = 0; t0 < k.count; t0 += piece, row++) {
        if (ADAM) prod.adam->prefetch((next + row) * prod.n + panel.at, V * WIDTH);  // what the next tile updates
        else if (panel.next) prefetch_panel<V>(prod, panel, i + row);
        for (long s = t0; s < (t0 + piece < k.count ? t0 + piece : k.count); s++) {
            long t = SPARSE ? k.which[s] : s;
            vec b[V];
            for (int v = 0; v < V; v++) b[v] = load(panel.b + t * panel.wide + v * WIDTH);
            for (int r = 0; r < R; r++) {
                float f = a[r * prod.rows + t * prod.steps];
                for (int v = 0; v < V; v++) sum[r][v] += f * b[v];
            }
        }
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) {
            long at = (i + r) * prod.n + panel.at + v * WIDTH, floats = panel.columns - v * WIDTH;
            vec y = sum[r][v];
            if (ADAM) {
                prod.adam->step(at, y, floats);
                continue;
            }
            if (prod.bias) y += load(prod.bias + panel.at + v * WIDTH, floats);
            if (prod.slope) y *= load(prod.slope + at, floats);
            if (prod.add) y += load(prod.c + at, floats);
            store(prod.c + at, y, floats);
        }
}

// Compute all rows times a panel of `vectors` vectors, at most V.
template <int R, int V, bool ADAM, bool SPARSE>
static void columns_of(const Product& prod, const Steps* k, const Panel& panel, int vectors) {
    if constexpr (V > 1)
        if (vectors < V) return columns_of<R, V - 1, ADAM, SPARSE>(prod, k, panel, vectors);
    long i = 0;
    for (; i + R <= prod.m; i += R) {
        long next = i + 2 * R <= prod.m ? i + R : i;
        tile<R, V, ADAM, SPARSE>(prod, SPARSE ? *k++ : Steps{prod.k, nullptr}, panel, i, next);
    }
    for (; i < prod.m; i++) tile<1, V, ADAM, false>(prod, {prod.k, nullptr}, panel, i, i);
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

constexpr long SPARE = 16;  // ints behind each list of steps, of which some are written; with them lists do not share cache sets

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
#endif
    for (; t < prod.k; t++) {
        unsigned any = 0;
        for (int r = 0; r < R; r++) any |= bits[r * prod.rows + t];
        which[count] = t;
        count += any != 0;
    }
    return count;
}

// Find the same for all tiles where rows are neighbours, from every `stride`th step; `which` of each has room for them.
template <int R>
static void steps_of_all(const Product& prod, long tiles, long stride, Steps* steps, int* which, long room) {
    for (long n = 0; n < tiles; n++) steps[n] = {0, which + n * room};
    for (long t = 0; t < prod.k; t += stride) {
        const char* bits = (const char*)(prod.a + t * prod.steps);
        for (long n = 0; n < tiles; n++, bits += R * sizeof(float)) {
            uint64_t pairs[R / 2], any = 0;
            memcpy(pairs, bits, sizeof(pairs));
            for (uint64_t pair : pairs) any |= pair;
            which[n * room + steps[n].count] = t;
            steps[n].count += any != 0;
        }
    }
}

// Find the steps of all tiles of R rows. If every eighth tile or step shows that too few would be skipped, return false.
template <int R>
static bool find_steps(const Product& prod, long tiles, Steps* steps, int* which) {
    constexpr long SAMPLE = 8;
    long left = 0, all = 0, room = prod.k + SPARE;
    if (prod.steps == 1) {
        for (long n = 0; n < tiles; n += SAMPLE, all += prod.k) left += steps_of<R>(prod, n * R, which);
        if (left > MAX_DENSITY * all) return false;
        for (long n = 0; n < tiles; n++, which += room) steps[n] = {steps_of<R>(prod, n * R, which), which};
        return true;
    }
    if (prod.rows != 1) return false;
    steps_of_all<R>(prod, tiles, SAMPLE, steps, which, room);
    for (long n = 0; n < tiles; n++, all += (prod.k + SAMPLE - 1) / SAMPLE) left += steps[n].count;
    if (left > MAX_DENSITY * all) return false;
    steps_of_all<R>(prod, tiles, 1, steps, which, room);
    return true;
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

// Compute a product by tiles of R rows and at most WIDEST vectors. With SPARSE they skip zeros; if too few steps would be skipped, return
// false and compute nothing.
template <int R, int WIDEST, bool ADAM, bool SPARSE>
static bool multiply(const Product& prod) {
    long tiles = prod.m / R;
    size_t lists = SPARSE ? sizeof(Steps) * tiles + sizeof(int) * (prod.k + SPARE) * (tiles + 1) : 0;
    float* packed = (float*)workspace(sizeof(float) * prod.k * WIDEST * WIDTH + lists);
    Steps* steps = (Steps*)(packed + prod.k * WIDEST * WIDTH);
    if (SPARSE && !find_steps<R>(prod, tiles, steps, (int*)(steps + tiles))) return false;
    for (long j = 0; j < prod.n;) {
        long left = (prod.n - j + WIDTH - 1) / WIDTH, panels = (left + WIDEST - 1) / WIDEST;
        int vectors = (left + panels - 1) / panels;
        long wide = vectors * WIDTH, columns = prod.n - j < wide ? prod.n - j : wide;
        const float* b = prod.b + j * prod.across;
        // Sparse tiles, and the few rows of a convolution's weights, read rows of b too few times for packing to be worthwhile.
        bool unpacked = (SPARSE || prod.add) && prod.across == 1 && columns == wide;
        if (!unpacked) pack(b, prod.down, prod.across, prod.k, columns, wide, packed);
        Panel panel{unpacked ? b : packed, unpacked ? prod.down : wide, j, columns};
        if (!SPARSE && prod.across == 1 && panels > 1 && prod.k * prod.n > FAR) panel.next = b + wide;
        columns_of<R, WIDEST, ADAM, SPARSE>(prod, steps, panel, vectors);
        j += columns;
    }
    return true;
}

// Compute a product whose a has many zeros where `sparse`.
static void product(const Product& prod, bool sparse) {
    if (sparse && prod.adam && multiply<SPARSE_COLUMNS.rows, SPARSE_COLUMNS.vectors, true, true>(prod)) return;
    if (sparse && !prod.adam && multiply<SPARSE_ROWS.rows, SPARSE_ROWS.vectors, false, true>(prod)) return;
    if (prod.adam) multiply<DENSE.rows, DENSE.vectors, true, false>(prod);
    else multiply<DENSE.rows, DENSE.vectors, false, false>(prod);
}
