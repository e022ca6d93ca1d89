// Affine maps with their activation, backward pass and Adam's step: what a training step of a fully connected network is made of.
//
// fp32, row-major, contiguous; one thread. R rows are images, or draws of them.
#pragma once

#include <cstdint>

extern "C" {

// An affine map and its activation. harness/kernels/library.py has the same fields.
struct Layer {
    int64_t inputs, outputs;
    int64_t activation;  // its index in ACTIVATIONS of harness/kernels/library.py
    int64_t sparse;      // 1 if x has many zeros (images)
    const float* x;      // (R, inputs)
    float *w, *b;        // (inputs, outputs), (outputs)
    float* y;            // (R, outputs): f(x w + b)
    float* slope;        // (R, outputs): f'(x w + b); null if it is not wanted
    float *w_mean, *w_square, *b_mean, *b_square;  // Adam's moments
    float *w_grad, *b_grad;                        // gradients, where they are wanted instead of a step; else null
};

// Numbers of Adam's step, those of harness/kernels/library.py.
struct AdamStep {
    double beta1, beta2;
    float rate, spread, learning_rate, weight_decay, eps;
    int32_t decoupled;
};

// Set y, and slope if there is room for it, from x.
void harness_forward(const Layer* layer, int64_t rows);
// Set gx (R, inputs) to (g w') * slope with g (R, outputs) and slope (R, inputs); without slope to g w'.
void harness_backward(const Layer* layer, const float* g, const float* slope, float* gx, int64_t rows);
// Take Adam's step on w and b with the gradients x' g and the sums of g over its rows. Without `adam` write them to w_grad and b_grad.
void harness_update(const Layer* layer, const float* g, const AdamStep* adam, int64_t rows);
// Take Adam's step on n parameters p with gradients g.
void harness_adam(float* p, const float* g, float* mean, float* square, int64_t n, const AdamStep* adam);
}
