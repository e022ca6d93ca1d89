// Products of small matrices, and Adam's update as the end of one, for one thread. harness/products.py compiles it and says what for.
//
// All matrices are row-major fp32; a is read by any two strides, so that it may be transposed. b is packed, a panel of columns at a
// time, into memory without gaps; a tile of ROWS rows of the result by a panel's width then stays in registers from the first
// multiplication to the last. Where a is sparse (images are), each tile leaves out what all its rows multiply by zero. Exists because
// the BLAS that torch brings reaches 85 to 90 % of an AMD core's peak at these sizes, this 93 %.

#include <cstdlib>
#include <cstring>

constexpr int WIDTH = 16, ROWS = 8;     // floats of an AVX-512 register, and rows of a tile: 24 sums, 3 of b, 32 registers
constexpr int WIDEST = 3, STRIDE = 16;  // vectors of a panel; multiplications between two looks at what to fetch next
constexpr int LINE = 64;                // bytes that memory comes in

typedef float vec __attribute__((vector_size(WIDTH * sizeof(float)), may_alias));
typedef float loose __attribute__((vector_size(WIDTH * sizeof(float)), may_alias, aligned(sizeof(float))));  // anywhere in memory

static inline vec load(const float* p, int floats = WIDTH) {
    if (floats >= WIDTH) return *(const loose*)p;
    vec v = {};
    memcpy(&v, p, floats * sizeof(float));
    return v;
}

static inline void store(float* p, vec v, int floats) {
    if (floats >= WIDTH) *(loose*)p = v;
    else memcpy(p, &v, floats * sizeof(float));
}

static inline vec root(vec v) {
    vec r;
    for (int i = 0; i < WIDTH; i++) r[i] = __builtin_sqrtf(v[i]);
    return r;
}

struct Adam {
    float *p, *mean, *square;
    float rate, spread;  // learning rate and 1 / sqrt of the second moment, with what undoes the moments' bias
    float keep, decay;   // weight decay: as a factor on p (AdamW), as part of the gradient (Adam)
    float new1, beta2, new2, eps;

    void step(long at, vec g, int floats) const {
        vec w = load(p + at, floats), m = load(mean + at, floats), s = load(square + at, floats);
        g += decay * w;
        m += new1 * (g - m);
        s = beta2 * s + new2 * (g * g);
        store(mean + at, m, floats);
        store(square + at, s, floats);
        store(p + at, keep * w - rate * m / (root(s) * spread + eps), floats);
    }
};

struct Steps {  // the multiplications that a tile takes: `count` of them, all where `which` is none
    long count;
    const int* which;
};

// Rows i .. i + R of a times a panel of V vectors. Into c (row-major, `wide` columns, of which `columns` are the panel's), or, with
// `adam`, as the gradient of what lies there; `next` is where the tile after this one begins.
template <int R, int V, bool ADAM>
static inline __attribute__((always_inline)) void tile(
    Steps k, const float* a, long rows, long steps, const float* panel, float* c, long wide, int columns, const Adam* adam, long at, long next) {
    vec sum[R][V] = {};
    for (long t0 = 0; t0 < k.count; t0 += STRIDE) {
        if (ADAM && t0 < STRIDE * R) {
            long q = next + t0 / STRIDE * wide;
            for (int v = 0; v < V * WIDTH; v += LINE / (int)sizeof(float)) {
                __builtin_prefetch(adam->p + q + v);
                __builtin_prefetch(adam->mean + q + v);
                __builtin_prefetch(adam->square + q + v);
            }
        }
        for (long n = t0; n < (t0 + STRIDE < k.count ? t0 + STRIDE : k.count); n++) {
            long t = k.which ? k.which[n] : n;
            vec b[V];
            for (int v = 0; v < V; v++) b[v] = ((const vec*)panel)[t * V + v];
            for (int i = 0; i < R; i++) {
                float f = a[i * rows + t * steps];
                for (int v = 0; v < V; v++) sum[i][v] += f * b[v];
            }
        }
    }
    for (int i = 0; i < R; i++)
        for (int v = 0; v < V; v++) {
            int there = columns - v * WIDTH;
            if (ADAM) adam->step(at + i * wide + v * WIDTH, sum[i][v], there);
            else store(c + i * wide + v * WIDTH, sum[i][v], there);
        }
}

template <int V, bool ADAM>
static void columns_of(
    long m, const Steps* k, const float* a, long rows, long steps, const float* panel, float* c, long wide, int columns, const Adam* adam, long at) {
    long i = 0;
    for (; i + ROWS <= m; i += ROWS, k++) {
        long next = at + (i + 2 * ROWS <= m ? i + ROWS : i) * wide;
        if (k->which) tile<ROWS, V, ADAM>(*k, a + i * rows, rows, steps, panel, c + i * wide, wide, columns, adam, at + i * wide, next);
        else tile<ROWS, V, ADAM>({k->count, nullptr}, a + i * rows, rows, steps, panel, c + i * wide, wide, columns, adam, at + i * wide, next);
    }
    for (; i < m; i++)
        tile<1, V, ADAM>(*k, a + i * rows, rows, steps, panel, c + i * wide, wide, columns, adam, at + i * wide, at + i * wide);
}

#define INTERLEAVED(x, y, i) \
    __builtin_shufflevector(x, y, i, i + 16, i + 1, i + 17, i + 2, i + 18, i + 3, i + 19, i + 4, i + 20, i + 5, i + 21, i + 6, i + 22, i + 7, i + 23)

// A square of WIDTH rows of b, to be columns of the panel.
static inline void turn(const float* b, long across, float* panel, long wide) {
    vec from[WIDTH], to[WIDTH];
    for (int j = 0; j < WIDTH; j++) from[j] = load(b + j * across);
    for (int round = 1; round < WIDTH; round *= 2) {  // each interleaves the first half with the second
        for (int j = 0; j < WIDTH / 2; j++) {
            to[2 * j] = INTERLEAVED(from[j], from[j + WIDTH / 2], 0);
            to[2 * j + 1] = INTERLEAVED(from[j], from[j + WIDTH / 2], 8);
        }
        memcpy(from, to, sizeof(to));
    }
    for (int t = 0; t < WIDTH; t++) *(vec*)(panel + t * wide) = from[t];
}

// Columns of b (k rows, `down` and `across` apart), zeros after the last, as k rows of `wide` floats.
static void pack(const float* b, long down, long across, long k, int columns, int wide, float* panel) {
    if (across == 1 && columns == wide) {
        for (long t = 0; t < k; t++)
            for (int v = 0; v < wide; v += WIDTH) *(vec*)(panel + t * wide + v) = load(b + t * down + v);
        return;
    }
    for (int j = 0; j < wide; j += WIDTH) {
        long t = 0;
        if (down == 1 && j + WIDTH <= columns)
            for (; t + WIDTH <= k; t += WIDTH) turn(b + j * across + t, across, panel + t * wide + j, wide);
        for (; t < k; t++)
            for (int q = j; q < j + WIDTH; q++) panel[t * wide + q] = q < columns ? b[t * down + q * across] : 0;
    }
}

// The steps of every tile's rows, m / ROWS times and once for what is left; with `sparse` those where not all rows of a are zero.
static void steps_of(long m, long k, const float* a, long rows, long steps, bool sparse, Steps* found, int* which, unsigned* seen) {
    for (long i = 0; i < m; i += ROWS, found++, which += k) {
        *found = {k, nullptr};
        if (!sparse || i + ROWS > m) continue;
        memset(seen, 0, k * sizeof(unsigned));
        const unsigned* bits = (const unsigned*)(a + i * rows);
        if (steps == 1)
            for (int r = 0; r < ROWS; r++)
                for (long t = 0; t < k; t++) seen[t] |= bits[r * rows + t];
        else
            for (long t = 0; t < k; t++)
                for (int r = 0; r < ROWS; r++) seen[t] |= bits[r * rows + t * steps];
        long count = 0;
        for (long t = 0; t < k; t++) {
            which[count] = t;
            count += seen[t] != 0;
        }
        *found = {count, which};
    }
}

static char* room(size_t bytes) {  // kept from call to call
    static thread_local char* kept = nullptr;
    static thread_local size_t size = 0;
    if (bytes > size) {
        free(kept);
        size = (bytes + LINE - 1) / LINE * LINE;
        kept = (char*)aligned_alloc(LINE, size);
        if (!kept) abort();
    }
    return kept;
}

template <bool ADAM>
static void product_of(
    long m, long n, long k, const float* a, long rows, long steps, bool sparse, const float* b, long down, long across, float* c,
    const Adam* adam) {
    long tiles = m / ROWS + 1;
    float* panel = (float*)room(sizeof(float) * k * WIDEST * WIDTH + sizeof(Steps) * tiles + sizeof(int) * k * (tiles + 1));
    Steps* taken = (Steps*)(panel + k * WIDEST * WIDTH);
    int* which = (int*)(taken + tiles);
    steps_of(m, k, a, rows, steps, sparse, taken, which, (unsigned*)(which + k * tiles));
    for (long j = 0; j < n;) {
        long left = (n - j + WIDTH - 1) / WIDTH;
        int vectors = left == 4 || left == 2 ? 2 : left < WIDEST ? 1 : WIDEST;  // four are two and two
        int columns = n - j < vectors * WIDTH ? n - j : vectors * WIDTH;
        pack(b + j * across, down, across, k, columns, vectors * WIDTH, panel);
        if (vectors == 3) columns_of<3, ADAM>(m, taken, a, rows, steps, panel, c + j, n, columns, adam, j);
        else if (vectors == 2) columns_of<2, ADAM>(m, taken, a, rows, steps, panel, c + j, n, columns, adam, j);
        else columns_of<1, ADAM>(m, taken, a, rows, steps, panel, c + j, n, columns, adam, j);
        j += columns;
    }
}

// c (m, n) = a (m, k) b (k, n); elements of a row of a are `steps` apart, rows `rows`; of b `across` and `down`.
extern "C" void product(
    long m, long n, long k, int sparse, const float* a, long rows, long steps, const float* b, long down, long across, float* c) {
    product_of<false>(m, n, k, a, rows, steps, sparse, b, down, across, c, nullptr);
}

// One step of Adam on p (m, n), whose gradient is x' g: x (k, m) and g (k, n), both without gaps.
extern "C" void adam(
    long m, long n, long k, int sparse, const float* x, const float* g, float* p, float* mean, float* square, const float* rate,
    const float* spread, const float* learning_rate, const float* weight_decay, int decoupled, double beta1, double beta2, double eps) {
    Adam with{p, mean, square, *rate, *spread, 1, *weight_decay, float(1 - beta1), float(beta2), float(1 - beta2), float(eps)};
    if (decoupled) with.keep = 1 - *learning_rate * *weight_decay, with.decay = 0;
    product_of<true>(m, n, k, x, 1, m, sparse, g, n, 1, p, &with);
}
