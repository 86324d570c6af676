// Products of rows with packed weights.
//
// Quantised weights are multiplied by activations rounded to int8 in groups of 32, each with a scale. Sums within a
// group are integers and exact; the groups are added by multiply-adds from the first to the last. So the bits of an
// output depend on its row alone, whatever the tile, the number of rows or threads, and the processor.
#pragma once
#include <algorithm>
#include <cstring>

#include "abi.hpp"
#include "weight_formats.hpp"
#include "functions.hpp"

namespace decodery {

// Up to so many rows are quantised by every thread for itself, which is cheaper than synchronising.
constexpr int64_t kFewRows = 4;
// The rows that are multiplied by a weight before the next rows: few enough that they stay in a core's cache. A
// multiple of every panel.
constexpr int64_t kRowsAtOnce = 120;
// Up to so many rows, weights are read one block at a time: processors read one stream of memory faster than two.
constexpr int64_t kOneStream = 32;
constexpr int kPrefetch = 7680;

// 32 activations of a row. The rows of a tile form a panel: the first groups of all its rows, then the second groups,
// and so on. So a product reads a panel sequentially.
struct Quantised {
    int8_t values[32];
    float scale;
    float sum;          // The scaled sum of the values, by which a minimum is multiplied.
    int32_t totals[2];  // The sums of all values and of the last 16, times -128, which correct a code's offset of 128.
};

inline int64_t quantised_bytes(int64_t rows, int64_t ins) {
    return rows * groups_of(ins) * static_cast<int64_t>(sizeof(Quantised));
}

template <class S>
DECODERY_INLINE typename S::F load_up_to(const float* x, int64_t left) {
    return left >= 16 ? S::load(x) : left > 0 ? S::load_some(x, static_cast<int>(left)) : S::zero();
}

// Writes a row's groups, `step` apart. A value that is not finite makes a scale NaN, and so all outputs of the row.
template <class S>
inline void quantise_row(const float* x, int64_t ins, Quantised* to, int64_t step) {
    auto bad = S::zero();
    Quantised* const start = to;
    for (int64_t k = 0; k < ins; k += 512) {
        alignas(64) float largest[16] = {}, inverse[16], scale[16];
        const int64_t end = ins - k < 512 ? ins - k : 512;
        for (int64_t j = 0; j < end; j += 32) {
            const auto a = S::abs(load_up_to<S>(x + k + j, end - j));
            const auto b = S::abs(load_up_to<S>(x + k + j + 16, end - j - 16));
            bad = S::fma(S::add(a, b), S::zero(), bad);
            largest[j / 32] = S::reduce_max(S::max(a, b));
        }
        const auto bounded = S::max(S::load(largest), S::set1(1e-30f));
        S::store(inverse, S::div(S::set1(127.0f), bounded));
        S::store(scale, S::div(bounded, S::set1(127.0f)));
        for (int64_t j = 0; j < end; j += 32, to += step) {
            const auto factor = S::set1(inverse[j / 32]);
            // The bounds only change NaN, and infinity beside NaN, which no integer can represent; the scale keeps NaN.
            const auto lowest = S::set1(-127.0f), highest = S::set1(127.0f);
            const auto first = S::mul(load_up_to<S>(x + k + j, end - j), factor);
            const auto second = S::mul(load_up_to<S>(x + k + j + 16, end - j - 16), factor);
            const auto a = S::to_int(S::max(S::min(highest, first), lowest));
            const auto b = S::to_int(S::max(S::min(highest, second), lowest));
            S::store_bytes(to->values, a);
            S::store_bytes(to->values + 16, b);
            int32_t sums[2];
            S::store_sums(sums, a, b);
            to->scale = scale[j / 32];
            to->sum = to->scale * static_cast<float>(sums[0] + sums[1]);
            to->totals[0] = -128 * (sums[0] + sums[1]);
            to->totals[1] = -128 * sums[1];
        }
    }
    start->scale += S::reduce_add(bad);
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

// NB neighbouring blocks for a panel of MB rows: out [MB][NB * 16].
template <class S, class W, int NB, int MB>
DECODERY_INLINE void coded_tile(const uint8_t* w, int64_t block, int64_t groups, const Quantised* x, float* out) {
    using F = typename S::F;
    F acc[NB][MB];
    for (int b = 0; b < NB; b++) for (int i = 0; i < MB; i++) acc[b][i] = S::zero();
    for (int64_t g = 0; g < groups; g++, w += W::kGroup, x += MB) {
        #pragma GCC unroll 2
        for (int part = 0; part < W::kParts; part++) {
            typename S::I sum[NB][MB];
            #pragma GCC unroll 8
            for (int i = 0; i < MB; i++) {
                const auto& of = x[i];
                const int32_t total = W::kParts == 2 && part == 0 ? of.totals[0] - of.totals[1] : of.totals[part];
                #pragma GCC unroll 2
                for (int b = 0; b < NB; b++) sum[b][i] = S::set1_int(W::kZero ? total / (128 / W::kZero) : 0);
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
                    if constexpr (W::kTable) {
                        high[b] = S::look_up(high[b], kFp4);
                        code[b] = S::look_up(code[b], kFp4);
                    }
                }
                #pragma GCC unroll 8
                for (int i = 0; i < MB; i++) {
                    const int8_t* values = x[i].values + j * (32 / W::kLoads);
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
                    acc[b][i] = S::fma(scaled, S::set1(x[i].scale), acc[b][i]);
                }
                if constexpr (W::kMinimum) {
                    const F minimum = factors<S, W>(w + b * block + W::kMinima, part);
                    #pragma GCC unroll 8
                    for (int i = 0; i < MB; i++) acc[b][i] = S::fma(minimum, S::set1(x[i].sum), acc[b][i]);
                }
            }
        }
    }
    for (int b = 0; b < NB; b++) for (int i = 0; i < MB; i++) S::store(out + (i * NB + b) * 16, acc[b][i]);
}

// The same for floating-point weights: even and odd inputs are summed separately.
template <class S, class W, int NB, int MB>
DECODERY_INLINE void float_tile(const uint8_t* w, int64_t block, int64_t ins, const float* x, int64_t ldx, float* out) {
    using F = typename S::F;
    F even[NB][MB], odd[NB][MB];
    for (int b = 0; b < NB; b++) for (int i = 0; i < MB; i++) even[b][i] = odd[b][i] = S::zero();
    int64_t k = 0;
    const auto both = [&](bool second) {
        F first[NB], next[NB];
        #pragma GCC unroll 2
        for (int b = 0; b < NB; b++) {
            const uint8_t* p = w + b * block + k * 16 * W::kBytes;
            S::prefetch(p + kPrefetch);
            next[b] = S::zero();
            if constexpr (W::kBytes == 2) {
                const auto pair = S::load_bytes(p);
                first[b] = S::first_bfloat(pair);
                next[b] = S::second_bfloat(pair);
            } else {
                first[b] = S::load(reinterpret_cast<const float*>(p));
                if (second) next[b] = S::load(reinterpret_cast<const float*>(p + 64));
            }
        }
        // Each number of a row is read once for all blocks.
        #pragma GCC unroll 8
        for (int i = 0; i < MB; i++) {
            const F x0 = S::set1(x[i * ldx + k]);
            #pragma GCC unroll 2
            for (int b = 0; b < NB; b++) even[b][i] = S::fma(first[b], x0, even[b][i]);
            if (!second) continue;
            const F x1 = S::set1(x[i * ldx + k + 1]);
            #pragma GCC unroll 2
            for (int b = 0; b < NB; b++) odd[b][i] = S::fma(next[b], x1, odd[b][i]);
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

    static constexpr int kMany = S::kBlocks == 2 ? 6 : S::kRows;

    // The rows of a panel.
    static int64_t panel(const LinearArgs& a) { return a.rows > kOneStream ? kMany : S::kRows; }

    static void quantise_rows(const LinearArgs& a, int64_t row, int64_t end, Quantised* x) {
        const int64_t groups = groups_of(a.ins), panel = Linear::panel(a);
        for (; row < end; row++) {
            const int64_t first = row / panel * panel, count = a.rows - first < panel ? a.rows - first : panel;
            quantise_row<S>(a.x + row * a.ldx, a.ins, x + first * groups + row - first, count);
        }
    }

    static void quantise(const LinearArgs& a, Shared& shared, int chunk, int chunks, Worker&) {
        quantise_rows(a, a.rows * chunk / chunks, a.rows * (chunk + 1) / chunks, reinterpret_cast<Quantised*>(shared.buffer()));
    }

    static const Quantised* quantised(const LinearArgs& a, Shared& shared, Worker& worker) {
        if constexpr (W::kFloat) return nullptr;
        if (a.rows > kFewRows) return reinterpret_cast<Quantised*>(shared.buffer());
        auto* x = reinterpret_cast<Quantised*>(worker.buffer(static_cast<size_t>(quantised_bytes(a.rows, a.ins))));
        if (worker.prepared != worker.stage) quantise_rows(a, 0, a.rows, x);
        worker.prepared = worker.stage;
        return x;
    }

    template <int NB, int MB>
    static DECODERY_INLINE void tile(const LinearArgs& a, const Quantised* q, int64_t block, int64_t row, float* out) {
        const int64_t bytes = block_bytes<W>(a.ins);
        const uint8_t* w = a.weight + block * bytes;
        if constexpr (W::kFloat) {
            float_tile<S, W, NB, MB>(w, bytes, a.ins, a.x + row * a.ldx, a.ldx, out);
        } else {
            const int64_t groups = groups_of(a.ins);
            coded_tile<S, W, NB, MB>(w, bytes, groups, q + row * groups, out);
        }
    }

    // Multiplies MB rows from `row` on by a pair of blocks, of which the second is missing after the last odd block.
    template <int MB>
    static DECODERY_INLINE void pair(const LinearArgs& a, const Quantised* q, int64_t first, bool both, int64_t row) {
        alignas(64) float sums[MB * 32];
        if (S::kBlocks == 2 && both && a.rows > kOneStream && MB <= kMany) {
            if constexpr (MB <= kMany) tile<S::kBlocks, MB>(a, q, first, row, sums);
            if (S::kBlocks == 2) return finish<MB>(a, first, both, row, sums, 32, 16);
        }
        // One copy of the inlined code for both blocks: processors predict the next read of each instruction from its
        // earlier reads. For a single row, two alternating copies were a third slower, and a call from here a
        // twentieth.
        for (int b = 0; b < 1 + both; b++) tile<1, MB>(a, q, first + b, row, sums + b * MB * 16);
        finish<MB>(a, first, both, row, sums, 16, MB * 16);
    }

    // Adds bias and residual, or applies the gate or the activation, and stores the sums, with strides ld_row of rows and ld_block of
    // blocks.
    template <int MB>
    static DECODERY_INLINE void finish(const LinearArgs& a, int64_t first, bool both, int64_t row, const float* sums,
                                       int ld_row, int ld_block) {
        for (int i = 0; i < MB; i++) {
            const float* sum = sums + i * ld_row;
            if (a.gated > 0) {
                const int64_t n = first / 2 * 16;
                F gate = S::load(sum), up = S::load(sum + ld_block);
                if (a.bias) {
                    gate = S::add(gate, some(a.bias + n, a.outs - n));
                    up = S::add(up, some(a.bias + a.outs + n, a.outs - n));
                }
                store(a, row + i, n, a.gated == 1 ? swiglu<S>(gate, up) : gate_by(a.gated - 1, gate, up));
                continue;
            }
            for (int b = 0; b < 1 + both; b++) {
                const int64_t n = (first + b) * 16;
                F value = S::load(sum + b * ld_block);
                if (a.bias) value = S::add(value, some(a.bias + n, a.outs - n));
                if (a.gated < 0) value = activated(-1 - a.gated, value);
                store(a, row + i, n, value);
            }
        }
    }

    // Not inlined, so that it does not enlarge the code of the tiles.
    static __attribute__((noinline)) F gate_by(int64_t activation, F gate, F up) {
        return activation == kClampedSwiglu ? clamped_swiglu<S>(gate, up) : S::mul(activate<S>(activation, gate), up);
    }

    static __attribute__((noinline)) F activated(int64_t activation, F value) { return activate<S>(activation, value); }

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
    static DECODERY_INLINE void rest(const LinearArgs& a, const Quantised* q, int64_t first, bool both, int64_t row,
                                     int64_t end) {
        if constexpr (MB > 0) {
            if (end - row == MB) return pair<MB>(a, q, first, both, row);
            rest<MB - 1>(a, q, first, both, row, end);
        }
    }

    static void product(const LinearArgs& a, Shared& shared, int chunk, int chunks, Worker& worker) {
        const Quantised* q = quantised(a, shared, worker);
        const int64_t blocks = block_count(a), pairs = (blocks + 1) / 2, times = times_of(a);
        const int64_t part = chunk / (chunks / times), share = chunk % (chunks / times), shares = chunks / times;
        const int64_t begin = part * kRowsAtOnce, end = part + 1 < times ? begin + kRowsAtOnce : a.rows;
        for (int64_t p = pairs * share / shares; p < pairs * (share + 1) / shares; p++)
            rows(a, q, 2 * p, 2 * p + 1 < blocks, begin, end);
    }

    static void rows(const LinearArgs& a, const Quantised* q, int64_t block, bool both, int64_t row, int64_t end) {
        if (a.rows > kOneStream) {
            for (; row + kMany <= end; row += kMany) pair<kMany>(a, q, block, both, row);
        } else {
            for (; row + S::kRows <= end; row += S::kRows) pair<S::kRows>(a, q, block, both, row);
        }
        rest<S::kRows - 1>(a, q, block, both, row, end);
    }

    static int64_t times_of(const LinearArgs& a) { return (a.rows + kRowsAtOnce - 1) / kRowsAtOnce; }

    static int64_t block_count(const LinearArgs& a) { return blocks_of(a.outs) * (a.gated > 0 ? 2 : 1); }

    static void plan(const LinearArgs& a, Plan& plan) {
        if (a.rows <= 0) return;
        const int64_t pairs = (block_count(a) + 1) / 2, threads = plan.threads;
        if (!W::kFloat && a.rows > kFewRows) {
            plan.shared.grow(static_cast<size_t>(quantised_bytes(a.rows, a.ins)));
            plan.add<quantise>(a, a.rows < 64 ? threads : 2 * threads);
        }
        // About ten microseconds of work per chunk, in a number of chunks that the threads can share evenly.
        const int64_t times = times_of(a), rows = times > 1 ? kRowsAtOnce : a.rows;
        const int64_t cost = pairs * 2 * block_bytes<W>(a.ins) * (rows + 1) / 2;
        int64_t chunks = cost / 131072;
        chunks = chunks < 2 ? (cost > 16384 ? threads : 1) : (chunks + threads - 1) / threads * threads;
        chunks = std::min({chunks, 8 * threads, pairs, Team::kMostChunks / times});
        plan.add<product>(a, times * chunks);
    }
};

template <class S>
void plan_linear(const int64_t* args, Plan& plan) {
    const auto& a = *reinterpret_cast<const LinearArgs*>(args);
    with_format(a.format, [&](auto format) { Linear<S, decltype(format)>::plan(a, plan); });
}

}  // namespace decodery
