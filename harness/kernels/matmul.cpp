// Operators of torch for one thread: products of small matrices, Adam's update applied to such a product, and convolutions as
// products of patches. matmul.py compiles this file and describes when it is used.
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

// Types of vectors at any address, in structs, because a template argument loses the attributes of its type.
struct Vector { typedef unaligned_vec type; };
struct Quad { typedef float type __attribute__((vector_size(4 * sizeof(float)), may_alias, aligned(sizeof(float)))); };
struct Float { typedef float type; };

// Call f<V>(i) for the floats from i on that V::type has, until `count` floats are done.
template <class F>
static inline void by_vectors(long count, F f) {
    long i = 0;
    for (; i + WIDTH <= count; i += WIDTH) f.template operator()<Vector>(i);
    for (; i + 4 <= count; i += 4) f.template operator()<Quad>(i);
    for (; i < count; i++) f.template operator()<Float>(i);
}

constexpr long PATCHES = 48 * 1024;  // floats of a block of patches or images, which stays in the second cache
constexpr long FIRST = 6 * 1024;     // floats of a block of images that stays in the first cache

// A convolution's geometry: images (height, width, channels), kernel, stride, zeros in front, and positions (down, across) of the
// kernel, each with a patch of `size` values. A block of patches lies in a matrix whose rows are `wide` apart.
struct Window {
    long height, width, channels, kernel[2], stride[2], before[2], down, across;
    long size = kernel[0] * kernel[1] * channels;
    long wide = (size + WIDTH - 1) / WIDTH * WIDTH + WIDTH;
    long block = PATCHES / wide / 8 * 8 + 8;  // rows of a tile at least

    // Call f(image values, patch values, count) for each run of values of the patches at positions first .. last - 1 that are
    // neighbours in the images, and zero(patch values, count) for those beyond the border.
    template <class F, class Z>
    void runs(long first, long last, float* images, float* patches, F f, Z zero) const {
        long column = first % across, line = first / across % down;
        float* image = images + first / (across * down) * height * width * channels;
        for (long p = first; p < last; p++, patches += wide) {
            long x = column * stride[1] - before[1], y = line * stride[0] - before[0];
            long left = x < 0 ? -x : 0, right = x + kernel[1] > width ? width - x : kernel[1];
            float* to = patches;
            bool inside = !left && right == kernel[1] && y >= 0 && y + kernel[0] <= height;
            if (inside && kernel[1] * channels == 4) {  // grey images: the compiler makes one vector of it
                for (long i = y; i < y + kernel[0]; i++, to += 4) f(image + (i * width + x) * channels, to, 4);
            } else for (long i = y; i < y + kernel[0]; i++, to += kernel[1] * channels) {
                if (i < 0 || i >= height || left >= right) {
                    zero(to, kernel[1] * channels);
                    continue;
                }
                if (left) zero(to, left * channels);
                f(image + (i * width + x + left) * channels, to + left * channels, (right - left) * channels);
                if (right < kernel[1]) zero(to + right * channels, (kernel[1] - right) * channels);
            }
            if (++column < across) continue;
            column = 0;
            if (++line < down) continue;
            line = 0;
            image += height * width * channels;
        }
    }

    // Copy the patches at positions first .. last - 1 out of the images.
    void gather(long first, long last, float* images, float* patches) const {
        auto copy = [](float* image, float* patch, long count) {
            by_vectors(count, [=]<class V>(long i) { *(typename V::type*)(patch + i) = *(typename V::type*)(image + i); });
        };
        auto zero = [](float* patch, long count) { memset(patch, 0, count * sizeof(float)); };
        runs(first, last, images, patches, copy, zero);
    }

    // Add the patches at positions first .. last - 1 to the images.
    void scatter(long first, long last, float* images, float* patches) const {
        auto add = [](float* image, float* patch, long count) {
            by_vectors(count, [=]<class V>(long i) { *(typename V::type*)(image + i) += *(typename V::type*)(patch + i); });
        };
        runs(first, last, images, patches, add, [](float*, long) {});
    }
};

static Tensor fresh(const int64_t* size, int dimensions, bool zero = false) {
    int64_t stride[4], count = 1;
    for (int d = dimensions; d-- > 0; count *= size[d]) stride[d] = count;
    AtenTensorHandle made;
    STD_TORCH_CHECK(!aoti_torch_empty_strided(
        dimensions, size, stride, aoti_torch_dtype_float32(), aoti_torch_device_type_cpu(), 0, &made));
    Tensor t(made);
    if (zero) memset(floats(t), 0, count * sizeof(float));
    return t;
}

#define GEOMETRY int64_t kh, int64_t kw, int64_t sh, int64_t sw, int64_t ph, int64_t pw

// Steps of a sum: `count` neighbouring values of an image from `image` on, times as many rows of a weight from `row` on.
struct Run { long image, row, count; };

// A weight as panels of `vectors` vectors of its columns each, one after the other, in which every tap of the kernel has its rows.
struct Panels {
    long rows, columns, all = (columns + WIDTH - 1) / WIDTH, count = (all + SUMS / 8 - 1) / (SUMS / 8);
    int vectors = (all + count - 1) / count, wide = vectors * WIDTH;
    float* packed = nullptr;

    // Pack `taps` matrices, neighbours in memory, each of `rows` / taps rows and `columns` columns with these strides.
    void pack_taps(const float* w, long taps, long down, long across) {
        packed = (float*)workspace<2>(count * rows * wide * sizeof(float));
        for (long j = 0; j < count; j++)
            for (long tap = 0, each = rows / taps; tap < taps; tap++)
                pack(w + tap + j * wide * across, down, across, each, left(j), wide, packed + (j * rows + tap * each) * wide);
    }

    int left(long panel) const { return columns - panel * wide < wide ? columns - panel * wide : wide; }
};

// Compute the same pixel of R images, `apart` values from each other, for one panel of a weight.
template <int R, int V>
static inline __attribute__((always_inline)) void pixel(
    const float* images, long apart, const Run* runs, int count, const float* panel, float* out, long out_apart, int columns) {
    vec sum[R][V] = {};
    for (const Run* run = runs; run < runs + count; run++) {
        const float *image = images + run->image, *row = panel + run->row * V * WIDTH;
        for (long t = 0; t < run->count; t++, row += V * WIDTH) {
            vec w[V];
            for (int v = 0; v < V; v++) w[v] = *(const vec*)(row + v * WIDTH);
            for (int r = 0; r < R; r++) {
                float f = image[r * apart + t];
                for (int v = 0; v < V; v++) sum[r][v] += f * w[v];
            }
        }
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V && v * WIDTH < columns; v++) store(out + r * out_apart + v * WIDTH, sum[r][v], columns - v * WIDTH);
}

template <int V>
static void pixels_of(
    const float* images, long apart, long n, const Run* runs, int count, const float* panel, float* out, long out_apart, int columns,
    int vectors) {
    if constexpr (V > 1)
        if (vectors < V) return pixels_of<V - 1>(images, apart, n, runs, count, panel, out, out_apart, columns, vectors);
    long b = 0;
    for (; b + 8 <= n; b += 8) pixel<8, V>(images + b * apart, apart, runs, count, panel, out + b * out_apart, out_apart, columns);
    for (; b < n; b++) pixel<1, V>(images + b * apart, apart, runs, count, panel, out + b * out_apart, out_apart, columns);
}

// Compute out (batch, pixels, columns of the weight), each pixel from the runs that find(pixel, runs) writes and counts. A tile has the
// same pixel of several images, so that all its rows leave out the same zeros beyond the border.
template <class F>
static void convolve_directly(const float* images, long apart, long batch, const Panels& w, long pixels, long most, float* out, F find) {
    Run* runs = (Run*)workspace<3>(most * sizeof(Run));
    long block = PATCHES / apart / 8 * 8 + 8, out_apart = pixels * w.columns;
    for (long b = 0, n; b < batch; b += n) {
        n = batch - b < block ? batch - b : block;
        for (long p = 0; p < pixels; p++) {
            int count = find(p, runs);
            for (long j = 0; j < w.count; j++)
                pixels_of<SUMS / 8>(
                    images + b * apart, apart, n, runs, count, w.packed + j * w.rows * w.wide,
                    out + b * out_apart + p * w.columns + j * w.wide, out_apart, w.left(j), w.vectors);
        }
    }
}

// Return the convolution of x (B, H, W, C) with w (O, C, kh, kw), (B, down, across, O).
static Tensor convolve(const Tensor x, const Tensor w, int64_t down, int64_t across, GEOMETRY) {
    long height = x.size(1), width = x.size(2), channels = x.size(3), taps = kh * kw;
    int64_t size[] = {x.size(0), down, across, w.size(0)};
    Tensor out = fresh(size, 4);
    Panels panels{taps * channels, w.size(0)};
    panels.pack_taps(contiguous(w), taps, taps, channels * taps);
    auto find = [=](long p, Run* runs) {
        long y = p / across * sh - ph, x = p % across * sw - pw, left = x < 0 ? -x : 0, right = x + kw > width ? width - x : kw;
        int n = 0;
        for (long i = y < 0 ? -y : 0; i < kh && y + i < height; i++)
            if (left < right)
                runs[n++] = {((y + i) * width + x + left) * channels, (i * kw + left) * channels, (right - left) * channels};
        return n;
    };
    convolve_directly(contiguous(x), height * width * channels, size[0], panels, down * across, kh, floats(out), find);
    return out;
}

// Write w (rows, channels, taps) as (rows, taps, channels).
static void channels_last(const float* w, long rows, long channels, long taps, float* to) {
    for (long o = 0; o < rows; o++, w += channels * taps, to += channels * taps)
        for (long t = 0; t < taps; t++)
            for (long c = 0; c < channels; c++) to[t * channels + c] = w[c * taps + t];
}

// Return the images (B, height, width, C) whose pixels sum up what each of g (B, down, across, O) gives them by w (O, C, kh, kw).
static Tensor convolve_image(const Tensor g, const Tensor w, int64_t height, int64_t width, GEOMETRY) {
    long channels = w.size(1), outputs = w.size(0), down = g.size(1), across = g.size(2), taps = kh * kw;
    int64_t size[] = {g.size(0), height, width, channels};
    Tensor out = fresh(size, 4, channels < WIDTH);
    if (channels >= WIDTH) {
        Panels panels{taps * outputs, channels};
        panels.pack_taps(contiguous(w), taps, channels * taps, taps);
        auto find = [=](long p, Run* runs) {
            int n = 0;
            for (long i = (p / width + ph) % sh; i < kh; i += sh)
                for (long j = (p % width + pw) % sw; j < kw; j += sw) {
                    long y = (p / width + ph - i) / sh, x = (p % width + pw - j) / sw;
                    if (i <= p / width + ph && y < down && j <= p % width + pw && x < across)
                        runs[n++] = {(y * across + x) * outputs, (i * kw + j) * outputs, outputs};
                }
            return n;
        };
        convolve_directly(contiguous(g), down * across * outputs, size[0], panels, height * width, taps, floats(out), find);
        return out;
    }
    Window win{height, width, channels, {kh, kw}, {sh, sw}, {ph, pw}, down, across};
    win.wide = win.size;
    float *patches = (float*)workspace<1>(win.block * win.wide * sizeof(float)), *matrix = (float*)workspace<2>(w.numel() * sizeof(float));
    channels_last(contiguous(w), outputs, channels, taps, matrix);
    for (long p = 0, all = g.size(0) * down * across, n; p < all; p += n) {
        n = all - p < win.block ? all - p : win.block;
        multiply<8, SUMS / 8, false, false>(
            {n, win.size, outputs, contiguous(g) + p * outputs, outputs, 1, matrix, win.size, 1, patches});
        win.scatter(p, p + n, floats(out), patches);
    }
    return out;
}

// Add to sums (C, O) of one tap R rows of channels times V vectors of outputs, of `images` images.
template <int R, int V>
static inline __attribute__((always_inline)) void tap(
    const float* x, const float* g, long images, long lines, long columns, const long* x_apart, const long* g_apart, float* sums, long wide) {
    vec sum[R][V];
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) sum[r][v] = load(sums + r * wide + v * WIDTH);
    for (long b = 0; b < images; b++)
        for (long y = 0; y < lines; y++) {
            const float *from = x + b * x_apart[0] + y * x_apart[1], *to = g + b * g_apart[0] + y * g_apart[1];
            for (long i = 0; i < columns; i++, from += x_apart[2], to += g_apart[2]) {
                vec out[V];
                for (int v = 0; v < V; v++) out[v] = load(to + v * WIDTH);
                for (int r = 0; r < R; r++)
                    for (int v = 0; v < V; v++) sum[r][v] += from[r] * out[v];
            }
        }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) store(sums + r * wide + v * WIDTH, sum[r][v], WIDTH);
}

// Return the sums of outer products of g (B, down, across, O) and the patches of x (B, H, W, C), (O, C, kh, kw).
static Tensor convolve_weight(const Tensor x, const Tensor g, GEOMETRY) {
    long batch = x.size(0), height = x.size(1), width = x.size(2), channels = x.size(3), taps = kh * kw;
    long down = g.size(1), across = g.size(2), outputs = g.size(3);
    int64_t size[] = {outputs, channels, kh, kw};
    Tensor out = fresh(size, 4);
    float* sums = (float*)workspace<2>(out.numel() * sizeof(float));
    memset(sums, 0, out.numel() * sizeof(float));
    if (channels % 8 == 0 && outputs % WIDTH == 0) {
        long x_apart[] = {height * width * channels, sh * width * channels, sw * channels};
        long g_apart[] = {down * across * outputs, across * outputs, outputs};
        long block = FIRST / (x_apart[0] + g_apart[0]) + 1;
        for (long b = 0, n; b < batch; b += n) {
            n = batch - b < block ? batch - b : block;
            for (long t = 0; t < taps; t++) {
                long i = t / kw, j = t % kw, y = i < ph ? (ph - i + sh - 1) / sh : 0, z = j < pw ? (pw - j + sw - 1) / sw : 0;
                long lines = i < height + ph ? (height - 1 + ph - i) / sh + 1 : 0, columns = j < width + pw ? (width - 1 + pw - j) / sw + 1 : 0;
                lines = (lines < down ? lines : down) - y, columns = (columns < across ? columns : across) - z;
                const float* from = contiguous(x) + b * x_apart[0] + ((y * sh + i - ph) * width + z * sw + j - pw) * channels;
                const float* to = contiguous(g) + b * g_apart[0] + y * g_apart[1] + z * g_apart[2];
                for (long c = 0; c < channels; c += 8)
                    for (long o = 0; o < outputs;) {
                        float* at = sums + (t * channels + c) * outputs + o;
                        if (outputs - o == WIDTH) tap<8, 1>(from + c, to + o, n, lines, columns, x_apart, g_apart, at, outputs), o += WIDTH;
                        else tap<8, 2>(from + c, to + o, n, lines, columns, x_apart, g_apart, at, outputs), o += 2 * WIDTH;
                    }
            }
        }
    } else {
        Window win{height, width, channels, {kh, kw}, {sh, sw}, {ph, pw}, down, across};
        float* patches = (float*)workspace<1>((win.block * win.wide + SUMS * WIDTH) * sizeof(float));
        for (long p = 0, all = batch * down * across, n; p < all; p += n) {
            n = all - p < win.block ? all - p : win.block;
            win.gather(p, p + n, contiguous(x), patches);
            multiply<8, SUMS / 8, false, false>(
                {win.size, outputs, n, patches, 1, win.wide, contiguous(g) + p * outputs, outputs, 1, sums, nullptr, true});
        }
    }
    for (long o = 0; o < outputs; o++)
        for (long c = 0; c < channels; c++)
            for (long t = 0; t < taps; t++) floats(out)[(o * channels + c) * taps + t] = sums[(t * channels + c) * outputs + o];
    return out;
}

static void materialize(const Tensor) {}

STABLE_TORCH_LIBRARY_IMPL(harness, CPU, m) {
    m.impl("matmul", TORCH_BOX(&matmul));
    m.impl("convolve", TORCH_BOX(&convolve));
    m.impl("convolve_weight", TORCH_BOX(&convolve_weight));
    m.impl("convolve_image", TORCH_BOX(&convolve_image));
    m.impl("adam", TORCH_BOX(&adam));
    m.impl("materialize", TORCH_BOX(&materialize));
}
