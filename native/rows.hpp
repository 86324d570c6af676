// Kernels that process single rows: norms, rotary positions, activations.
#pragma once
#include <cmath>
#include <cstring>

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

    // Accumulates function(k, sum) over the groups of 16 elements of a row, in four sums, so that an addition need not
    // wait for the one before.
    template <class Fn>
    static DECODERY_INLINE float total(int64_t width, Fn function) {
        F sums[4] = {S::zero(), S::zero(), S::zero(), S::zero()};
        for (int64_t k = 0; k < width; k += 64)
            for (int64_t j = 0; j < 4 && k + 16 * j < width; j++) sums[j] = function(k + 16 * j, sums[j]);
        return S::reduce_add(S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3])));
    }

    // Calls function(x, residual, out, w) for the chunk's part of all heads of all rows; residual may be null, and w is
    // where the head's weights begin.
    template <class Args, class Fn>
    static DECODERY_INLINE void each_head(const Args& a, int chunk, int chunks, Fn function) {
        const int64_t count = a.rows * a.heads, end = count * (chunk + 1) / chunks;
        int64_t m = count * chunk / chunks, row = m / a.heads, head = m % a.heads;
        for (; m < end; m++) {
            const float* residual = a.residual ? a.residual + row * a.ldr + head * a.head_r : nullptr;
            function(a.x + row * a.ldx + head * a.head_x, residual, a.out + m * a.width, head * a.head_w);
            if (++head == a.heads) head = 0, row++;
        }
    }

    static DECODERY_INLINE void store_sum(float* out, F value, const float* residual, int64_t k, int64_t left) {
        if (residual) value = S::add(load(residual + k, left), value);
        store(out + k, value, left);
    }

    static void norm(const NormArgs& a, Shared&, int chunk, int chunks, Worker&) {
        each_head(a, chunk, chunks, [&](const float* x, const float* residual, float* out, int64_t w) {
            const float mean = total(a.width, [&](int64_t k, F sum) {
                const F v = load(x + k, a.width - k);
                return S::fma(v, v, sum);
            }) / static_cast<float>(a.width);
            const F factor = S::set1(1.0f / std::sqrt(mean + static_cast<float>(a.eps)));
            for (int64_t k = 0; k < a.width; k += 16) {
                const int64_t left = a.width - k;
                const F scaled = S::mul(load(x + k, left), factor);
                store_sum(out, S::mul(scaled, load(a.weight + w + k, left)), residual, k, left);
            }
        });
    }

    static DECODERY_INLINE F deviation(const float* x, F mean, int64_t left) {
        F found = S::sub(load(x, left), mean);
        if (left >= 16) return found;
        float kept[16];
        S::store(kept, found);
        return S::load_some(kept, static_cast<int>(left));  // Zeros beyond the end.
    }

    static void layer_norm(const LayerNormArgs& a, Shared&, int chunk, int chunks, Worker&) {
        const float width = static_cast<float>(a.width);
        each_head(a, chunk, chunks, [&](const float* x, const float* residual, float* out, int64_t w) {
            const auto add = [&](int64_t k, F sum) { return S::add(sum, load(x + k, a.width - k)); };
            const F mean = S::set1(total(a.width, add) / width);
            const auto add_square = [&](int64_t k, F sum) {
                const F d = deviation(x + k, mean, a.width - k);
                return S::fma(d, d, sum);
            };
            const float variance = total(a.width, add_square) / width;
            const F factor = S::set1(1.0f / std::sqrt(variance + static_cast<float>(a.eps)));
            for (int64_t k = 0; k < a.width; k += 16) {
                const int64_t left = a.width - k;
                const F scaled = S::mul(S::sub(load(x + k, left), mean), factor);
                const F weight = load(a.weight + w + k, left);
                const F normed = a.bias ? S::fma(scaled, weight, load(a.bias + w + k, left)) : S::mul(scaled, weight);
                store_sum(out, normed, residual, k, left);
            }
        });
    }

    static void rotary(const RotaryArgs& a, Shared&, int chunk, int chunks, Worker&) {
        const int64_t half = a.turned / 2;
        for (int64_t m = a.rows * chunk / chunks; m < a.rows * (chunk + 1) / chunks; m++) {
            const float* cos = a.cos + m * a.turned;
            const float* sin = a.sin + m * a.turned;
            for (int64_t h = 0; h < a.heads; h++) {
                const float* x = a.x + m * a.ldx + h * a.dim;
                float* out = a.out + m * a.ldo + h * a.dim;
                for (int64_t k = 0; k < half; k += 16) {
                    const int64_t left = half - k;
                    const F first = load(x + k, left), second = load(x + half + k, left);
                    store(out + k, turn(first, cos + k, second, sin + k, left), left);
                    store(out + half + k, turn(second, cos + half + k, first, sin + half + k, left), left);
                }
                for (int64_t k = a.turned; k < a.dim; k += 16) store(out + k, load(x + k, a.dim - k), a.dim - k);
            }
        }
    }

    static void join(const JoinArgs& a, Shared&, int chunk, int chunks, Worker&) {
        for (int64_t m = a.rows * chunk / chunks; m < a.rows * (chunk + 1) / chunks; m++)
            for (int64_t h = 0; h < a.heads; h++)
                std::memcpy(a.out + m * a.ldo + h * a.head_o, a.x + m * a.ldx + h * a.head_x, static_cast<size_t>(a.width) * 4);
    }

    static void multiply(const MultiplyArgs& a, Shared&, int chunk, int chunks, Worker&) {
        for (int64_t m = a.rows * chunk / chunks; m < a.rows * (chunk + 1) / chunks; m++) {
            const float* x = a.x + m * a.ldx;
            const float* by = a.by + m * a.ldby;
            const F one = S::set1(*by);
            for (int64_t k = 0; k < a.width; k += 16) {
                const int64_t left = a.width - k;
                store(a.out + m * a.width + k, S::mul(load(x + k, left), a.single ? one : load(by + k, left)), left);
            }
        }
    }

    static DECODERY_INLINE F turn(F x, const float* cos, F partner, const float* sin, int64_t left) {
        return S::fma(x, load(cos, left), S::mul(partner, load(sin, left)));
    }

    // The angle is one product in float32, as in the reference.
    static void angles(const AnglesArgs& a, Shared&, int chunk, int chunks, Worker&) {
        for (int64_t m = a.rows * chunk / chunks; m < a.rows * (chunk + 1) / chunks; m++) {
            float* cos = a.cos + m * 2 * a.pairs;
            float* sin = a.sin + m * 2 * a.pairs;
            const bool second = a.sets && a.sets[m];
            const float* frequencies = a.frequencies + (second ? a.pairs : 0);
            float magnitude = static_cast<float>(second ? a.second_magnitude : a.magnitude);
            if (a.growth_length > 0) {
                const int64_t times = 1 + (a.positions[m] + a.growth_offset) / a.growth_length;
                magnitude *= 1.0f + static_cast<float>(a.growth) * std::log(static_cast<float>(times));
            }
            for (int64_t i = 0; i < a.pairs; i++) {
                const float angle = static_cast<float>(a.positions[m]) * frequencies[i];
                cos[i] = cos[i + a.pairs] = std::cos(angle) * magnitude;
                sin[i + a.pairs] = std::sin(angle) * magnitude;
                sin[i] = -sin[i + a.pairs];
            }
        }
    }

    static void activated(const ActivateArgs& a, Shared&, int chunk, int chunks, Worker&) {
        const F most = S::set1(static_cast<float>(a.limit)), least = S::sub(S::zero(), most);
        for (int64_t m = a.rows * chunk / chunks; m < a.rows * (chunk + 1) / chunks; m++) {
            const float* x = a.x + m * a.ldx;
            for (int64_t k = 0; k < a.width; k += 16) {
                const int64_t left = a.width - k;
                F value = load(x + k, left);
                // The order of the arguments keeps NaN.
                value = a.activation == kClip ? S::max(least, S::min(most, value)) : activate<S>(a.activation, value);
                if (a.gated) value = S::mul(value, load(x + a.width + k, left));
                store(a.out + m * a.width + k, value, left);
            }
        }
    }
};

// One thread is faster than several for very few rows.
inline int64_t chunks_of_rows(int64_t rows, int threads) { return rows < 4 ? 1 : rows < 64 ? threads : 2 * threads; }

template <class S>
void plan_norm(const int64_t* args, Plan& plan) {
    const auto& a = *reinterpret_cast<const NormArgs*>(args);
    const int64_t count = a.rows * a.heads;
    if (count > 0) plan.add<Rows<S>::norm>(a, chunks_of_rows(count, plan.threads));
}

template <class S>
void plan_rotary(const int64_t* args, Plan& plan) {
    const auto& a = *reinterpret_cast<const RotaryArgs*>(args);
    if (a.rows > 0) plan.add<Rows<S>::rotary>(a, chunks_of_rows(a.rows, plan.threads));
}

template <class S>
void plan_join(const int64_t* args, Plan& plan) {
    const auto& a = *reinterpret_cast<const JoinArgs*>(args);
    if (a.rows > 0) plan.add<Rows<S>::join>(a, chunks_of_rows(a.rows, plan.threads));
}

template <class S>
void plan_multiply(const int64_t* args, Plan& plan) {
    const auto& a = *reinterpret_cast<const MultiplyArgs*>(args);
    if (a.rows > 0) plan.add<Rows<S>::multiply>(a, chunks_of_rows(a.rows, plan.threads));
}

template <class S>
void plan_angles(const int64_t* args, Plan& plan) {
    const auto& a = *reinterpret_cast<const AnglesArgs*>(args);
    if (a.rows > 0) plan.add<Rows<S>::angles>(a, chunks_of_rows(a.rows, plan.threads));
}

template <class S>
void plan_activate(const int64_t* args, Plan& plan) {
    const auto& a = *reinterpret_cast<const ActivateArgs*>(args);
    if (a.rows > 0) plan.add<Rows<S>::activated>(a, chunks_of_rows(a.rows, plan.threads));
}

template <class S>
void plan_layer_norm(const int64_t* args, Plan& plan) {
    const auto& a = *reinterpret_cast<const LayerNormArgs*>(args);
    const int64_t count = a.rows * a.heads;
    if (count > 0) plan.add<Rows<S>::layer_norm>(a, chunks_of_rows(count, plan.threads));
}

}  // namespace decodery
