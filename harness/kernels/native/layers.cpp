#include "layers.h"

#include "activations.h"
#include "products.h"

// Set y to the activation of what it holds, and slope to its derivative there.
template <int A>
static void activate_all(float* y, float* slope, long floats) {
    for (long i = 0; i < floats; i += WIDTH) {
        vec to, derivative;
        activate<A>(load(y + i, floats - i), to, derivative);
        store(y + i, to, floats - i);
        store(slope + i, derivative, floats - i);
    }
}

using Activation = void (*)(float*, float*, long);
constexpr Activation ACTIVATIONS[] = {
    activate_all<IDENTITY>, activate_all<ELU>,  activate_all<RELU>, activate_all<LEAKY_RELU>, activate_all<SELU>,   activate_all<GELU>,
    activate_all<SILU>,     activate_all<MISH>, activate_all<TANH>, activate_all<SOFTPLUS>,   activate_all<SIGMOID>};

static Adam adam_of(const AdamStep& s, float* p, float* mean, float* square) {
    float keep = s.decoupled ? 1 - s.learning_rate * s.weight_decay : 1, decay = s.decoupled ? 0 : s.weight_decay;
    return {p, mean, square, s.rate, s.spread, keep, decay, float(1 - s.beta1), float(s.beta2), float(1 - s.beta2), s.eps};
}

// Call `to` with the sums over rows of every vector of columns of g (rows, columns): the first column, the sums, how many floats.
template <class To>
static void column_sums(const float* g, long rows, long columns, To to) {
    for (long j = 0; j < columns; j += WIDTH) {
        vec even = {}, odd = {};
        long i = 0;
        for (; i + 2 <= rows; i += 2) {
            even += load(g + i * columns + j, columns - j);
            odd += load(g + (i + 1) * columns + j, columns - j);
        }
        if (i < rows) even += load(g + i * columns + j, columns - j);
        to(j, even + odd, columns - j);
    }
}

void harness_forward(const Layer* l, int64_t rows) {
    Product affine{rows, l->outputs, l->inputs, l->x, l->inputs, 1, l->w, l->outputs, 1, l->y};
    affine.bias = l->b;
    product(affine, l->sparse);
    if (l->slope) ACTIVATIONS[l->activation](l->y, l->slope, rows * l->outputs);
}

void harness_backward(const Layer* l, const float* g, const float* slope, float* gx, int64_t rows) {
    Product gradient{rows, l->inputs, l->outputs, g, l->outputs, 1, l->w, 1, l->outputs, gx};
    gradient.slope = slope;
    product(gradient, false);
}

void harness_update(const Layer* l, const float* g, const AdamStep* adam, int64_t rows) {
    Product gradient{l->inputs, l->outputs, rows, l->x, 1, l->inputs, g, l->outputs, 1, l->w_grad};
    if (!adam) {
        product(gradient, l->sparse);
        column_sums(g, rows, l->outputs, [&](long j, vec sum, long floats) { store(l->b_grad + j, sum, floats); });
        return;
    }
    Adam w = adam_of(*adam, l->w, l->w_mean, l->w_square), b = adam_of(*adam, l->b, l->b_mean, l->b_square);
    column_sums(g, rows, l->outputs, [&](long j, vec sum, long floats) { b.step(j, sum, floats); });
    gradient.adam = &w;
    product(gradient, l->sparse);
}

void harness_adam(float* p, const float* g, float* mean, float* square, int64_t n, const AdamStep* adam) {
    Adam all = adam_of(*adam, p, mean, square);
    for (long i = 0; i < n; i += WIDTH) all.step(i, load(g + i, n - i), n - i);
}
