// Convolutions for one thread and their gradients. Images have the channels last, weights are torch's (O, C, kh, kw).
//
// A convolution and the gradient of its images compute tiles of one pixel of several images, straight from the images: all rows of such
// a tile leave out the same zeros beyond the border, 18 % of the multiplications of a 3 x 3 kernel on 7 x 7 pixels. The gradient of a
// weight does so tap by tap. Where channels are few, vectors would be mostly empty: then patches are gathered into a matrix, or added
// up from one, a block at a time.
#pragma once

#include "patches.h"

// A tile of a convolution: at most so many vectors of channels, and so many images, the more the fewer its vectors are, for 16
// registers have few sums to wait for.
constexpr int VECTORS = DENSE.vectors;
constexpr int images_of(int vectors) { return WIDTH == 16 || vectors == VECTORS ? DENSE.rows : 6; }
constexpr int ROWS = DENSE.rows;  // channels of a tile of a weight's gradient

constexpr long FIRST = 6 * 1024;     // floats of a block of images that stays in the first cache

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
    constexpr int R = images_of(V);
    long b = 0;
    for (; b + R <= n; b += R)
        pixel<R, V>(images + b * apart, apart, runs, count, panel, out + b * out_apart, out_apart, columns);
    for (; b + 2 <= n; b += 2) pixel<2, V>(images + b * apart, apart, runs, count, panel, out + b * out_apart, out_apart, columns);
    for (; b < n; b++) pixel<1, V>(images + b * apart, apart, runs, count, panel, out + b * out_apart, out_apart, columns);
}

// Compute out (B, pixels, columns of the weight) from images `apart` floats apart, each pixel from the runs that find(pixel, runs)
// writes and counts. The rows of a tile are the same pixel of several images, so that all leave out the same zeros beyond the border.
template <class F>
static void each_pixel(
    const float* images, long batch, long apart, const Panels& w, long pixels, long most_runs, float* out, F find) {
    Run* runs = (Run*)workspace<3>(most_runs * sizeof(Run));
    long out_apart = pixels * w.columns;
    for (long b = 0, n, block = PATCHES / apart / 24 * 24 + 24; b < batch; b += n) {
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
    bool direct = of.channels >= 8;  // fewer channels than a tile has rows are gathered as patches, whose values are its rows
    long values = of.taps() * of.channels, vectors = (of.outputs + WIDTH - 1) / WIDTH;
    long wide = direct ? vectors * WIDTH : of.outputs;
    float* sums = (float*)workspace<2>(values * wide * sizeof(float));
    memset(sums, 0, values * wide * sizeof(float));
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
        float* patches = (float*)workspace<1>(win.block * win.wide * sizeof(float));
        for (long p = 0, all = of.batch * of.positions(), n; p < all; p += n) {
            n = all - p < win.block ? all - p : win.block;
            win.gather(p, p + n, x, patches);
            Product prod{values, of.outputs, n, patches, 1, win.wide, g + p * of.outputs, of.outputs, 1, sums};
            prod.add = true;
            product(prod, false);
        }
    }
    for (long o = 0; o < of.outputs; o++)
        for (long c = 0; c < of.channels; c++)
            for (long t = 0; t < of.taps(); t++)
                out[(o * of.channels + c) * of.taps() + t] = sums[(t * of.channels + c) * wide + o];
}
