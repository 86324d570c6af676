// Products of rows with packed weights.
//
// Coded weights meet activations as int8 in groups of 32, each with a scale. Sums within a group are whole numbers
// and exact; over the groups an output is one chain of multiply-adds from the first to the last. So its bits follow
// from its row alone, whatever the tile that it is computed in, the number of rows or threads, and the processor.
#pragma once
#include <cstring>

#include "abi.hpp"
#include "formats.hpp"
#include "functions.hpp"

namespace decodery {

// Up to so many rows are quantised by each thread for itself: cheaper than waiting for each other.
constexpr int64_t kFewRows = 4;
constexpr int kPrefetch = 7680;

struct GroupOfRow {
    float scale;        // Of the int8 values.
    float sum;          // Their sum, scaled: what a minimum is multiplied by.
    int32_t halves[2];  // The sums of the first and the last 16 values.
};

inline int64_t quantised_bytes(int64_t ins) {
    return groups_of(ins) * (32 + static_cast<int64_t>(sizeof(GroupOfRow)));
}

// A row's groups come first, then all its int8 values. What is not finite makes the scale NaN.
template <class S>
inline void quantise_row(const float* x, int64_t ins, uint8_t* row) {
    const int64_t groups = groups_of(ins);
    auto* about = reinterpret_cast<GroupOfRow*>(row);
    auto* q = reinterpret_cast<int8_t*>(row + groups * static_cast<int64_t>(sizeof(GroupOfRow)));
    for (int64_t g = 0; g < groups; g++, x += 32, q += 32) {
        const int left = static_cast<int>(ins - g * 32 < 32 ? ins - g * 32 : 32);
        const auto a = left >= 16 ? S::load(x) : S::load_some(x, left);
        const auto b = left == 32 ? S::load(x + 16) : left > 16 ? S::load_some(x + 16, left - 16) : S::zero();
        const float largest = S::reduce_max(S::max(S::abs(a), S::abs(b)));
        const float poison = S::reduce_add(S::mul(S::add(S::abs(a), S::abs(b)), S::zero()));
        const bool some = largest >= 1e-30f;
        const float scale = some ? largest / 127.0f : 0.0f, inverse = some ? 127.0f / largest : 0.0f;
        const auto qa = S::to_int(S::mul(a, S::set1(inverse))), qb = S::to_int(S::mul(b, S::set1(inverse)));
        S::store_bytes(q, qa);
        S::store_bytes(q + 16, qb);
        const int32_t first = S::reduce_add_int(qa), second = S::reduce_add_int(qb);
        const float finite = scale + poison;
        about[g] = {finite, finite * static_cast<float>(first + second), {first, second}};
    }
}

template <class S, class W>
DECODERY_INLINE typename S::F factors(const uint8_t* p, int part) {
    p += part * 16 * W::kScaleBytes;
    if constexpr (W::kScaleBytes == 2) {
        return S::load_half(reinterpret_cast<const uint16_t*>(p));
    } else {
        return S::load(reinterpret_cast<const float*>(p));
    }
}

// NB neighbouring blocks for MB rows: out [MB][NB * 16].
template <class S, class W, int NB, int MB>
DECODERY_INLINE void coded_tile(const uint8_t* w, int64_t block, int64_t groups, const uint8_t* x, int64_t ldq,
                                float* out) {
    using F = typename S::F;
    F acc[NB][MB];
    for (int b = 0; b < NB; b++) for (int i = 0; i < MB; i++) acc[b][i] = S::zero();
    const uint8_t* q = x + groups * static_cast<int64_t>(sizeof(GroupOfRow));
    for (int64_t g = 0; g < groups; g++, w += W::kGroup, q += 32) {
        const auto about = [&](int i) -> const GroupOfRow& {
            return reinterpret_cast<const GroupOfRow*>(x + i * ldq)[g];
        };
        #pragma GCC unroll 2
        for (int part = 0; part < W::kParts; part++) {
            typename S::I sum[NB][MB];
            #pragma GCC unroll 8
            for (int i = 0; i < MB; i++) {
                const auto& of = about(i);
                const int32_t total = W::kParts == 2 ? of.halves[part] : of.halves[0] + of.halves[1];
                #pragma GCC unroll 2
                for (int b = 0; b < NB; b++) sum[b][i] = S::set1_int(W::kZero ? -W::kZero * total : 0);
            }
            #pragma GCC unroll 8
            for (int j = part * W::kLoads / W::kParts; j < (part + 1) * W::kLoads / W::kParts; j++) {
                typename S::B code[NB], high[NB];
                #pragma GCC unroll 2
                for (int b = 0; b < NB; b++) {
                    const uint8_t* p = w + b * block + j * 64;
                    S::prefetch(p + kPrefetch);
                    code[b] = S::load_bytes(p);
                    if constexpr (W::kBits == 4) {
                        high[b] = S::high_nibbles(code[b]);
                        code[b] = S::low_nibbles(code[b]);
                    }
                }
                #pragma GCC unroll 8
                for (int i = 0; i < MB; i++) {
                    const auto* values = reinterpret_cast<const int8_t*>(q + i * ldq + j * (32 / W::kLoads));
                    #pragma GCC unroll 2
                    for (int b = 0; b < NB; b++) {
                        if constexpr (W::kBits == 4) {
                            sum[b][i] = S::dot_small(sum[b][i], code[b], values);
                            sum[b][i] = S::dot_small(sum[b][i], high[b], values + 4);
                        } else {
                            sum[b][i] = S::dot(sum[b][i], code[b], values);
                        }
                    }
                }
            }
            #pragma GCC unroll 2
            for (int b = 0; b < NB; b++) {
                const F scale = factors<S, W>(w + b * block + W::kScales, part);
                #pragma GCC unroll 8
                for (int i = 0; i < MB; i++) {
                    const F scaled = S::mul(S::to_float(sum[b][i]), scale);
                    acc[b][i] = S::fma(scaled, S::set1(about(i).scale), acc[b][i]);
                }
                if constexpr (W::kMinimum) {
                    const F minimum = factors<S, W>(w + b * block + W::kMinima, part);
                    #pragma GCC unroll 8
                    for (int i = 0; i < MB; i++) acc[b][i] = S::fma(minimum, S::set1(about(i).sum), acc[b][i]);
                }
            }
        }
    }
    for (int b = 0; b < NB; b++) for (int i = 0; i < MB; i++) S::store(out + (i * NB + b) * 16, acc[b][i]);
}

// The same for floating-point weights: even and odd inputs are summed apart.
template <class S, class W, int NB, int MB>
DECODERY_INLINE void float_tile(const uint8_t* w, int64_t block, int64_t ins, const float* x, int64_t ldx, float* out) {
    using F = typename S::F;
    F even[NB][MB], odd[NB][MB];
    for (int b = 0; b < NB; b++) for (int i = 0; i < MB; i++) even[b][i] = odd[b][i] = S::zero();
    int64_t k = 0;
    const auto both = [&](bool second) {
        #pragma GCC unroll 2
        for (int b = 0; b < NB; b++) {
            const uint8_t* p = w + b * block + k * 16 * W::kBytes;
            S::prefetch(p + kPrefetch);
            F first, next = S::zero();
            if constexpr (W::kBytes == 2) {
                const auto pair = S::load_bytes(p);
                first = S::first_bfloat(pair);
                next = S::second_bfloat(pair);
            } else {
                first = S::load(reinterpret_cast<const float*>(p));
                if (second) next = S::load(reinterpret_cast<const float*>(p + 64));
            }
            #pragma GCC unroll 8
            for (int i = 0; i < MB; i++) {
                even[b][i] = S::fma(first, S::set1(x[i * ldx + k]), even[b][i]);
                if (second) odd[b][i] = S::fma(next, S::set1(x[i * ldx + k + 1]), odd[b][i]);
            }
        }
    };
    for (; k + 2 <= ins; k += 2) both(true);
    if (k < ins) both(false);
    for (int b = 0; b < NB; b++)
        for (int i = 0; i < MB; i++) S::store(out + (i * NB + b) * 16, S::add(even[b][i], odd[b][i]));
}

template <class S, class W>
struct Linear {
    using F = typename S::F;

    // Rows are quantised, or floats where the weight has floats.
    static constexpr int kMany = S::kBlocks == 2 ? (W::kFloat ? 4 : 6) : S::kRows;

    static void quantise(const LinearArgs& a, Shared& shared, int chunk, int chunks, Worker&) {
        const int64_t ldq = quantised_bytes(a.ins);
        for (int64_t m = a.rows * chunk / chunks; m < a.rows * (chunk + 1) / chunks; m++)
            quantise_row<S>(a.x + m * a.ldx, a.ins, shared.room() + m * ldq);
    }

    static const uint8_t* quantised(const LinearArgs& a, Shared& shared, Worker& worker) {
        if constexpr (W::kFloat) return nullptr;
        if (a.rows > kFewRows) return shared.room();
        const int64_t ldq = quantised_bytes(a.ins);
        uint8_t* x = worker.room(static_cast<size_t>(a.rows * ldq));
        if (worker.prepared != worker.stage) {
            for (int64_t m = 0; m < a.rows; m++) quantise_row<S>(a.x + m * a.ldx, a.ins, x + m * ldq);
            worker.prepared = worker.stage;
        }
        return x;
    }

    template <int NB, int MB>
    static DECODERY_INLINE void tile(const LinearArgs& a, const uint8_t* q, int64_t block, int64_t row, float* out) {
        const int64_t bytes = block_bytes<W>(a.ins);
        const uint8_t* w = a.weight + block * bytes;
        if constexpr (W::kFloat) {
            float_tile<S, W, NB, MB>(w, bytes, a.ins, a.x + row * a.ldx, a.ldx, out);
        } else {
            const int64_t ldq = quantised_bytes(a.ins);
            coded_tile<S, W, NB, MB>(w, bytes, groups_of(a.ins), q + row * ldq, ldq, out);
        }
    }

    // A pair of blocks for MB rows from `row` on: the second of the pair is missing at an odd end.
    template <int MB>
    static __attribute__((noinline)) void pair(const LinearArgs& a, const uint8_t* q, int64_t first, bool both,
                                               int64_t row) {
        alignas(64) float sums[MB * 32];
        if (S::kBlocks == 2 && both && a.rows > S::kRows && MB <= kMany) {
            if constexpr (MB <= kMany) tile<S::kBlocks, MB>(a, q, first, row, sums);
            if (S::kBlocks == 2) return finish<MB>(a, first, both, row, sums, 32, 16);
        }
        tile<1, MB>(a, q, first, row, sums);
        if (both) tile<1, MB>(a, q, first + 1, row, sums + MB * 16);
        finish<MB>(a, first, both, row, sums, 16, MB * 16);
    }

    // Adds bias and residual, or applies the gate, and stores the sums of rows (apart by ld_row) and blocks (ld_block).
    template <int MB>
    static DECODERY_INLINE void finish(const LinearArgs& a, int64_t first, bool both, int64_t row, const float* sums,
                                       int ld_row, int ld_block) {
        for (int i = 0; i < MB; i++) {
            const float* sum = sums + i * ld_row;
            if (a.gated) {
                const int64_t n = first / 2 * 16;
                F gate = S::load(sum), up = S::load(sum + ld_block);
                if (a.bias) {
                    gate = S::add(gate, some(a.bias + n, a.outs - n));
                    up = S::add(up, some(a.bias + a.outs + n, a.outs - n));
                }
                store(a, row + i, n, swiglu<S>(gate, up));
                continue;
            }
            for (int b = 0; b < 1 + both; b++) {
                const int64_t n = (first + b) * 16;
                F value = S::load(sum + b * ld_block);
                if (a.bias) value = S::add(value, some(a.bias + n, a.outs - n));
                store(a, row + i, n, value);
            }
        }
    }

    static DECODERY_INLINE F some(const float* p, int64_t left) {
        return left >= 16 ? S::load(p) : S::load_some(p, static_cast<int>(left));
    }

    static DECODERY_INLINE void store(const LinearArgs& a, int64_t row, int64_t n, F value) {
        const int64_t left = a.outs - n;
        if (a.residual) value = S::add(value, some(a.residual + row * a.ldr + n, left));
        float* p = a.out + row * a.ldo + n;
        if (left >= 16) S::store(p, value); else S::store_some(p, value, static_cast<int>(left));
    }

    template <int MB>
    static DECODERY_INLINE void rest(const LinearArgs& a, const uint8_t* q, int64_t first, bool both, int64_t row) {
        if constexpr (MB > 0) {
            if (a.rows - row == MB) return pair<MB>(a, q, first, both, row);
            rest<MB - 1>(a, q, first, both, row);
        }
    }

    static void product(const LinearArgs& a, Shared& shared, int chunk, int chunks, Worker& worker) {
        const uint8_t* q = quantised(a, shared, worker);
        const int64_t blocks = block_count(a), pairs = (blocks + 1) / 2;
        const int step = a.rows > S::kRows ? kMany : S::kRows;
        for (int64_t p = pairs * chunk / chunks; p < pairs * (chunk + 1) / chunks; p++) {
            const bool both = 2 * p + 1 < blocks;
            int64_t row = 0;
            for (; row + step <= a.rows; row += step) {
                if (step == kMany) pair<kMany>(a, q, 2 * p, both, row);
                else pair<S::kRows>(a, q, 2 * p, both, row);
            }
            rest<S::kRows - 1>(a, q, 2 * p, both, row);
        }
    }

    static int64_t block_count(const LinearArgs& a) { return blocks_of(a.outs) * (a.gated ? 2 : 1); }

    static void plan(const LinearArgs& a, Plan& plan) {
        if (a.rows <= 0) return;
        const int64_t pairs = (block_count(a) + 1) / 2, threads = plan.threads;
        if (!W::kFloat && a.rows > kFewRows) {
            plan.shared.grow(static_cast<size_t>(a.rows * quantised_bytes(a.ins)));
            plan.add<quantise>(a, a.rows < 32 ? 1 : threads * 2);
        }
        // Work of some ten microseconds a chunk, in as many chunks as the threads can share evenly.
        const int64_t cost = pairs * 2 * block_bytes<W>(a.ins) * (a.rows + 1) / 2;
        int64_t chunks = cost / 131072;
        chunks = chunks < 2 ? (cost > 16384 ? threads : 1) : (chunks + threads - 1) / threads * threads;
        chunks = chunks > 8 * threads ? 8 * threads : chunks;
        plan.add<product>(a, chunks > pairs ? pairs : chunks);
    }
};

template <class S>
void plan_linear(const int64_t* args, Plan& plan) {
    const auto& a = *reinterpret_cast<const LinearArgs*>(args);
    with_format(a.format, [&](auto format) { Linear<S, decltype(format)>::plan(a, plan); });
}

}  // namespace decodery
