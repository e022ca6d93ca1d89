// log p(x|z) of the likelihoods (harness/models/likelihoods) and its gradient, in one pass over the decoder's outputs.

#include "mixture.h"
#include "rows.h"

constexpr double LOG_2PI = 1.8378770664093454836;

struct Bernoulli {
    static constexpr int OUTPUTS = 1, SHARED = 0, EVERY = 96;
    static constexpr bool EXCESS = true;  // `factor` is 1 + what is given, which may be tiny

    Bernoulli(const double*, const float*) {}

    void at(vec x, const vec* out, vec* g, vec& term, vec& factor) {
        vec l = out[0], e = decay(magnitude(l)).exp(), y = 1 - x;
        ints low = l < 0;
        g[0] = ((low ? -x : y) + e * (low ? y : -x)) / (1 + e);  // sigmoid(l) - x where both are nearly equal, too
        term = x * l - at_least(l, 0);
        factor = e;
    }

    double whole(double sum, long) { return sum; }
    void shared(float*, float) {}
};

// Errors of the mean sigmoid(a), scaled for all pixels alike: LAPLACE |x - m| / b, else ((x - m) / sigma)^2 / 2.
template <bool LAPLACE, bool LEARNED>
struct Location {
    static constexpr int OUTPUTS = 1, SHARED = LEARNED, EVERY = 0;
    static constexpr bool EXCESS = false;
    double scale, slope = 0, by_shared = 0;
    float factor_of_g;

    Location(const double* settings, const float* shared) : scale(settings[0]) {
        if (LEARNED) {
            vec derivative;
            scale = Scale(settings).of(all(shared[0]), derivative)[0];
            slope = derivative[0];
        }
        factor_of_g = LAPLACE ? 1 / scale : 1 / (scale * scale);
    }

    void at(vec x, const vec* out, vec* g, vec& term, vec&) {
        vec a = out[0], e = decay(magnitude(a)).exp(), inverse = 1 / (1 + e);
        vec error = x - (a < 0 ? e : all(1)) * inverse, by_mean = factor_of_g * (e * inverse * inverse);
        if (LAPLACE) {
            term = -magnitude(error);
            g[0] = error == 0 ? vec{} : (vec)(bits(-by_mean) ^ sign(error));
        } else {
            term = -(error * error);
            g[0] = -by_mean * error;
        }
    }

    double whole(double sum, long pixels) {
        if (LAPLACE) {
            by_shared += (pixels / scale + sum / (scale * scale)) * slope;
            return sum / scale - pixels * __builtin_log(2 * scale);
        }
        by_shared += (pixels / scale + sum / (scale * scale * scale)) * slope;
        return 0.5 * sum / (scale * scale) - pixels * (__builtin_log(scale) + 0.5 * LOG_2PI);
    }

    void shared(float* g, float by) { g[0] = by * by_shared; }
};

struct GaussianPerPixel {
    static constexpr int OUTPUTS = 2, SHARED = 0, EVERY = 12;  // sigma is from 1/510 to exp(7)
    static constexpr bool EXCESS = false;
    Scale scale;

    GaussianPerPixel(const double* settings, const float*) : scale(settings) {}

    void at(vec x, const vec* out, vec* g, vec& term, vec& factor) {
        vec a = out[0], e = decay(magnitude(a)).exp(), slope, sigma = scale.of(out[1], slope);
        vec both = 1 / ((1 + e) * sigma), inverse = both * sigma, precision = both * (1 + e);
        vec t = (x - (a < 0 ? e : all(1)) * inverse) * precision, square = t * t;
        g[0] = -t * precision * (e * inverse * inverse);
        g[1] = (1 - square) * precision * slope;
        term = -0.5f * square;
        factor = sigma;
    }

    double whole(double sum, long pixels) { return sum - pixels * 0.5 * LOG_2PI; }
    void shared(float*, float) {}
};

struct ContinuousBernoulli {
    static constexpr int OUTPUTS = 1, SHARED = 0, EVERY = 12;
    static constexpr bool EXCESS = false;
    float bound;

    ContinuousBernoulli(const double* settings, const float*) : bound(settings[0]) {}

    // log p = (x - 1/2) l - log(sinh(a/2) / (a/2)) with a = |l|. With b = max(a, 1) that logarithm is the sum of its series at
    // min(a, 1), of (b - 1)/2, and of log((1 - exp(-b)) / b) less what that is for b = 1: each constant where it is not needed.
    void at(vec x, const vec* out, vec* g, vec& term, vec& factor) {
        constexpr float AT_1 = 1.58197671f;  // 1 / (1 - exp(-1))
        vec l = at_least(at_most(out[0], bound), -bound), a = magnitude(l), b = at_least(a, 1), c = at_most(a, 1);
        vec loss = -decay(b).expm1(), inverse = 1 / (b * loss);
        vec q = c * c;
        vec series = q * (((-1 / 9676800.0f * q + 1 / 181440.0f) * q - 1 / 2880.0f) * q + 1 / 24.0f);
        vec slope = c * (((-1 / 1209600.0f * q + 1 / 30240.0f) * q - 1 / 720.0f) * q + 1 / 12.0f);
        slope = a > 1 ? 0.5f + inverse * ((1 - loss) * b - loss) : slope;
        vec by_logit = (vec)(bits(slope) ^ sign(l)) - (x - 0.5f);
        g[0] = magnitude(out[0]) > bound ? vec{} : by_logit;
        term = (x - 0.5f) * l - 0.5f * (b - 1) - series;
        factor = a > 1 ? loss * loss * inverse * AT_1 : all(1);  // exactly, so that small log p are right
    }

    double whole(double sum, long) { return sum; }
    void shared(float*, float) {}
};

struct DiscretizedLogistic {
    static constexpr int OUTPUTS = 2, SHARED = 0, EVERY = 6;  // factors reach 1e6 for the widest logistic
    static constexpr bool EXCESS = false;
    float start, low, high;

    DiscretizedLogistic(const double* settings, const float*) : start(settings[0]), low(settings[1]), high(settings[2]) {}

    // P = sigmoid(a) sigmoid(b) (1 - exp(-2 h)), a = o + h and b = h - o, where o is the distance to x and h half a level, in scales.
    // At level 255 the first is 1, at level 0 the second, and at both the third, and so they have no slope.
    void at(vec x, const vec* out, vec* g, vec& term, vec& factor) {
        vec log_scale = out[1] + start, none = {};
        vec inverse = exp(-at_most(at_least(log_scale, low), high));
        vec offset = (x - (out[0] + 0.5f)) * inverse, half = inverse * (0.5f / 255), a = offset + half, b = half - offset;
        ints first = x < 0.5f / 255, last = x > 1 - 0.5f / 255;
        vec ea = decay(magnitude(a)).exp(), eb = decay(magnitude(b)).exp(), loss = -decay(2 * half).expm1();
        vec of_a = 1 + ea, of_b = 1 + eb, both = of_a * of_b, shared = 1 / (both * loss);
        vec by_a = (a < 0 ? all(1) : ea) * of_b * loss * shared, by_b = (b < 0 ? all(1) : eb) * of_a * loss * shared;
        vec by_loss = 2 * (1 - loss) * both * shared;
        by_a = last ? none : by_a, by_b = first ? none : by_b, by_loss = (first | last) ? none : by_loss;
        g[0] = (by_a - by_b) * inverse;
        vec by_scale = (by_a - by_b) * offset + (by_a + by_b + by_loss) * half;
        g[1] = log_scale < low ? none : log_scale > high ? none : by_scale;
        term = (last ? none : at_most(a, 0)) + (first ? none : at_most(b, 0));
        factor = (last ? all(1) : of_a) * (first ? all(1) : of_b) * ((first | last) ? all(1) : both * shared);
    }

    double whole(double sum, long) { return sum; }
    void shared(float*, float) {}
};

struct Categorical {  // a softmax over bins of levels, uniform inside a bin
    static constexpr int OUTPUTS = 16, SHARED = 0, EVERY = 24;
    static constexpr bool EXCESS = false;
    float log_width[OUTPUTS];

    Categorical(const double*, const float*) {
        int width[OUTPUTS] = {};
        for (int v = 0; v < 256; v++) width[(v * (OUTPUTS - 2) + 240) / 254]++;
        for (int k = 0; k < OUTPUTS; k++) log_width[k] = __builtin_logf(width[k]);
    }

    void at(vec x, const vec* out, vec* g, vec& term, vec& factor) {
        vec most = out[0], sum = {}, chosen = {};
        for (int k = 1; k < OUTPUTS; k++) most = out[k] > most ? out[k] : most;
        ints level = __builtin_convertvector(x * 255 + 0.5f, ints);
        // The integer part of (14 v + 240) / 254 is the bin; half of 1/254 on top keeps it from rounding down.
        vec shifted = (__builtin_convertvector(level, vec) * (OUTPUTS - 2) + 240.5f) * (1 / 254.0f);
        ints bin = __builtin_convertvector(shifted, ints);
        for (int k = 0; k < OUTPUTS; k++) {
            g[k] = power(at_least(out[k] - most, LOWEST)).exp();
            sum += g[k];
            chosen = bin == k ? out[k] - most - log_width[k] : chosen;
        }
        vec inverse = 1 / sum;
        for (int k = 0; k < OUTPUTS; k++) g[k] = g[k] * inverse - (bin == k ? all(1) : vec{});
        term = chosen;
        factor = sum;
    }

    double whole(double sum, long) { return sum; }
    void shared(float*, float) {}
};

template <bool GRADIENT>
constexpr decltype(&score<Bernoulli, GRADIENT>) HEADS[] = {  // in the order of harness/models/likelihoods/heads.py; null: none
    score<Bernoulli, GRADIENT>,           score<Location<false, false>, GRADIENT>, score<Location<false, true>, GRADIENT>,
    score<GaussianPerPixel, GRADIENT>,    score<ContinuousBernoulli, GRADIENT>,    score<Location<true, true>, GRADIENT>,
    score<DiscretizedLogistic, GRADIENT>, score<Categorical, GRADIENT>,            GRADIENT ? nullptr : score_mixture<false>,
};

void harness_head(
    int64_t kind, const double* settings, const float* x, const float* out, const float* shared, float* g, float* g_shared,
    float* log_px, float scale, int64_t rows, int64_t images, int64_t pixels) {
    auto head = g ? HEADS<true>[kind] : HEADS<false>[kind];
    head(settings, x, out, shared, g, g_shared, log_px, scale, rows, images, pixels);
}

void harness_mixture_mean(const double* settings, const float* out, float* mean, int64_t rows, int64_t pixels) {
    auto mean_of = settings[1] == 1 ? mean_of_mixture<1> : mean_of_mixture<3>;
    for (long r = 0; r < rows; r++) mean_of({settings, out, r, pixels}, mean + r * pixels);
}
