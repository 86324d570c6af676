// Kernels that take a row at a time: norm, rotary positions, the gate of an MLP.
#pragma once
#include <cmath>

#include "abi.hpp"
#include "functions.hpp"

namespace decodery {

template <class S>
struct Rows {
    using F = typename S::F;

    static DECODERY_INLINE F load(const float* p, int64_t left) {
        return left >= 16 ? S::load(p) : S::load_some(p, static_cast<int>(left));
    }

    static DECODERY_INLINE void store(float* p, F value, int64_t left) {
        if (left >= 16) S::store(p, value); else S::store_some(p, value, static_cast<int>(left));
    }

    static void norm(const NormArgs& a, Shared&, int chunk, int chunks, Worker&) {
        for (int64_t m = a.rows * chunk / chunks; m < a.rows * (chunk + 1) / chunks; m++) {
            const float* x = a.x + m * a.ldx;
            // Four sums, so that one addition need not wait for the other.
            F sums[4] = {S::zero(), S::zero(), S::zero(), S::zero()};
            for (int64_t k = 0; k < a.width; k += 64) {
                for (int64_t j = 0; j < 4 && k + 16 * j < a.width; j++) {
                    const F v = load(x + k + 16 * j, a.width - k - 16 * j);
                    sums[j] = S::fma(v, v, sums[j]);
                }
            }
            const float total = S::reduce_add(S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3])));
            const float mean = total / static_cast<float>(a.width);
            const F factor = S::set1(1.0f / std::sqrt(mean + static_cast<float>(a.eps)));
            for (int64_t k = 0; k < a.width; k += 16) {
                const F scaled = S::mul(load(x + k, a.width - k), factor);
                store(a.out + m * a.width + k, S::mul(scaled, load(a.weight + k, a.width - k)), a.width - k);
            }
        }
    }

    static void rotary(const RotaryArgs& a, Shared&, int chunk, int chunks, Worker&) {
        const int64_t half = a.dim / 2;
        for (int64_t m = a.rows * chunk / chunks; m < a.rows * (chunk + 1) / chunks; m++) {
            const float* cos = a.cos + m * a.dim;
            const float* sin = a.sin + m * a.dim;
            for (int64_t h = 0; h < a.heads; h++) {
                const float* x = a.x + m * a.ldx + h * a.dim;
                float* out = a.out + m * a.ldo + h * a.dim;
                for (int64_t k = 0; k < half; k += 16) {
                    const int64_t left = half - k;
                    const F first = load(x + k, left), second = load(x + half + k, left);
                    store(out + k, turn(first, cos + k, second, sin + k, left), left);
                    store(out + half + k, turn(second, cos + half + k, first, sin + half + k, left), left);
                }
            }
        }
    }

    static DECODERY_INLINE F turn(F x, const float* cos, F partner, const float* sin, int64_t left) {
        return S::fma(x, load(cos, left), S::mul(partner, load(sin, left)));
    }

    // The angle is one product in float32, as the reference has it.
    static void angles(const AnglesArgs& a, Shared&, int chunk, int chunks, Worker&) {
        const float magnitude = static_cast<float>(a.magnitude);
        for (int64_t m = a.rows * chunk / chunks; m < a.rows * (chunk + 1) / chunks; m++) {
            float* cos = a.cos + m * 2 * a.pairs;
            float* sin = a.sin + m * 2 * a.pairs;
            for (int64_t i = 0; i < a.pairs; i++) {
                const float angle = static_cast<float>(a.positions[m]) * a.frequencies[i];
                cos[i] = cos[i + a.pairs] = std::cos(angle) * magnitude;
                sin[i + a.pairs] = std::sin(angle) * magnitude;
                sin[i] = -sin[i + a.pairs];
            }
        }
    }

    static void gate(const SwigluArgs& a, Shared&, int chunk, int chunks, Worker&) {
        for (int64_t m = a.rows * chunk / chunks; m < a.rows * (chunk + 1) / chunks; m++) {
            const float* x = a.x + m * a.ldx;
            for (int64_t k = 0; k < a.width; k += 16) {
                const int64_t left = a.width - k;
                store(a.out + m * a.width + k, swiglu<S>(load(x + k, left), load(x + a.width + k, left)), left);
            }
        }
    }
};

// Few rows are done sooner by one thread than shared.
inline int64_t chunks_of_rows(int64_t rows, int threads) { return rows < 16 ? 1 : 2 * threads; }

template <class S>
void plan_norm(const int64_t* args, Plan& plan) {
    const auto& a = *reinterpret_cast<const NormArgs*>(args);
    if (a.rows > 0) plan.add<Rows<S>::norm>(a, chunks_of_rows(a.rows, plan.threads));
}

template <class S>
void plan_rotary(const int64_t* args, Plan& plan) {
    const auto& a = *reinterpret_cast<const RotaryArgs*>(args);
    if (a.rows > 0) plan.add<Rows<S>::rotary>(a, chunks_of_rows(a.rows, plan.threads));
}

template <class S>
void plan_angles(const int64_t* args, Plan& plan) {
    const auto& a = *reinterpret_cast<const AnglesArgs*>(args);
    if (a.rows > 0) plan.add<Rows<S>::angles>(a, chunks_of_rows(a.rows, plan.threads));
}

template <class S>
void plan_swiglu(const int64_t* args, Plan& plan) {
    const auto& a = *reinterpret_cast<const SwigluArgs*>(args);
    if (a.rows > 0) plan.add<Rows<S>::gate>(a, chunks_of_rows(a.rows, plan.threads));
}

}  // namespace decodery
