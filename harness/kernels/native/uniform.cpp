// Uniform noise, number by number that of torch's generator on a CPU, many at a time.

#include "heads.h"
#include "math.h"

typedef uint32_t words __attribute__((vector_size(WIDTH * sizeof(float)), may_alias));
typedef uint32_t unaligned_words __attribute__((vector_size(WIDTH * sizeof(float)), may_alias, aligned(sizeof(float))));

constexpr int WORDS = 624, AHEAD = 397;  // of the Mersenne Twister MT19937

struct GeneratorState {  // the beginning of torch.Generator.get_state()
    uint64_t seed;
    int32_t left, seeded;  // words left of the block, and one more
    uint64_t next, words[WORDS];
};

// Return the state's next word but for what is added from elsewhere in the block. Works for words and for vectors of them.
template <class T>
static inline T twisted(T word, T after) {
    return (((word & 0x80000000u) | (after & 0x7fffffffu)) >> 1) ^ (-(after & 1u) & 0x9908b0dfu);
}

// Set the words from..to of a block to their successors, of which a part is the words that are `distance` away.
static inline void advance(uint32_t* w, int from, int to, int distance) {
    int j = from;
    for (; j + WIDTH <= to; j += WIDTH) {
        auto at = [&](int i) { return (words) * (const unaligned_words*)(w + i); };
        *(unaligned_words*)(w + j) = at(j + distance) ^ twisted<words>(at(j), at(j + 1));
    }
    for (; j < to; j++) w[j] = w[j + distance] ^ twisted<uint32_t>(w[j], w[j + 1]);
}

// Return numbers on [0, 1) from words of the state: their last 24 bits, after the generator's tempering.
static inline vec uniform(const uint32_t* w) {
    words y = *(const unaligned_words*)w;
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    y ^= y >> 18;
    return __builtin_convertvector((ints)(y & 0xffffffu), vec) * (1 / 16777216.0f);
}

void harness_uniform(void* state, float* u, int64_t count) {
    GeneratorState& s = *(GeneratorState*)state;
    uint32_t w[WORDS + WIDTH] = {};  // padded, for vectors that begin before the end
    for (int j = 0; j < WORDS; j++) w[j] = s.words[j];
    long at = s.left == 1 ? WORDS : s.next;
    for (long i = 0; i < count;) {
        if (at == WORDS) {
            advance(w, 0, WORDS - AHEAD, AHEAD);
            advance(w, WORDS - AHEAD, WORDS - 1, AHEAD - WORDS);
            w[WORDS - 1] = w[AHEAD - 1] ^ twisted<uint32_t>(w[WORDS - 1], w[0]);
            at = 0;
        }
        long some = WORDS - at < count - i ? WORDS - at : count - i;
        for (long j = 0; j < some; j += WIDTH) store(u + i + j, uniform(w + at + j), some - j);
        i += some, at += some;
    }
    for (int j = 0; j < WORDS; j++) s.words[j] = w[j];
    s.next = at, s.left = WORDS - at + 1;
}
