// Convolutions for one thread and their gradients. Images have the channels last, weights are torch's (O, C, kh, kw).
//
// A convolution and the gradient of its images compute tiles of one pixel of several images, straight from the images: all rows of such a
// tile leave out the same zeros beyond the border, 18 % of the multiplications of a 3 x 3 kernel on 7 x 7 pixels. The gradient of a
// weight does so tap by tap. Where channels are few, vectors would be mostly empty: then patches are gathered into a matrix, or
// added up from one, a block at a time.

#pragma once
#include "products.h"

constexpr int ROWS = DENSE.rows, VECTORS = DENSE.vectors;  // of a tile: images, or channels, by vectors of channels

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

// Images (batch, height, width, channels), and outputs of them at the positions (down, across) of a kernel, with zeros in front.
struct Convolution {
    long batch, height, width, channels, down, across, outputs, kernel[2], stride[2], before[2];
    long taps() const { return kernel[0] * kernel[1]; }
    long pixels() const { return height * width; }
    long positions() const { return down * across; }
};

// The patches of images at the positions of a kernel, `size` values each. A block of them lies in a matrix whose rows are `wide`
// apart.
struct Window : Convolution {
    long size = taps() * channels;
    long wide = (size + WIDTH - 1) / WIDTH * WIDTH + WIDTH;
    long block = PATCHES / wide / ROWS * ROWS + ROWS;  // rows of a tile at least

    // Call f(image values, patch values, count) for each run of values of the patches at positions first .. last - 1 that are
    // neighbours in the images, and zero(patch values, count) for those beyond the border.
    template <class I, class F, class Z>
    void runs(long first, long last, I* images, float* patches, F f, Z zero) const {
        long column = first % across, line = first / across % down;
        I* image = images + first / (across * down) * height * width * channels;
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
    void gather(long first, long last, const float* images, float* patches) const {
        auto copy = [](const float* image, float* patch, long count) {
            by_vectors(count, [=]<class V>(long i) { *(typename V::type*)(patch + i) = *(const typename V::type*)(image + i); });
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

// Steps of a sum: `count` neighbouring values of an image from `image` on, times as many rows of a weight from `row` on.
struct Run { long image, row, count; };

// A weight as panels of `vectors` vectors of its columns each, one after the other, in which every tap of the kernel has its rows.
struct Panels {
    long rows, columns, all = (columns + WIDTH - 1) / WIDTH, count = (all + VECTORS - 1) / VECTORS;
    int vectors = (all + count - 1) / count, wide = vectors * WIDTH;
    float* packed = nullptr;

    // Pack `taps` matrices, neighbours in memory, each of `rows` / taps rows and `columns` columns with these strides.
    void pack_taps(const float* w, long taps, long down, long across) {
        packed = (float*)workspace<2>(count * rows * wide * sizeof(float));
        for (long j = 0; j < count; j++)
            for (long tap = 0, each = rows / taps; tap < taps; tap++) {
                float* to = packed + (j * rows + tap * each) * wide;
                pack(w + tap + j * wide * across, down, across, each, left(j), wide, to);
            }
    }

    int left(long panel) const { return columns - panel * wide < wide ? columns - panel * wide : wide; }
};

// Compute one pixel of R images, `apart` floats from each other, as the sum of runs of them times a panel of a weight.
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
        for (int v = 0; v < V && v * WIDTH < columns; v++)
            store(out + r * out_apart + v * WIDTH, sum[r][v], columns - v * WIDTH);
}

// The same for n images, with panels of `vectors` vectors, at most V.
template <int V>
static void pixel_of_all(
    const float* images, long apart, long n, const Run* runs, int count, const float* panel, float* out, long out_apart,
    int columns, int vectors) {
    if constexpr (V > 1)
        if (vectors < V) return pixel_of_all<V - 1>(images, apart, n, runs, count, panel, out, out_apart, columns, vectors);
    long b = 0;
    for (; b + ROWS <= n; b += ROWS)
        pixel<ROWS, V>(images + b * apart, apart, runs, count, panel, out + b * out_apart, out_apart, columns);
    for (; b < n; b++) pixel<1, V>(images + b * apart, apart, runs, count, panel, out + b * out_apart, out_apart, columns);
}

// Compute out (B, pixels, columns of the weight) from images `apart` floats apart, each pixel from the runs that find(pixel, runs)
// writes and counts. The rows of a tile are the same pixel of several images, so that all of them leave out the same zeros beyond the
// border.
template <class F>
static void each_pixel(
    const float* images, long batch, long apart, const Panels& w, long pixels, long most_runs, float* out, F find) {
    Run* runs = (Run*)workspace<3>(most_runs * sizeof(Run));
    long out_apart = pixels * w.columns;
    for (long b = 0, n, block = PATCHES / apart / ROWS * ROWS + ROWS; b < batch; b += n) {
        n = batch - b < block ? batch - b : block;
        for (long p = 0; p < pixels; p++) {
            int count = find(p, runs);
            for (long j = 0; j < w.count; j++) {
                const float* panel = w.packed + j * w.rows * w.wide;
                float* to = out + b * out_apart + p * w.columns + j * w.wide;
                pixel_of_all<VECTORS>(images + b * apart, apart, n, runs, count, panel, to, out_apart, w.left(j), w.vectors);
            }
        }
    }
}

// Compute out (B, down, across, O), the convolution of x (B, H, W, C) with w (O, C, kh, kw).
static void convolve(const Convolution& of, const float* x, const float* w, float* out) {
    Panels panels{of.taps() * of.channels, of.outputs};
    panels.pack_taps(w, of.taps(), of.taps(), of.channels * of.taps());
    auto find = [&](long p, Run* runs) {
        long y = p / of.across * of.stride[0] - of.before[0], x = p % of.across * of.stride[1] - of.before[1];
        long left = x < 0 ? -x : 0, right = x + of.kernel[1] > of.width ? of.width - x : of.kernel[1];
        int n = 0;
        for (long i = y < 0 ? -y : 0; i < of.kernel[0] && y + i < of.height && left < right; i++)
            runs[n++] = {((y + i) * of.width + x + left) * of.channels, (i * of.kernel[1] + left) * of.channels,
                         (right - left) * of.channels};
        return n;
    };
    each_pixel(x, of.batch, of.pixels() * of.channels, panels, of.positions(), of.kernel[0], out, find);
}

// Write w (rows, channels, taps) as (rows, taps, channels).
static void channels_last(const float* w, long rows, long channels, long taps, float* to) {
    for (long o = 0; o < rows; o++, w += channels * taps, to += channels * taps)
        for (long t = 0; t < taps; t++)
            for (long c = 0; c < channels; c++) to[t * channels + c] = w[c * taps + t];
}

// Compute out (B, H, W, C), whose pixels sum up what each of g (B, down, across, O) gives them by w (O, C, kh, kw).
static void convolve_image(const Convolution& of, const float* g, const float* w, float* out) {
    if (of.channels >= WIDTH) {
        Panels panels{of.taps() * of.outputs, of.channels};
        panels.pack_taps(w, of.taps(), of.channels * of.taps(), of.taps());
        auto find = [&](long p, Run* runs) {
            long down = p / of.width + of.before[0], across = p % of.width + of.before[1];
            int n = 0;
            for (long i = down % of.stride[0]; i < of.kernel[0] && i <= down; i += of.stride[0])
                for (long j = across % of.stride[1]; j < of.kernel[1] && j <= across; j += of.stride[1]) {
                    long y = (down - i) / of.stride[0], x = (across - j) / of.stride[1];
                    if (y < of.down && x < of.across)
                        runs[n++] = {(y * of.across + x) * of.outputs, (i * of.kernel[1] + j) * of.outputs, of.outputs};
                }
            return n;
        };
        return each_pixel(g, of.batch, of.positions() * of.outputs, panels, of.pixels(), of.taps(), out, find);
    }
    Window win{of};
    win.wide = win.size;
    float* patches = (float*)workspace<1>(win.block * win.wide * sizeof(float));
    float* matrix = (float*)workspace<2>(of.outputs * win.size * sizeof(float));
    channels_last(w, of.outputs, of.channels, of.taps(), matrix);
    memset(out, 0, of.batch * of.pixels() * of.channels * sizeof(float));
    for (long p = 0, all = of.batch * of.positions(), n; p < all; p += n) {
        n = all - p < win.block ? all - p : win.block;
        product({n, win.size, of.outputs, g + p * of.outputs, of.outputs, 1, matrix, win.size, 1, patches}, false);
        win.scatter(p, p + n, out, patches);
    }
}

// The pixels at which one tap of a kernel meets images, and what they meet: distances from one image, line and pixel to the next.
struct Meeting {
    long images, lines, pixels, of_x[3], of_g[3];

    // Add to the sums, `wide` apart, the products of R channels of x and V vectors of outputs of g.
    template <int R, int V>
    void add(const float* x, const float* g, float* sums, long wide) const {
        vec sum[R][V];
        for (int r = 0; r < R; r++)
            for (int v = 0; v < V; v++) sum[r][v] = load(sums + r * wide + v * WIDTH);
        for (long b = 0; b < images; b++)
            for (long y = 0; y < lines; y++) {
                const float *from = x + b * of_x[0] + y * of_x[1], *to = g + b * of_g[0] + y * of_g[1];
                for (long i = 0; i < pixels; i++, from += of_x[2], to += of_g[2]) {
                    vec out[V];
                    for (int v = 0; v < V; v++) out[v] = load(to + v * WIDTH);
                    for (int r = 0; r < R; r++)
                        for (int v = 0; v < V; v++) sum[r][v] += from[r] * out[v];
                }
            }
        for (int r = 0; r < R; r++)
            for (int v = 0; v < V; v++) store(sums + r * wide + v * WIDTH, sum[r][v], WIDTH);
    }

    // The same for all channels.
    template <int R, int V>
    void add_all(long channels, const float* x, const float* g, float* sums, long wide) const {
        long c = 0;
        for (; c + R <= channels; c += R) add<R, V>(x + c, g, sums + c * wide, wide);
        if constexpr (R > 1)
            if (c < channels) add_all<R / 2, V>(channels - c, x + c, g, sums + c * wide, wide);
    }
};

// Return the first position at which a tap is not in front of an image, and the number of those at which it meets a pixel.
static long first_of(long tap, long stride, long before) { return tap < before ? (before - tap + stride - 1) / stride : 0; }
static long count_of(long tap, long stride, long before, long size, long positions) {
    long end = tap < size + before ? (size - 1 + before - tap) / stride + 1 : 0;
    return (end < positions ? end : positions) - first_of(tap, stride, before);
}

// Add tap by tap to sums (taps, C, wide) the outer products of the images x and of g, whose vectors are whole.
static void add_taps(const Convolution& of, long images, const float* x, const float* g, float* sums, long wide) {
    long row = of.width * of.channels, vectors = wide / WIDTH;
    for (long t = 0; t < of.taps(); t++) {
        long i = t / of.kernel[1], j = t % of.kernel[1];
        long y = first_of(i, of.stride[0], of.before[0]), z = first_of(j, of.stride[1], of.before[1]);
        Meeting met{images,
                    count_of(i, of.stride[0], of.before[0], of.height, of.down),
                    count_of(j, of.stride[1], of.before[1], of.width, of.across),
                    {of.pixels() * of.channels, of.stride[0] * row, of.stride[1] * of.channels},
                    {of.positions() * wide, of.across * wide, wide}};
        if (met.lines <= 0 || met.pixels <= 0) continue;
        const float* from = x + (y * of.stride[0] + i - of.before[0]) * row + (z * of.stride[1] + j - of.before[1]) * of.channels;
        for (long o = 0, v; o < vectors; o += v) {
            const float* to = g + (y * of.across + z) * wide + o * WIDTH;
            float* at = sums + t * of.channels * wide + o * WIDTH;
            v = vectors - o == 4 ? 2 : vectors - o < 3 ? vectors - o : 3;
            if (v == 1) met.add_all<2 * ROWS, 1>(of.channels, from, to, at, wide);
            else if (v == 2) met.add_all<ROWS, 2>(of.channels, from, to, at, wide);
            else met.add_all<ROWS, 3>(of.channels, from, to, at, wide);
        }
    }
}

// Compute out (O, C, kh, kw), the sums of outer products of g (B, down, across, O) and the patches of x (B, H, W, C).
static void convolve_weight(const Convolution& of, const float* x, const float* g, float* out) {
    bool direct = of.channels >= 8;  // the rows of a tile; fewer channels are gathered as patches, whose values are columns
    long values = of.taps() * of.channels, vectors = (of.outputs + WIDTH - 1) / WIDTH;
    long wide = direct ? vectors * WIDTH : values, rows = direct ? values : of.outputs;
    float* sums = (float*)workspace<2>(rows * wide * sizeof(float));
    memset(sums, 0, rows * wide * sizeof(float));
    if (direct) {
        long of_x = of.pixels() * of.channels, of_g = of.positions() * of.outputs, block = FIRST / (of_x + of_g) + 1;
        float* padded = (float*)workspace<1>(block * of.positions() * wide * sizeof(float));
        for (long b = 0, n; b < of.batch; b += n) {
            n = of.batch - b < block ? of.batch - b : block;
            const float* gradients = g + b * of_g;
            if (wide > of.outputs) {
                for (long p = 0; p < n * of.positions(); p++)
                    for (long o = 0; o < wide; o += WIDTH)
                        *(vec*)(padded + p * wide + o) = load(gradients + p * of.outputs + o, of.outputs - o);
                gradients = padded;
            }
            add_taps(of, n, x + b * of_x, gradients, sums, wide);
        }
    } else {
        Window win{of};
        float* patches = (float*)workspace<1>((win.block * win.wide + VECTORS * WIDTH) * sizeof(float));
        for (long p = 0, all = of.batch * of.positions(), n; p < all; p += n) {
            n = all - p < win.block ? all - p : win.block;
            win.gather(p, p + n, x, patches);
            Product prod{of.outputs, wide, n, g + p * of.outputs, 1, of.outputs, patches, win.wide, 1, sums};
            prod.add = true;
            product(prod, false);
        }
    }
    long of_output = direct ? 1 : wide, of_value = direct ? wide : 1;
    for (long o = 0; o < of.outputs; o++)
        for (long c = 0; c < of.channels; c++)
            for (long t = 0; t < of.taps(); t++)
                out[(o * of.channels + c) * of.taps() + t] = sums[o * of_output + (t * of.channels + c) * of_value];
}
