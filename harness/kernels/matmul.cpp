// Operators of torch for one thread: products of small matrices, Adam's update applied to such a product, and convolutions
// (convolutions.cpp). matmul.py compiles this file and describes when it is used.
//
// All matrices are fp32; a and b are read by any two strides, so that they may be transposed. A tile of R rows by V vectors of the
// result stays in registers from the first multiplication to the last. b is packed into contiguous memory, a panel of V vectors of
// columns at a time. If a is sparse (images are), each tile skips the steps at which all its rows of a are zero; tiles then have
// fewer rows, which share more zeros, and more vectors. The reason for this file: the BLAS that torch brings reaches 85 to 90 % of
// an AMD core's peak at these sizes, this code 93 %.

#include <cstdlib>
#include <cstring>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

constexpr int WIDTH = 16;            // floats of an AVX-512 register
constexpr int SUMS = 24;             // registers for a tile's sums, of the 32 there are; a tile of 2 rows uses 16 of them
constexpr int LINE = 64;             // bytes of a cache line
constexpr double MAX_DENSITY = 0.7;  // share of steps up to which sparse tiles are faster: they take 1.3 times as long for each

typedef float vec __attribute__((vector_size(WIDTH * sizeof(float)), may_alias));
typedef float unaligned_vec __attribute__((vector_size(WIDTH * sizeof(float)), may_alias, aligned(sizeof(float))));

static inline vec load(const float* p, int floats = WIDTH) {
    if (floats >= WIDTH) return *(const unaligned_vec*)p;
    vec v = {};
    memcpy(&v, p, floats * sizeof(float));
    return v;
}

static inline void store(float* p, vec v, int floats) {
    if (floats >= WIDTH) *(unaligned_vec*)p = v;
    else memcpy(p, &v, floats * sizeof(float));
}

static inline vec root(vec v) {
    vec r;
    for (int i = 0; i < WIDTH; i++) r[i] = __builtin_sqrtf(v[i]);
    return r;
}

struct Adam {
    float *p, *mean, *square;
    float rate, spread;  // learning rate over 1 - beta1^t, and 1 / sqrt(1 - beta2^t): they correct the moments' bias
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

struct Steps {  // the steps along k that a tile takes: `count` of them, at the indices `which`, or 0 .. count - 1 if that is null
    long count;
    const int* which;
};

// A product of a (m, k) and b (k, n). It is written to c (m, n), contiguous, or, with `adam`, used as the gradient of that update.
struct Product {
    long m, n, k;
    const float* a;
    long rows, steps;  // strides of a (m, k)
    const float* b;
    long down, across;  // strides of b (k, n)
    float* c;
    const Adam* adam = nullptr;
    bool add = false;  // to what is in c
};

struct Panel {  // `columns` columns of b from column `at` on: k rows, `wide` floats apart
    const float* b;
    long wide, at;
    int columns;
};

// Compute R rows from row i on, times a panel of V vectors. `next` is the first row of the tile after this one.
template <int R, int V, bool ADAM>
static inline __attribute__((always_inline)) void tile(const Product& prod, Steps k, const Panel& panel, long i, long next) {
    const float* a = prod.a + i * prod.rows;
    vec sum[R][V] = {};
    long piece = k.count / R + 1;  // steps between two prefetches of a row that the next tile updates
    for (long t0 = 0, row = next; t0 < k.count; t0 += piece, row++) {
        for (int v = 0; ADAM && v < V * WIDTH; v += LINE / (int)sizeof(float)) {
            long q = row * prod.n + panel.at + v;
            __builtin_prefetch(prod.adam->p + q);
            __builtin_prefetch(prod.adam->mean + q);
            __builtin_prefetch(prod.adam->square + q);
        }
        for (long s = t0; s < (t0 + piece < k.count ? t0 + piece : k.count); s++) {
            long t = k.which ? k.which[s] : s;
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
            long at = (i + r) * prod.n + panel.at + v * WIDTH;
            if (ADAM) prod.adam->step(at, sum[r][v], panel.columns - v * WIDTH);
            else {
                int columns = panel.columns - v * WIDTH;
                store(prod.c + at, prod.add ? sum[r][v] + load(prod.c + at, columns) : sum[r][v], columns);
            }
        }
}

// Compute all rows times a panel of `vectors` vectors, at most V.
template <int R, int V, bool ADAM>
static void columns_of(const Product& prod, const Steps* k, const Panel& panel, int vectors) {
    if constexpr (V > 1)
        if (vectors < V) return columns_of<R, V - 1, ADAM>(prod, k, panel, vectors);
    long i = 0;
    for (; i + R <= prod.m; i += R, k++) {
        long next = i + 2 * R <= prod.m ? i + R : i;
        if (k->which) tile<R, V, ADAM>(prod, *k, panel, i, next);
        else tile<R, V, ADAM>(prod, {k->count, nullptr}, panel, i, next);
    }
    for (; i < prod.m; i++) tile<1, V, ADAM>(prod, *k, panel, i, i);
}

#define PAIR(i) i, i + 16
#define INTERLEAVED(x, y, i) \
    __builtin_shufflevector( \
        x, y, PAIR(i), PAIR(i + 1), PAIR(i + 2), PAIR(i + 3), PAIR(i + 4), PAIR(i + 5), PAIR(i + 6), PAIR(i + 7))

// Transpose a square of WIDTH by WIDTH floats of b into the panel.
static inline void transpose(const float* b, long across, float* panel, long wide) {
    vec from[WIDTH], to[WIDTH];
    for (int j = 0; j < WIDTH; j++) from[j] = load(b + j * across);
    for (int round = 1; round < WIDTH; round *= 2) {  // each round interleaves the first half with the second
        for (int j = 0; j < WIDTH / 2; j++) {
            to[2 * j] = INTERLEAVED(from[j], from[j + WIDTH / 2], 0);
            to[2 * j + 1] = INTERLEAVED(from[j], from[j + WIDTH / 2], 8);
        }
        memcpy(from, to, sizeof(to));
    }
    for (int t = 0; t < WIDTH; t++) *(vec*)(panel + t * wide) = from[t];
}

// Copy columns of b (k rows, strides `down` and `across`) into the panel as k rows of `wide` floats, zeros after the last column.
static void pack(const float* b, long down, long across, long k, int columns, int wide, float* panel) {
    if (across == 1 && columns == wide) {
        for (long t = 0; t < k; t++)
            for (int v = 0; v < wide; v += WIDTH) *(vec*)(panel + t * wide + v) = load(b + t * down + v);
        return;
    }
    for (int j = 0; j < wide; j += WIDTH) {
        long t = 0;
        if (down == 1 && j + WIDTH <= columns)
            for (; t + WIDTH <= k; t += WIDTH) transpose(b + j * across + t, across, panel + t * wide + j, wide);
        for (; t < k; t++)
            for (int q = j; q < j + WIDTH; q++) panel[t * wide + q] = q < columns ? b[t * down + q * across] : 0;
    }
}

// Find the steps at which not all of the R rows from i on are zero: write them to `which` and return their number.
template <int R>
static long steps_of(const Product& prod, long i, int* which, unsigned* seen) {
    memset(seen, 0, prod.k * sizeof(unsigned));
    const unsigned* bits = (const unsigned*)(prod.a + i * prod.rows);
    if (prod.steps == 1)
        for (int r = 0; r < R; r++)
            for (long t = 0; t < prod.k; t++) seen[t] |= bits[r * prod.rows + t];
    else
        for (long t = 0; t < prod.k; t++)
            for (int r = 0; r < R; r++) seen[t] |= bits[r * prod.rows + t * prod.steps];
    long count = 0;
    for (long t = 0; t < prod.k; t++) {
        which[count] = t;
        count += seen[t] != 0;
    }
    return count;
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

// Compute a product by tiles of R rows. With SPARSE they skip zeros; if every eighth tile shows that too few steps would be
// skipped, return false and compute nothing.
template <int R, int WIDEST, bool ADAM, bool SPARSE>
static bool multiply(const Product& prod) {
    long tiles = prod.m / R + 1;
    size_t bytes = sizeof(float) * prod.k * WIDEST * WIDTH + sizeof(Steps) * tiles + sizeof(int) * prod.k * (tiles + 1);
    float* packed = (float*)workspace(bytes);
    Steps* steps = (Steps*)(packed + prod.k * WIDEST * WIDTH);
    int* which = (int*)(steps + tiles);
    unsigned* seen = (unsigned*)(which + prod.k * tiles);
    if (SPARSE) {
        long left = 0, all = 0;
        for (long i = 0; i + R <= prod.m; i += 8 * R, all += prod.k) left += steps_of<R>(prod, i, which, seen);
        if (left > MAX_DENSITY * all) return false;
    }
    for (long n = 0; n < tiles; n++) {
        steps[n] = {prod.k, nullptr};
        if (SPARSE && (n + 1) * R <= prod.m) steps[n] = {steps_of<R>(prod, n * R, which + n * prod.k, seen), which + n * prod.k};
    }
    for (long j = 0; j < prod.n;) {
        long left = (prod.n - j + WIDTH - 1) / WIDTH, panels = (left + WIDEST - 1) / WIDEST;
        int vectors = (left + panels - 1) / panels, wide = vectors * WIDTH, columns = prod.n - j < wide ? prod.n - j : wide;
        const float* b = prod.b + j * prod.across;
        // Sparse tiles, and the few rows of a convolution's weights, read rows of b too few times for packing to be worthwhile.
        bool unpacked = (SPARSE || prod.add) && prod.across == 1 && columns == wide;
        if (!unpacked) pack(b, prod.down, prod.across, prod.k, columns, wide, packed);
        columns_of<R, WIDEST, ADAM>(prod, steps, {unpacked ? b : packed, unpacked ? prod.down : wide, j, columns}, vectors);
        j += columns;
    }
    return true;
}

using torch::stable::Tensor;

static float* floats(const Tensor& t) { return (float*)t.data_ptr(); }

static float* contiguous(const Tensor& t) {
    STD_TORCH_CHECK(t.is_contiguous());
    return floats(t);
}

static float* floats(const Tensor& t, long lane) { return floats(t) + lane * t.stride(0); }

// Return a (S, m, k) times b (S, k, n), lane by lane; both may have any strides.
static Tensor matmul(const Tensor a, const Tensor b, bool sparse) {
    int64_t size[] = {a.size(0), a.size(1), b.size(2)}, stride[] = {size[1] * size[2], size[2], 1};
    AtenTensorHandle made;
    STD_TORCH_CHECK(!aoti_torch_empty_strided(3, size, stride, aoti_torch_dtype_float32(), aoti_torch_device_type_cpu(), 0, &made));
    Tensor c(made);
    for (long s = 0; s < size[0]; s++) {
        Product prod{size[1],     size[2],     a.size(2),    floats(a, s), a.stride(1), a.stride(2), floats(b, s),
                     b.stride(1), b.stride(2), floats(c, s), nullptr};
        if (!sparse || !multiply<2, 8, false, true>(prod)) multiply<8, SUMS / 8, false, false>(prod);
    }
    return c;
}

// Take one step of Adam on p (S, m, n) in place. Each lane's gradient is x' g with x (S, k, m) and g (S, k, n); p and the moments
// are contiguous. rate, spread, learning_rate and weight_decay: (S,).
static void adam(
    const Tensor x, const Tensor g, const Tensor p, const Tensor mean, const Tensor square, const Tensor rate, const Tensor spread,
    const Tensor learning_rate, const Tensor weight_decay, bool sparse, bool decoupled, double beta1, double beta2, double eps) {
    for (long s = 0; s < x.size(0); s++) {
        float decay = *floats(weight_decay, s);
        Adam update{floats(p, s), floats(mean, s),  floats(square, s), *floats(rate, s),  *floats(spread, s), 1,
                    decay,        float(1 - beta1), float(beta2),      float(1 - beta2), float(eps)};
        if (decoupled) update.keep = 1 - *floats(learning_rate, s) * decay, update.decay = 0;
        Product prod{x.size(2),   g.size(2),   x.size(1), floats(x, s), x.stride(2), x.stride(1), floats(g, s),
                     g.stride(1), g.stride(2), nullptr,   &update};
        if (!sparse || !multiply<4, SUMS / 4, true, true>(prod)) multiply<8, SUMS / 8, true, false>(prod);
    }
}

#include "convolutions.cpp"

static void materialize(const Tensor) {}

STABLE_TORCH_LIBRARY_IMPL(harness, CPU, m) {
    m.impl("matmul", TORCH_BOX(&matmul));
    m.impl("convolve", TORCH_BOX(&convolve));
    m.impl("convolve_weight", TORCH_BOX(&convolve_weight));
    m.impl("convolve_image", TORCH_BOX(&convolve_image));
    m.impl("adam", TORCH_BOX(&adam));
    m.impl("materialize", TORCH_BOX(&materialize));
}
