// Penalties on the logits of a row's known tokens.
#pragma once
#include <algorithm>

#include "abi.hpp"

namespace decodery {

inline bool in_vocabulary(int64_t token, int64_t vocab) { return token >= 0 && token < vocab; }

// Divides each token's logit by the penalty, or multiplies a negative one: once, however often the token was seen.
// Writes the original logits to `kept` [count].
inline void penalise_repetition(float* x, int64_t vocab, const int64_t* tokens, int64_t count, double by, float* kept) {
    const float penalty = static_cast<float>(by);
    // All are read before any is written.
    for (int64_t i = 0; i < count; i++) kept[i] = in_vocabulary(tokens[i], vocab) ? x[tokens[i]] : 0.0f;
    for (int64_t i = 0; i < count; i++) {
        if (in_vocabulary(tokens[i], vocab)) x[tokens[i]] = kept[i] < 0 ? kept[i] * penalty : kept[i] / penalty;
    }
}

// Subtracts from each token's logit the presence penalty and its count times the frequency penalty. Writes the original
// logits to `kept` and their tokens to `sorted`, both of `count` elements at least, and returns their number.
inline int64_t penalise_frequency(float* x, int64_t vocab, const int64_t* tokens, int64_t count, double presence,
                                  double frequency, int64_t* sorted, float* kept) {
    std::copy(tokens, tokens + count, sorted);
    std::sort(sorted, sorted + count);
    int64_t changed = 0;
    for (int64_t i = 0; i < count;) {
        const int64_t token = sorted[i], next = std::upper_bound(sorted + i, sorted + count, token) - sorted;
        const double penalty = presence + frequency * static_cast<double>(next - i);
        if (in_vocabulary(token, vocab)) {
            kept[changed] = x[token];
            x[token] -= static_cast<float>(penalty);
            sorted[changed++] = token;
        }
        i = next;
    }
    return changed;
}

// Restores the logits of the penalty that wrote `kept`.
inline void restore(float* x, int64_t vocab, const int64_t* tokens, int64_t count, const float* kept) {
    for (int64_t i = 0; i < count; i++) {
        if (in_vocabulary(tokens[i], vocab)) x[tokens[i]] = kept[i];
    }
}

inline void penalise_repetitions(const RepetitionArgs& a, Shared&, int chunk, int chunks, Worker& worker) {
    for (int64_t m = a.rows * chunk / chunks; m < a.rows * (chunk + 1) / chunks; m++) {
        auto* kept = reinterpret_cast<float*>(worker.buffer(static_cast<size_t>(a.counts[m]) * sizeof(float)));
        penalise_repetition(a.x + m * a.ldx, a.vocab, a.tokens[m], a.counts[m], a.penalties[m], kept);
    }
}

inline void penalise_frequencies(const FrequencyArgs& a, Shared&, int chunk, int chunks, Worker& worker) {
    for (int64_t m = a.rows * chunk / chunks; m < a.rows * (chunk + 1) / chunks; m++) {
        const size_t count = static_cast<size_t>(a.counts[m]);
        auto* sorted = reinterpret_cast<int64_t*>(worker.buffer(count * (sizeof(int64_t) + sizeof(float))));
        penalise_frequency(a.x + m * a.ldx, a.vocab, a.tokens[m], a.counts[m], a.presence[m], a.frequency[m], sorted,
                           reinterpret_cast<float*>(sorted + count));
    }
}

}  // namespace decodery
