// log P(v|z) of grey levels v, 0..255, of likelihoods of other values: integrals over a level, in one pass and without a gradient.
//
// They are heads as those of heads.cpp, x being v. Scales of noise are from 1/510 to 1/510 + exp(7), so that half a level, h scales,
// is at most 1 scale. Levels 0 and 255 are open to the outside.

#include "mixture.h"
#include "rows.h"

struct Levels {
    static constexpr int OUTPUTS = 1, SHARED = 0, EVERY = 6;  // factors reach 1e6 for the widest scale
    static constexpr bool EXCESS = false;

    double whole(double sum, long) { return sum; }
    void shared(float*, float) {}
};

// Return |v - 255 sigmoid(a)|, from the side where the sigmoid is small and therefore exact.
static inline vec levels_between(vec v, vec a) {
    vec e = decay(magnitude(a)).exp(), small = 255 * e / (1 + e);
    return magnitude((a < 0 ? v : 255 - v) - small);
}

static inline ints is_open(vec v) { return (v < 0.5f) | (v > 254.5f); }

static inline bool all_of(ints mask) {
#if WIDTH == 16
    return _mm512_movepi32_mask((__m512i)mask) == 0xffff;
#elif WIDTH == 8
    return _mm256_movemask_ps((__m256)mask) == 0xff;
#else
    int every = -1;
    for (int i = 0; i < WIDTH; i++) every &= mask[i];
    return every;
#endif
}

enum Learned { NOTHING, SHARED_SCALE, SCALE_OF_PIXEL };

// A scale that is fixed, learned for all pixels, or for each. `SETTINGS` of the second and third are those of `Scale`.
template <Learned LEARNED>
struct LevelScale {
    Scale learned;
    vec fixed;

    LevelScale(const double* settings, const float* shared) : learned(settings) {
        vec slope;
        if (LEARNED == NOTHING) fixed = all(settings[0]);
        if (LEARNED == SHARED_SCALE) fixed = learned.of(all(shared[0]), slope);
    }

    vec of(const vec* out) const {
        vec slope;
        return LEARNED == SCALE_OF_PIXEL ? learned.of(out[LEARNED == SCALE_OF_PIXEL], slope) : fixed;
    }
};

template <Learned LEARNED>
struct GaussianLevels : Levels {
    static constexpr int OUTPUTS = LEARNED == SCALE_OF_PIXEL ? 2 : 1;
    LevelScale<LEARNED> scale;

    GaussianLevels(const double* settings, const float* shared) : scale(settings, shared) {}

    // With the distance d to the mean and y = d - h, in scales, P of an open level is erfc(y / sqrt(2)) / 2, where y >= -1.
    void at(vec v, const vec* out, vec*, vec& term, vec& factor) {
        constexpr float ROOT_HALF = 0.707106781f;
        vec h = (0.5f / 255) / scale.of(out), d = levels_between(v, out[0]) * (2 * h), y = d - h, square = 0.5f * y * y;
        vec e = decay(square).exp(), tail = 0.5f * erfc_with(magnitude(y) * ROOT_HALF, y < 0 ? e : all(1));
        ints open = is_open(v);
        term = y < 0 ? vec{} : -square;
        factor = 1 / (y < 0 ? 1 - tail : tail);
        if (all_of(open)) return;
        // Of others it is the integral of exp(-(d + t)^2 / 2) / sqrt(2 pi) for t in [-h, h]: by six nodes up to d h = 2, and beyond, where
        // both ends of the level are in one tail and differ by far, from the tails behind them.
        vec w = d * h, width = -0.5f * h * h, sum = {};
        for (auto [node, weight] : {NODE{0.238619186f, 0.467913935f}, {0.661209386f, 0.360761573f}, {0.932469514f, 0.171324492f}})
            sum += weight * cosh_near_0(at_most(w, 2) * node) * power(width * (node * node)).exp();
        ints near = w < 2;
        vec behind = 0.5f * erfc_with((d + h) * ROOT_HALF, decay(2 * at_least(w, 0)).exp());
        vec inner = near ? 0.797884561f * h * sum : tail - behind;
        term = open ? term : near ? -0.5f * d * d : -square;
        factor = open ? factor : 1 / inner;
    }

  private:
    struct NODE {
        float at, weight;
    };

    static vec cosh_near_0(vec s) {  // its series, within 6e-8 up to 2
        vec q = s * s, p = 2.08767570e-9f * q + 2.75573192e-7f;
        p = p * q + 2.48015873e-5f;
        p = p * q + 1.38888889e-3f;
        p = p * q + 4.16666667e-2f;
        p = p * q + 0.5f;
        return p * q + 1;
    }
};

struct LaplaceLevels : Levels {
    LevelScale<SHARED_SCALE> scale;

    LaplaceLevels(const double* settings, const float* shared) : scale(settings, shared) {}

    // With u = h - d, P of an open level is exp(u) / 2 below 0 and 1 - exp(-u) / 2 above; of another (1 - exp(-2 h)) / 2 exp(u) if it lies
    // beside the mean, else 1 - (exp(-u) + exp(-h - d)) / 2.
    void at(vec v, const vec* out, vec*, vec& term, vec& factor) {
        vec h = (0.5f / 255) / scale.of(out), d = levels_between(v, out[0]) * (2 * h), u = h - d;
        ints open = is_open(v), beside = u < 0;
        vec here = decay(beside ? vec{} : u).expm1(), far = decay(beside ? 2 * h : h + d).expm1();
        term = beside ? u : vec{};
        factor = 2 / ((open ? all(1) : -far) - here);
    }
};

// A geometric distribution that ends at 255: with a = |logit| and y = v / 256 from the side that it favours,
// P = exp(-y a) (1 - exp(-a / 256)) / (1 - exp(-a)).
struct ContinuousBernoulliLevels : Levels {
    float bound;

    ContinuousBernoulliLevels(const double* settings, const float*) : bound(settings[0]) {}

    void at(vec v, const vec* out, vec*, vec& term, vec& factor) {
        vec a = at_least(at_most(magnitude(out[0]), bound), 1e-7f);  // below that P is 1/256 as it is there
        term = (out[0] < 0 ? v : 255 - v) * a * (-1 / 256.0f);
        factor = decay(a).expm1() / decay(a * (1 / 256.0f)).expm1();
    }
};

template <class Head>
struct OfLevels : Head {  // a head of v / 255 that is a pmf of levels itself
    using Head::Head;

    void at(vec v, const vec* out, vec* g, vec& term, vec& factor) { Head::at(v / 255, out, g, term, factor); }
};

constexpr decltype(&score<Bernoulli, false>) LEVELS[] = {  // in the order of HEADS; null where it has no pmf of levels
    nullptr,
    score<GaussianLevels<NOTHING>, false>,
    score<GaussianLevels<SHARED_SCALE>, false>,
    score<GaussianLevels<SCALE_OF_PIXEL>, false>,
    score<ContinuousBernoulliLevels, false>,
    score<LaplaceLevels, false>,
    score<OfLevels<DiscretizedLogistic>, false>,
    score<OfLevels<Categorical>, false>,
    score_mixture<true>,
};

void harness_levels(
    int64_t kind, const double* settings, const float* v, const float* out, const float* shared, float* log_p, int64_t rows,
    int64_t images, int64_t pixels) {
    LEVELS[kind](settings, v, out, shared, nullptr, nullptr, log_p, 0, rows, images, pixels);
}
