// Adam's step on parameters and their moments.
#pragma once

#include "vector.h"

constexpr int LINE = 64;  // bytes of a cache line

// Parameters with their moments, and the numbers of a step (Kingma & Ba, 2015, https://arxiv.org/abs/1412.6980).
struct Adam {
    float *p, *mean, *square;
    float rate, spread;  // learning rate over 1 - beta1^t, and 1 / sqrt(1 - beta2^t): they correct the moments' bias
    float keep, decay;   // weight decay: as a factor on p (AdamW), as part of the gradient (Adam)
    float new1, beta2, new2, eps;

    void step(long at, vec g, long floats) const {
        vec w = load(p + at, floats), m = load(mean + at, floats), s = load(square + at, floats);
        g += decay * w;
        m += new1 * (g - m);
        s = beta2 * s + new2 * (g * g);
        store(mean + at, m, floats);
        store(square + at, s, floats);
        store(p + at, keep * w - rate * m / (root(s) * spread + eps), floats);
    }

    void prefetch(long at, int floats) const {
        for (int v = 0; v < floats; v += LINE / (int)sizeof(float)) {
            __builtin_prefetch(p + at + v, 1);
            __builtin_prefetch(mean + at + v, 1);
            __builtin_prefetch(square + at + v, 1);
        }
    }
};
