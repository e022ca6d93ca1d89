// What a training step takes between images and layers: images as the model sees them, draws of z, log p(x|z) and its gradient.
//
// fp32, row-major, contiguous; one thread. R rows are images, P pixels, Z latents, L draws of z, K outputs of the decoder per pixel.
#pragma once

#include <cstdint>

extern "C" {

// Set x (R, P) to what a likelihood observes of grey levels v, the rows `batch` (R) of `levels` (N, P), with noise u (R, P) where
// it has any. kind: `Observation` of harness/models/likelihoods/heads.py.
void harness_observe(
    int64_t kind, const uint8_t* levels, const int64_t* batch, const float* u, float* x, int64_t rows, int64_t pixels);

// Set u to the next `count` numbers on [0, 1) of a generator of torch on a CPU, whose state is what its get_state() returns, and move
// the state on.
void harness_uniform(void* state, float* u, int64_t count);

// Set z (L, R, Z) to mean + exp(log_var / 2) eps and kl (Z) to each latent's KL(q || N(0, 1)), averaged over rows. q (R, 2 Z): mean,
// then log variance. eps (L, R, Z).
void harness_draw(const float* q, const float* eps, float* z, float* kl, int64_t draws, int64_t rows, int64_t latents);

// Set gq (R, 2 Z) to the gradient of a loss whose gradient of z is gz (L, R, Z), plus that of the sum of kl_weight (Z) times kl (Z).
void harness_draw_back(
    const float* q, const float* eps, const float* gz, const float* kl_weight, float* gq, int64_t draws, int64_t rows,
    int64_t latents);

// Set log_px (R) to log p(x|z), g (R, K P) to scale times the gradient of -log p by the decoder's outputs `out` (R, K P), one output
// after another, and g_shared to the sum over rows of that by the likelihood's learned scalars `shared` (null if it has none).
// Without g only log_px is set; a mixture of logistics takes none. Row r is scored against row r % images of x (images, P).
// kind and settings: `Head` of harness/models/likelihoods/heads.py.
void harness_head(
    int64_t kind, const double* settings, const float* x, const float* out, const float* shared, float* g, float* g_shared,
    float* log_px, float scale, int64_t rows, int64_t images, int64_t pixels);

// Set mean (R, P) to the mean images of a mixture of logistics with the decoder's outputs `out` (R, K P). settings: of its `Head`.
void harness_mixture_mean(const double* settings, const float* out, float* mean, int64_t rows, int64_t pixels);

// Set log_p (R) to log P(v|z) of grey levels v (images, P), as floats, and otherwise as harness_head does. Scales of noise that are fixed
// must be from 1/510 to 1/510 + exp(7). kind: a `Head` whose likelihood has a pmf of levels.
void harness_levels(
    int64_t kind, const double* settings, const float* v, const float* out, const float* shared, float* log_p, int64_t rows,
    int64_t images, int64_t pixels);
}
