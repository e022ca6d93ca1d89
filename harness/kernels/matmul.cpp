// Products of small matrices, and Adam's update as the end of one, for one thread: operators of torch. harness/products.py compiles
// them and says what for.
//
// All matrices are fp32; a and b are read by any two strides, so that they may be transposed. A tile of R rows by V vectors of the
// result stays in registers from the first multiplication to the last. b is packed, a panel of V vectors of columns at a time,
// into memory without gaps. Where a is sparse (images are), each tile leaves out what all its rows multiply by zero: it then has fewer
// rows, which share more zeros, and more vectors. Exists because the BLAS that torch brings reaches 85 to 90 % of an AMD core's
// peak at these sizes, this 93 %.

#include <cstdlib>
#include <cstring>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

constexpr int WIDTH = 16;     // floats of an AVX-512 register
constexpr int SUMS = 24;      // registers for a tile's sums, of 32; a tile of 2 rows takes 16 of them
constexpr int LINE = 64;      // bytes that memory comes in
constexpr double PAYS = 0.7;  // of all multiplications: sparse tiles take 1.3 times as long for each

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

// Where a product's operands lie, and its result: into c (m, n) without gaps, or, with `adam`, as the gradient of what it updates.
struct Product {
    long m, n, k;
    const float* a;
    long rows, steps;  // strides of a (m, k)
    const float* b;
    long down, across;  // strides of b (k, n)
    float* c;
    const Adam* adam;
};

struct Panel {  // columns `at` and on, as many as there are, of b: its k rows `wide` apart
    const float* b;
    long wide, at;
    int columns;
};

// Rows i .. i + R by a panel of V vectors; `next` is the row where the tile after this one begins.
template <int R, int V, bool ADAM>
static inline __attribute__((always_inline)) void tile(const Product& is, Steps k, const Panel& panel, long i, long next) {
    const float* a = is.a + i * is.rows;
    vec sum[R][V] = {};
    long piece = k.count / R + 1;  // multiplications between two looks at what to fetch next
    for (long t0 = 0, row = next; t0 < k.count; t0 += piece, row++) {
        for (int v = 0; ADAM && v < V * WIDTH; v += LINE / (int)sizeof(float)) {
            long q = row * is.n + panel.at + v;
            __builtin_prefetch(is.adam->p + q);
            __builtin_prefetch(is.adam->mean + q);
            __builtin_prefetch(is.adam->square + q);
        }
        for (long s = t0; s < (t0 + piece < k.count ? t0 + piece : k.count); s++) {
            long t = k.which ? k.which[s] : s;
            vec b[V];
            for (int v = 0; v < V; v++) b[v] = load(panel.b + t * panel.wide + v * WIDTH);
            for (int r = 0; r < R; r++) {
                float f = a[r * is.rows + t * is.steps];
                for (int v = 0; v < V; v++) sum[r][v] += f * b[v];
            }
        }
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) {
            long at = (i + r) * is.n + panel.at + v * WIDTH;
            if (ADAM) is.adam->step(at, sum[r][v], panel.columns - v * WIDTH);
            else store(is.c + at, sum[r][v], panel.columns - v * WIDTH);
        }
}

// All rows by a panel of `vectors`, V at most.
template <int R, int V, bool ADAM>
static void columns_of(const Product& is, const Steps* k, const Panel& panel, int vectors) {
    if constexpr (V > 1)
        if (vectors < V) return columns_of<R, V - 1, ADAM>(is, k, panel, vectors);
    long i = 0;
    for (; i + R <= is.m; i += R, k++) {
        long next = i + 2 * R <= is.m ? i + R : i;
        if (k->which) tile<R, V, ADAM>(is, *k, panel, i, next);
        else tile<R, V, ADAM>(is, {k->count, nullptr}, panel, i, next);
    }
    for (; i < is.m; i++) tile<1, V, ADAM>(is, *k, panel, i, i);
}

#define PAIR(i) i, i + 16
#define INTERLEAVED(x, y, i) \
    __builtin_shufflevector( \
        x, y, PAIR(i), PAIR(i + 1), PAIR(i + 2), PAIR(i + 3), PAIR(i + 4), PAIR(i + 5), PAIR(i + 6), PAIR(i + 7))

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

// The steps at which not all of the R rows from i on are zero: how many, and which.
template <int R>
static long steps_of(const Product& is, long i, int* which, unsigned* seen) {
    memset(seen, 0, is.k * sizeof(unsigned));
    const unsigned* bits = (const unsigned*)(is.a + i * is.rows);
    if (is.steps == 1)
        for (int r = 0; r < R; r++)
            for (long t = 0; t < is.k; t++) seen[t] |= bits[r * is.rows + t];
    else
        for (long t = 0; t < is.k; t++)
            for (int r = 0; r < R; r++) seen[t] |= bits[r * is.rows + t * is.steps];
    long count = 0;
    for (long t = 0; t < is.k; t++) {
        which[count] = t;
        count += seen[t] != 0;
    }
    return count;
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

// By tiles of R rows; with SPARSE they leave out zeros, unless so many steps are left of every eighth tile that this would not pay.
template <int R, int WIDEST, bool ADAM, bool SPARSE>
static bool taken(const Product& is) {
    long tiles = is.m / R + 1;
    float* packed = (float*)room(sizeof(float) * is.k * WIDEST * WIDTH + sizeof(Steps) * tiles + sizeof(int) * is.k * (tiles + 1));
    Steps* steps = (Steps*)(packed + is.k * WIDEST * WIDTH);
    int* which = (int*)(steps + tiles);
    unsigned* seen = (unsigned*)(which + is.k * tiles);
    if (SPARSE) {
        long left = 0, all = 0;
        for (long i = 0; i + R <= is.m; i += 8 * R, all += is.k) left += steps_of<R>(is, i, which, seen);
        if (left > PAYS * all) return false;
    }
    for (long n = 0; n < tiles; n++) {
        steps[n] = {is.k, nullptr};
        if (SPARSE && (n + 1) * R <= is.m) steps[n] = {steps_of<R>(is, n * R, which + n * is.k, seen), which + n * is.k};
    }
    for (long j = 0; j < is.n;) {
        long left = (is.n - j + WIDTH - 1) / WIDTH, panels = (left + WIDEST - 1) / WIDEST;
        int vectors = (left + panels - 1) / panels, wide = vectors * WIDTH, columns = is.n - j < wide ? is.n - j : wide;
        const float* b = is.b + j * is.across;
        bool as_it_is = SPARSE && is.across == 1 && columns == wide;  // its rows are read too few times for packing to pay
        if (!as_it_is) pack(b, is.down, is.across, is.k, columns, wide, packed);
        columns_of<R, WIDEST, ADAM>(is, steps, {as_it_is ? b : packed, as_it_is ? is.down : wide, j, columns}, vectors);
        j += columns;
    }
    return true;
}

using torch::stable::Tensor;

static float* floats(const Tensor& t) { return (float*)t.data_ptr(); }

static float* floats(const Tensor& t, long lane) { return floats(t) + lane * t.stride(0); }

// Lane by lane, a (S, m, k) times b (S, k, n), of any strides.
static Tensor matmul(const Tensor a, const Tensor b, bool sparse) {
    int64_t size[] = {a.size(0), a.size(1), b.size(2)}, stride[] = {size[1] * size[2], size[2], 1};
    AtenTensorHandle made;
    STD_TORCH_CHECK(!aoti_torch_empty_strided(3, size, stride, aoti_torch_dtype_float32(), aoti_torch_device_type_cpu(), 0, &made));
    Tensor c(made);
    for (long s = 0; s < size[0]; s++) {
        Product is{size[1],     size[2],     a.size(2),    floats(a, s), a.stride(1), a.stride(2), floats(b, s),
                   b.stride(1), b.stride(2), floats(c, s), nullptr};
        if (!sparse || !taken<2, 8, false, true>(is)) taken<8, SUMS / 8, false, false>(is);
    }
    return c;
}

// One step of Adam on p (S, m, n), each lane's gradient x' g: x (S, k, m) and g (S, k, n); p and the moments have no gaps. rate,
// spread, learning_rate and weight_decay: (S,).
static void adam(
    const Tensor x, const Tensor g, const Tensor p, const Tensor mean, const Tensor square, const Tensor rate, const Tensor spread,
    const Tensor learning_rate, const Tensor weight_decay, bool sparse, bool decoupled, double beta1, double beta2, double eps) {
    for (long s = 0; s < x.size(0); s++) {
        float decay = *floats(weight_decay, s);
        Adam with{floats(p, s), floats(mean, s),  floats(square, s), *floats(rate, s),  *floats(spread, s), 1,
                  decay,        float(1 - beta1), float(beta2),      float(1 - beta2), float(eps)};
        if (decoupled) with.keep = 1 - *floats(learning_rate, s) * decay, with.decay = 0;
        Product is{x.size(2),   g.size(2),   x.size(1), floats(x, s), x.stride(2), x.stride(1), floats(g, s),
                   g.stride(1), g.stride(2), nullptr,   &with};
        if (!sparse || !taken<4, SUMS / 4, true, true>(is)) taken<8, SUMS / 8, true, false>(is);
    }
}

static void materialize(const Tensor) {}

STABLE_TORCH_LIBRARY_IMPL(harness, CPU, m) {
    m.impl("matmul", TORCH_BOX(&matmul));
    m.impl("adam", TORCH_BOX(&adam));
    m.impl("materialize", TORCH_BOX(&materialize));
}
