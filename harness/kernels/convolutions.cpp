// Convolutions for one thread, a part of matmul.cpp. Images have the channels last, weights are torch's (O, C, kh, kw).
//
// A convolution and the gradient of its images compute tiles of one pixel of 8 images, straight from the images: all rows of such a
// tile leave out the same zeros beyond the border, 18 % of the multiplications of a 3 x 3 kernel on 7 x 7 pixels. The gradient of a
// weight does so tap by tap. Where channels are few, vectors would be mostly empty: then patches are gathered into a matrix, or
// added up from one, a block at a time.

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
    for (; b + 8 <= n; b += 8) pixel<8, V>(images + b * apart, apart, runs, count, panel, out + b * out_apart, out_apart, columns);
    for (; b < n; b++) pixel<1, V>(images + b * apart, apart, runs, count, panel, out + b * out_apart, out_apart, columns);
}

// Compute out (B, pixels, columns of the weight), each pixel from the runs that find(pixel, runs) writes and counts. The rows of a
// tile are the same pixel of several images, so that all of them leave out the same zeros beyond the border.
template <class F>
static void each_pixel(const Tensor& x, const Panels& w, long pixels, long most_runs, float* out, F find) {
    Run* runs = (Run*)workspace<3>(most_runs * sizeof(Run));
    long batch = x.size(0), apart = x.size(1) * x.size(2) * x.size(3), out_apart = pixels * w.columns;
    for (long b = 0, n, block = PATCHES / apart / 8 * 8 + 8; b < batch; b += n) {
        n = batch - b < block ? batch - b : block;
        for (long p = 0; p < pixels; p++) {
            int count = find(p, runs);
            for (long j = 0; j < w.count; j++) {
                const float *images = contiguous(x) + b * apart, *panel = w.packed + j * w.rows * w.wide;
                float* to = out + b * out_apart + p * w.columns + j * w.wide;
                pixel_of_all<SUMS / 8>(images, apart, n, runs, count, panel, to, out_apart, w.left(j), w.vectors);
            }
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
    each_pixel(x, panels, down * across, kh, floats(out), find);
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
        each_pixel(g, panels, height * width, taps, floats(out), find);
        return out;
    }
    Window win{height, width, channels, {kh, kw}, {sh, sw}, {ph, pw}, down, across};
    win.wide = win.size;
    float* patches = (float*)workspace<1>(win.block * win.wide * sizeof(float));
    float* matrix = (float*)workspace<2>(w.numel() * sizeof(float));
    channels_last(contiguous(w), outputs, channels, taps, matrix);
    for (long p = 0, all = g.size(0) * down * across, n; p < all; p += n) {
        n = all - p < win.block ? all - p : win.block;
        multiply<8, SUMS / 8, false, false>(
            {n, win.size, outputs, contiguous(g) + p * outputs, outputs, 1, matrix, win.size, 1, patches});
        win.scatter(p, p + n, floats(out), patches);
    }
    return out;
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

// Return the sums of outer products of g (B, down, across, O) and the patches of x (B, H, W, C), (O, C, kh, kw).
static Tensor convolve_weight(const Tensor x, const Tensor g, GEOMETRY) {
    long batch = x.size(0), height = x.size(1), width = x.size(2), channels = x.size(3), taps = kh * kw;
    long down = g.size(1), across = g.size(2), outputs = g.size(3), vectors = (outputs + WIDTH - 1) / WIDTH;
    int64_t size[] = {outputs, channels, kh, kw};
    Tensor out = fresh(size, 4);
    bool direct = channels >= 8;  // the rows of a tile; fewer channels are gathered as patches, whose values are columns
    long wide = direct ? vectors * WIDTH : taps * channels, rows = direct ? taps * channels : outputs;
    float* sums = (float*)workspace<2>(rows * wide * sizeof(float));
    memset(sums, 0, rows * wide * sizeof(float));
    if (direct) {
        long of_x = height * width * channels, of_g = down * across * outputs, block = FIRST / (of_x + of_g) + 1;
        float* padded = (float*)workspace<1>(block * down * across * wide * sizeof(float));
        for (long b = 0, n; b < batch; b += n) {
            n = batch - b < block ? batch - b : block;
            const float *images = contiguous(x) + b * of_x, *gradients = contiguous(g) + b * of_g;
            if (wide > outputs) {
                for (long p = 0; p < n * down * across; p++)
                    for (long o = 0; o < wide; o += WIDTH)
                        *(vec*)(padded + p * wide + o) = load(gradients + p * outputs + o, outputs - o);
                gradients = padded;
            }
            for (long t = 0; t < taps; t++) {
                long i = t / kw, j = t % kw, y = first_of(i, sh, ph), z = first_of(j, sw, pw);
                Meeting met{n, count_of(i, sh, ph, height, down), count_of(j, sw, pw, width, across),
                            {of_x, sh * width * channels, sw * channels}, {down * across * wide, across * wide, wide}};
                if (met.lines <= 0 || met.pixels <= 0) continue;
                const float* from = images + ((y * sh + i - ph) * width + z * sw + j - pw) * channels;
                for (long o = 0, v; o < vectors; o += v) {
                    const float* to = gradients + (y * across + z) * wide + o * WIDTH;
                    float* at = sums + t * channels * wide + o * WIDTH;
                    v = vectors - o == 4 ? 2 : vectors - o < 3 ? vectors - o : 3;
                    if (v == 1) met.add_all<16, 1>(channels, from, to, at, wide);
                    else if (v == 2) met.add_all<8, 2>(channels, from, to, at, wide);
                    else met.add_all<8, 3>(channels, from, to, at, wide);
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
                {outputs, wide, n, contiguous(g) + p * outputs, 1, outputs, patches, win.wide, 1, sums, nullptr, true});
        }
    }
    long of_output = direct ? 1 : wide, of_value = direct ? wide : 1;
    for (long o = 0; o < outputs; o++)
        for (long c = 0; c < channels; c++)
            for (long t = 0; t < taps; t++)
                floats(out)[(o * channels + c) * taps + t] = sums[o * of_output + (t * channels + c) * of_value];
    return out;
}
