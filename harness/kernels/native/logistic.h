// Logistics on the axis of x, [0, 1], without a gradient: the probability of a grey level, and means of what is clipped to [0, 1].
#pragma once

#include "math.h"

// The probability of level x of a logistic, sigmoid(a) sigmoid(b) (1 - exp(-2 h)) with a = o + h and b = h - o, where o is the
// distance to x and h half a level, in scales. At level 255 the first is 1, at level 0 the second, and at both the third.
// It is exp(term) loss / spread.
struct LogisticLevel {
    vec term, loss, spread;

    LogisticLevel(vec distance, vec inverse, ints first, ints last) {
        vec offset = distance * inverse, half = inverse * (0.5f / 255), a = offset + half, b = half - offset, one = all(1);
        vec of_a = 1 + decay(magnitude(a)).exp(), of_b = 1 + decay(magnitude(b)).exp();
        term = (last ? vec{} : at_most(a, 0)) + (first ? vec{} : at_most(b, 0));
        loss = (first | last) ? one : -decay(2 * half).expm1();
        spread = (last ? one : of_a) * (first ? one : of_b);
    }
};

// Logistics of one scale, clipped to [0, 1].
struct ClippedLogistic {
    static constexpr int PARTS = 4;  // equally likely, those of mixture.py
    vec scale, inverse, q, lost;     // q = exp(-1 / scale), 0 where it is less than floats hold; lost = 1 - q

    explicit ClippedLogistic(vec log_scale) : scale(exp(log_scale)), inverse(1 / scale) {
        Power width = decay(inverse);
        q = inverse > -LOWEST ? vec{} : width.exp(), lost = -width.expm1();
    }

    // Return the mean, scale (softplus(m / scale) - softplus((m - 1) / scale)). With c = (m - 1/2) / scale, that of -c is 1 less
    // that of c; and that of a negative c is scale log((1 + E) / (1 + E q)) with E = exp(e), e = 1 / (2 scale) - |c|. E may be huge
    // where e is positive; there it is scale (e + log((1 + 1 / E) / (1 + q E))), unless the scale is so wide that digits are lost.
    vec mean(vec centre) const {
        vec c = (centre - 0.5f) * inverse, e = 0.5f * inverse - magnitude(c);
        ints inside = (e > 0) & (q < 0.5f);
        vec power_of = power(at_least(inside ? -e : e, LOWEST)).exp();
        vec excess = inside ? power_of * power_of - q : power_of * lost, rest = inside ? power_of + q : 1 + power_of * q;
        vec below = scale * ((inside ? e : vec{}) + log1p_of_share(excess, rest));
        return c > 0 ? 1 - below : below;
    }

    // Set `parts` to the means of the equally likely parts of the logistic of this centre and `mean`. Up to its quantile x of u,
    // where that is inside, it integrates to u x - scale (softplus(logit u) - softplus(-m / scale)); the quantiles of u below 1e-6
    // count as 0, and those of u above 1 - 1e-6 as 1, as the bounds in mixture.py make them.
    void means_of_parts(vec centre, vec mean, vec (&parts)[PARTS]) const {
        constexpr float U[] = {0.25f, 0.5f, 0.75f}, LOGIT[] = {-1.09861229f, 0, 1.09861229f};
        constexpr float SOFTPLUS[] = {0.287682072f, 0.693147181f, 1.38629436f}, FARTHEST = 1e-6f, LOGIT_FARTHEST = 13.8155096f;
        vec z = -centre * inverse, before = {};
        vec outside = scale * (at_least(z, 0) + log1p_of_share(decay(magnitude(z)).exp()));
        for (int j = 0; j < PARTS - 1; j++) {
            vec x = centre + scale * LOGIT[j], inside = U[j] * x - (scale * SOFTPLUS[j] - outside);
            vec up_to = x <= 0 ? vec{} : x >= 1 ? mean - (1 - U[j]) : inside;
            parts[j] = PARTS * (up_to - before), before = up_to;
        }
        parts[PARTS - 1] = PARTS * (mean - before);
        vec least = unit(centre - scale * LOGIT_FARTHEST), most = unit(centre + scale * LOGIT_FARTHEST);
        parts[0] -= PARTS * FARTHEST * least, parts[PARTS - 1] += PARTS * FARTHEST * (1 - most);
        for (vec& part : parts) part = unit(part);
    }

    static vec unit(vec x) { return at_most(at_least(x, 0), 1); }
};
