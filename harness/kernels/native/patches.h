// Images with the channels last, and the patches of them at the positions of a convolution's kernel, gathered into a matrix or added up
// from one.
#pragma once

#include "products.h"

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

// Images (batch, height, width, channels), and outputs of them at the positions (down, across) of a kernel, with zeros in front.
struct Convolution {
    long batch, height, width, channels, down, across, outputs, kernel[2], stride[2], before[2];
    long taps() const { return kernel[0] * kernel[1]; }
    long pixels() const { return height * width; }
    long positions() const { return down * across; }
};

// The patches at those positions, `size` values each. A block of them lies in a matrix whose rows are `wide` apart.
struct Window : Convolution {
    long size = taps() * channels;
    long wide = (size + WIDTH - 1) / WIDTH * WIDTH + WIDTH;
    long block = PATCHES / wide / DENSE.rows * DENSE.rows + DENSE.rows;  // rows of a tile at least

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
