#include "layers.h"

#include "activations.h"
#include "products.h"

// Set y to the activation of what it holds, and slope, if it is wanted, to its derivative there.
template <int A>
static void activate_all(float* y, float* slope, long floats) {
    for (long i = 0; i < floats; i += WIDTH) {
        vec to, derivative;
        activate<A>(load(y + i, floats - i), to, derivative);
        store(y + i, to, floats - i);
        if (slope) store(slope + i, derivative, floats - i);
    }
}

constexpr int BIAS = 1;  // the piece of workspace for gradients of biases; products use 0

using Activation = void (*)(float*, float*, long);
constexpr Activation ACTIVATIONS[] = {
    activate_all<IDENTITY>, activate_all<ELU>,  activate_all<RELU>, activate_all<LEAKY_RELU>, activate_all<SELU>,   activate_all<GELU>,
    activate_all<SILU>,     activate_all<MISH>, activate_all<TANH>, activate_all<SOFTPLUS>,   activate_all<SIGMOID>};

static Adam adam_of(const AdamStep& s, float* p, float* mean, float* square) {
    float keep = s.decoupled ? 1 - s.learning_rate * s.weight_decay : 1, decay = s.decoupled ? 0 : s.weight_decay;
    return {p, mean, square, s.rate, s.spread, keep, decay, float(1 - s.beta1), float(s.beta2), float(1 - s.beta2), s.eps};
}

// Set sums (columns) to the sums of g (rows, columns) over its rows.
static void column_sums(const float* g, long rows, long columns, float* sums) {
    memset(sums, 0, sizeof(float) * columns);
    long i = 0;
    for (; i + 4 <= rows; i += 4)
        for (long j = 0; j < columns; j += WIDTH) {
            const float* at = g + i * columns + j;
            long floats = columns - j;
            vec low = load(at, floats) + load(at + columns, floats);
            vec high = load(at + 2 * columns, floats) + load(at + 3 * columns, floats);
            store(sums + j, load(sums + j, floats) + (low + high), floats);
        }
    for (; i < rows; i++)
        for (long j = 0; j < columns; j += WIDTH)
            store(sums + j, load(sums + j, columns - j) + load(g + i * columns + j, columns - j), columns - j);
}

void harness_forward(const Layer* l, int64_t rows) {
    Product affine{rows, l->outputs, l->inputs, l->x, l->inputs, 1, l->w, l->outputs, 1, l->y};
    affine.bias = l->b;
    product(affine, l->sparse);
    if (l->slope || l->activation != IDENTITY) ACTIVATIONS[l->activation](l->y, l->slope, rows * l->outputs);
}

void harness_backward(const Layer* l, const float* g, const float* slope, float* gx, int64_t rows) {
    Product gradient{rows, l->inputs, l->outputs, g, l->outputs, 1, l->w, 1, l->outputs, gx};
    gradient.slope = slope;
    product(gradient, false);
}

void harness_update(const Layer* l, const float* g, const AdamStep* adam, int64_t rows) {
    Product gradient{l->inputs, l->outputs, rows, l->x, 1, l->inputs, g, l->outputs, 1, l->w_grad};
    float* sums = adam ? (float*)workspace<BIAS>(sizeof(float) * l->outputs) : l->b_grad;
    column_sums(g, rows, l->outputs, sums);
    if (!adam) return product(gradient, l->sparse);
    harness_adam(l->b, sums, l->b_mean, l->b_square, l->outputs, adam);
    Adam update = adam_of(*adam, l->w, l->w_mean, l->w_square);
    gradient.adam = &update;
    product(gradient, l->sparse);
}

void harness_adam(float* p, const float* g, float* mean, float* square, int64_t n, const AdamStep* adam) {
    Adam all = adam_of(*adam, p, mean, square);
    for (long i = 0; i < n; i += WIDTH) all.step(i, load(g + i, n - i), n - i);
}
