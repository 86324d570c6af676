// Chooses the experts of each row from the router's scores.
#pragma once
#include <limits>

#include "abi.hpp"
#include "functions.hpp"

namespace decodery {

template <class S>
struct Routing {
    using F = typename S::F;

    // Turns scores [experts] into probabilities, which are followed by zeros up to a multiple of 16.
    static void probabilities(const RouteArgs& a, const float* x, float* out) {
        const F one = S::set1(1.0f);
        float largest = x[0];
        for (int64_t e = 1; e < a.experts; e++) largest = x[e] > largest ? x[e] : largest;
        F sum = S::zero();
        for (int64_t e = 0; e < a.experts; e += 16) {
            const int64_t left = a.experts - e;
            const F score = left >= 16 ? S::load(x + e) : S::load_some(x + e, static_cast<int>(left));
            const F value = a.sigmoid ? S::div(one, S::add(one, exponential<S>(S::sub(S::zero(), score))))
                                      : exponential<S>(S::sub(score, S::set1(largest)));
            S::store(out + e, value);
            for (int64_t k = left; k < 16; k++) out[e + k] = 0.0f;
            sum = S::add(sum, S::load(out + e));
        }
        if (a.sigmoid) return;
        const F total = S::set1(S::reduce_add(sum));
        for (int64_t e = 0; e < a.experts; e += 16) S::store(out + e, S::div(S::load(out + e), total));
    }

    // Marks the `count` largest of n values in `taken`, equal ones by index, and writes their indices to `out` in
    // descending order. Indices are valid and distinct also where values are NaN.
    static void leaders(const float* values, int64_t n, int64_t count, uint8_t* taken, int64_t* out) {
        std::memset(taken, 0, static_cast<size_t>(n));
        for (int64_t j = 0; j < count; j++) {
            int64_t best = -1;
            for (int64_t i = 0; i < n; i++)
                if (!taken[i] && (best < 0 || values[i] > values[best])) best = i;
            taken[best] = 1;
            out[j] = best;
        }
    }

    // Sets the values of all groups but the best ones to -inf. A group's value is the sum of its `best` largest.
    static void keep_groups(const RouteArgs& a, float* values, float* sums, uint8_t* taken, int64_t* places) {
        const int64_t size = a.experts / a.groups;
        for (int64_t g = 0; g < a.groups; g++) {
            leaders(values + g * size, size, a.best, taken, places);
            sums[g] = 0.0f;
            for (int64_t j = 0; j < a.best; j++) sums[g] += values[g * size + places[j]];
        }
        leaders(sums, a.groups, a.kept_groups, taken, places);
        for (int64_t e = 0; e < a.experts; e++)
            if (!taken[e / size]) values[e] = -std::numeric_limits<float>::infinity();
    }

    // The weight of the expert ids[j] in the softmax of the scores that are left and near to its own; see RouteArgs.
    static float weight_among_near(const RouteArgs& a, const float* x, const int64_t* ids, int64_t j, float* values) {
        const float best = x[ids[j]], within = static_cast<float>(a.within);
        for (int64_t e = 0; e < a.experts; e++) {
            const float size = x[e] < 0 ? -x[e] : x[e];
            const bool far = (best - x[e]) / (size > best ? size : best) > within;
            values[e] = far ? -std::numeric_limits<float>::infinity() : x[e] - best;
        }
        for (int64_t i = 0; i < j; i++) values[ids[i]] = -std::numeric_limits<float>::infinity();
        F sum = S::zero();
        for (int64_t e = 0; e < a.experts; e += 16) {
            alignas(64) float powers[16];
            const int64_t left = a.experts - e < 16 ? a.experts - e : 16;
            S::store(powers, exponential<S>(S::load_some(values + e, static_cast<int>(left))));
            for (int64_t k = left; k < 16; k++) powers[k] = 0.0f;
            sum = S::add(sum, S::load(powers));
        }
        return 1.0f / S::reduce_add(sum);
    }

    static void route(const RouteArgs& a, Shared&, int chunk, int chunks, Worker& worker) {
        const int64_t padded = (a.experts + 15) / 16 * 16;
        // For each expert: three floats, an index and a flag.
        float* probability = reinterpret_cast<float*>(worker.buffer(static_cast<size_t>(padded) * 21));
        float *choice = probability + padded, *sums = choice + padded;
        auto* places = reinterpret_cast<int64_t*>(sums + padded);
        auto* taken = reinterpret_cast<uint8_t*>(places + padded);
        for (int64_t m = a.rows * chunk / chunks; m < a.rows * (chunk + 1) / chunks; m++) {
            const float* x = a.x + m * a.ldx;
            probabilities(a, x, probability);
            // Without a bias the order is that of the scores, which do not underflow.
            for (int64_t e = 0; e < a.experts; e++) choice[e] = a.bias ? probability[e] + a.bias[e] : x[e];
            if (a.kept_groups < a.groups) keep_groups(a, choice, sums, taken, places);
            int64_t* ids = a.ids + m * a.count;
            leaders(choice, a.experts, a.count, taken, ids);
            float sum = 1e-20f;
            for (int64_t j = 0; j < a.count; j++) sum += probability[ids[j]];
            for (int64_t j = 0; j < a.count; j++) {
                float weight = a.renormalised ? probability[ids[j]] / sum : probability[ids[j]];
                if (a.within >= 0) weight = weight_among_near(a, x, ids, j, choice);
                if (a.scales) weight *= a.scales[ids[j]];
                a.weights[m * a.count + j] = weight * static_cast<float>(a.factor);
            }
        }
    }
};

template <class S>
void plan_route(const int64_t* args, Plan& plan) {
    const auto& a = *reinterpret_cast<const RouteArgs*>(args);
    if (a.rows > 0) plan.add<Routing<S>::route>(a, a.rows < 16 ? 1 : plan.threads);
}

}  // namespace decodery
