// Penalties on the logits of a row's known tokens.
#pragma once
#include <algorithm>
#include <cstring>

#include "abi.hpp"

namespace decodery {

inline bool in_vocabulary(int64_t token, int64_t vocab) { return token >= 0 && token < vocab; }

// Divides each token's logit by the penalty, or multiplies a negative one: once, however often the token was seen.
inline void penalise_repetition(const RepetitionArgs& a, Shared&, int chunk, int chunks, Worker& worker) {
    for (int64_t m = a.rows * chunk / chunks; m < a.rows * (chunk + 1) / chunks; m++) {
        float* x = a.x + m * a.ldx;
        const int64_t* tokens = a.tokens[m];
        const float penalty = static_cast<float>(a.penalties[m]);
        // All are read before any is written.
        auto* values = reinterpret_cast<float*>(worker.room(static_cast<size_t>(a.counts[m]) * sizeof(float)));
        for (int64_t i = 0; i < a.counts[m]; i++) {
            const float value = in_vocabulary(tokens[i], a.vocab) ? x[tokens[i]] : 0.0f;
            values[i] = value < 0 ? value * penalty : value / penalty;
        }
        for (int64_t i = 0; i < a.counts[m]; i++) {
            if (in_vocabulary(tokens[i], a.vocab)) x[tokens[i]] = values[i];
        }
    }
}

// Subtracts from each token's logit the presence penalty and its count times the frequency penalty.
inline void penalise_frequency(const FrequencyArgs& a, Shared&, int chunk, int chunks, Worker& worker) {
    for (int64_t m = a.rows * chunk / chunks; m < a.rows * (chunk + 1) / chunks; m++) {
        float* x = a.x + m * a.ldx;
        const size_t bytes = static_cast<size_t>(a.counts[m]) * sizeof(int64_t);
        auto* sorted = reinterpret_cast<int64_t*>(worker.room(bytes));
        std::memcpy(sorted, a.tokens[m], bytes);
        const int64_t* end = sorted + a.counts[m];
        std::sort(sorted, sorted + a.counts[m]);
        for (const int64_t* token = sorted; token < end;) {
            const int64_t* next = std::upper_bound(token, end, *token);
            const double penalty = a.presence[m] + a.frequency[m] * static_cast<double>(next - token);
            if (in_vocabulary(*token, a.vocab)) x[*token] -= static_cast<float>(penalty);
            token = next;
        }
    }
}

}  // namespace decodery
