// The mixture of logistics whose channels depend on each other (harness/models/likelihoods/mixture.py), without a gradient: log P
// of an image, and the mean image. A row's P values are C channels of N pixels, and so is each of the outputs.
#pragma once

#include "logistic.h"

struct MixtureOutputs {  // of the decoder, for a vector of pixels
    long components, pixels;
    float start, low, high;  // log scale = output + start, clamped to [low, high]
    const float* out;
    long at = 0;  // the first of the pixels

    // Of a row of all outputs `of_rows`, for images of so many values.
    MixtureOutputs(const double* settings, const float* of_rows, long row, long values)
        : components(settings[0]), pixels(values / (long)settings[1]), start(settings[2]), low(settings[3]), high(settings[4]),
          out(of_rows + row * components * (settings[1] == 1 ? 3 : 4) * values) {}

    vec operator()(long output, int channel, int channels) const {
        return load(out + (output * channels + channel) * pixels + at, pixels - at);
    }

    template <int CHANNELS>
    vec logit(long k) const {
        vec sum = (*this)(k, 0, CHANNELS);
        for (int c = 1; c < CHANNELS; c++) sum += (*this)(k, c, CHANNELS);
        return CHANNELS == 1 ? sum : sum / (float)CHANNELS;
    }
};

// A component's logistics by channel. `coupling` are the coefficients of green on red, of blue on red and of blue on green.
template <int CHANNELS>
struct Component {
    vec centre[CHANNELS], log_scale[CHANNELS], coupling[CHANNELS];

    Component(const MixtureOutputs& outputs, long k) {
        for (int c = 0; c < CHANNELS; c++) {
            auto output = [&](int kind) { return outputs(kind * outputs.components + k, c, CHANNELS); };
            centre[c] = output(1) + 0.5f;
            log_scale[c] = at_most(at_least(output(2) + outputs.start, outputs.low), outputs.high);
            if (CHANNELS > 1) coupling[c] = tanh(output(3));
        }
    }

    // Return the centre of channel c, given half less than the values of the channels before it.
    vec centre_given(int c, const vec* before) const {
        vec sum = centre[c];
        for (int j = 0; j < c; j++) sum += coupling[c * (c - 1) / 2 + j] * before[j];
        return sum;
    }
};

struct SumOfExponentials {  // exp(most) sum is the sum of exp(term) factor for what was added
    vec most = all(-3e38f), sum = {};

    void add(vec term, vec factor) {
        vec gap = term - most, less = exp(-magnitude(gap));
        ints more = gap > 0;
        sum = more ? sum * less + factor : sum + less * factor;
        most = more ? term : most;
    }
};

// Return log P of a row; x is v with OF_LEVELS, else v / 255.
template <int CHANNELS, bool OF_LEVELS>
static double row_of_mixture(MixtureOutputs outputs, const float* x) {
    vec total = {};
    for (long& p = outputs.at; p < outputs.pixels; p += WIDTH) {
        vec seen[CHANNELS], centred[CHANNELS];
        ints first[CHANNELS], last[CHANNELS];
        for (int c = 0; c < CHANNELS; c++) {
            seen[c] = load(x + c * outputs.pixels + p, outputs.pixels - p);
            if (OF_LEVELS) seen[c] /= 255;
            centred[c] = seen[c] - 0.5f, first[c] = seen[c] < 0.5f / 255, last[c] = seen[c] > 1 - 0.5f / 255;
        }
        SumOfExponentials weights, joint;
        for (long k = 0; k < outputs.components; k++) {
            Component<CHANNELS> of(outputs, k);
            vec logit = outputs.logit<CHANNELS>(k), term = logit, loss = all(1), spread = all(1);
            for (int c = 0; c < CHANNELS; c++) {
                LogisticLevel level(seen[c] - of.centre_given(c, centred), exp(-of.log_scale[c]), first[c], last[c]);
                term += level.term, loss *= level.loss, spread *= level.spread;
            }
            weights.add(logit, all(1));
            joint.add(term, loss / spread);
        }
        vec log_p = joint.most - weights.most + log(joint.sum / weights.sum);
        for (long i = outputs.pixels - p; i < WIDTH; i++) log_p[i] = 0;
        total += log_p;
    }
    double sum = 0;
    for (int i = 0; i < WIDTH; i++) sum += total[i];
    return sum;
}

// As `score` of rows.h, without a gradient. settings: the numbers of components and channels, and those of the scale.
template <bool OF_LEVELS>
static void score_mixture(
    const double* settings, const float* x, const float* out, const float*, float*, float*, float* log_px, float, long rows,
    long images, long pixels) {
    auto row = settings[1] == 1 ? row_of_mixture<1, OF_LEVELS> : row_of_mixture<3, OF_LEVELS>;
    for (long r = 0; r < rows; r++) log_px[r] = row({settings, out, r, pixels}, x + r % images * pixels);
}

// Set `means` to the mean of each channel under a component.
static void means_of(const Component<1>& of, vec* means) { means[0] = ClippedLogistic(of.log_scale[0]).mean(of.centre[0]); }

static void means_of(const Component<3>& of, vec* means) {
    constexpr int PARTS = ClippedLogistic::PARTS;
    ClippedLogistic red(of.log_scale[0]), green(of.log_scale[1]), blue(of.log_scale[2]);
    vec reds[PARTS], greens[PARTS], sum_of_green = {}, sum_of_blue = {};
    means[0] = red.mean(of.centre[0]);
    red.means_of_parts(of.centre[0], means[0], reds);
    for (vec part_of_red : reds) {
        vec before[] = {part_of_red - 0.5f, {}}, centre = of.centre_given(1, before), mean = green.mean(centre);
        sum_of_green += mean;
        green.means_of_parts(centre, mean, greens);
        for (vec part_of_green : greens) {
            before[1] = part_of_green - 0.5f;
            sum_of_blue += blue.mean(of.centre_given(2, before));
        }
    }
    means[1] = sum_of_green * (1.0f / PARTS), means[2] = sum_of_blue * (1.0f / (PARTS * PARTS));
}

// Set `mean` to the mean image of a row.
template <int CHANNELS>
static void mean_of_mixture(MixtureOutputs outputs, float* mean) {
    for (long& p = outputs.at; p < outputs.pixels; p += WIDTH) {
        vec most = outputs.logit<CHANNELS>(0), weights = {}, sum[CHANNELS] = {}, means[CHANNELS];
        for (long k = 1; k < outputs.components; k++) {
            vec logit = outputs.logit<CHANNELS>(k);
            most = logit > most ? logit : most;
        }
        for (long k = 0; k < outputs.components; k++) {
            vec weight = exp(outputs.logit<CHANNELS>(k) - most);
            means_of(Component<CHANNELS>(outputs, k), means);
            weights += weight;
            for (int c = 0; c < CHANNELS; c++) sum[c] += weight * means[c];
        }
        for (int c = 0; c < CHANNELS; c++)
            store(mean + c * outputs.pixels + p, ClippedLogistic::unit(sum[c] / weights), outputs.pixels - p);
    }
}
