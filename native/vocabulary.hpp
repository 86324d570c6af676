// Kernels over rows of logits [rows, vocab]: the operations of decoding. A row is never split between chunks.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>

#include "abi.hpp"
#include "functions.hpp"
#include "noise.hpp"
#include "penalties.hpp"
#include "selection.hpp"

namespace decodery {

constexpr float kNever = -std::numeric_limits<float>::infinity();

template <class S>
struct Vocabulary {
    using F = typename S::F;

    static DECODERY_INLINE F load(const float* p, int64_t left, F otherwise) {
        if (left >= 16) return S::load(p);
        return S::pick((1u << left) - 1, S::load_some(p, static_cast<int>(left)), otherwise);
    }

    static DECODERY_INLINE void store(float* p, F value, int64_t left) {
        if (left >= 16) S::store(p, value); else S::store_some(p, value, static_cast<int>(left));
    }

    // Calls each(k, left) for every 16 columns.
    template <class Fn>
    static DECODERY_INLINE void columns(int64_t vocab, Fn each) {
        for (int64_t k = 0; k < vocab; k += 16) each(k, vocab - k);
    }

    // Calls each(row) for the rows of one chunk.
    template <class Fn>
    static DECODERY_INLINE void rows(int64_t count, int chunk, int chunks, Fn each) {
        for (int64_t m = count * chunk / chunks; m < count * (chunk + 1) / chunks; m++) each(m);
    }

    static void largest(const LargestArgs& a, Shared&, int chunk, int chunks, Worker&) {
        rows(a.rows, chunk, chunks, [&](int64_t m) {
            const float* x = a.x + m * a.ldx;
            if (a.words) {
                a.places[m] = largest_marked(x, a.vocab, a.words + m * a.ldw);
                return;
            }
            const int64_t place = first_largest<S>(x, a.vocab);
            a.places[m] = x[place] > kNever ? place : -1;
        });
    }

    // The same as `mask` followed by `largest`.
    static int64_t largest_marked(const float* x, int64_t vocab, const uint32_t* words) {
        const F never = S::set1(kNever);
        const auto kept = [&](int64_t k, F v) { return S::pick(words[k / 32] >> (k % 32) & 0xffff, v, never); };
        F best = never;
        uint32_t strange = 0;
        columns(vocab, [&](int64_t k, int64_t left) {
            const F v = load(x + k, left, never);
            strange |= ~S::equal(v, v) & 0xffff;
            best = S::max(best, kept(k, v));
        });
        const float top = S::reduce_max(best);
        if (strange || !(top > kNever)) return -1;
        for (int64_t k = 0;; k += 16) {
            const uint32_t found = S::equal(kept(k, load(x + k, vocab - k, never)), S::set1(top));
            if (found) return k + __builtin_ctz(found);
        }
    }

    // The largest element of a row, and the sum of exp(element - largest) over the row.
    struct Norm { float largest; double sum; };

    static Norm norm(const float* x, int64_t vocab) {
        F best = S::set1(kNever);
        columns(vocab, [&](int64_t k, int64_t left) { best = S::max(best, load(x + k, left, S::set1(kNever))); });
        const float largest = S::reduce_max(best);
        const F subtracted = S::set1(largest);
        double sum = 0;
        // Sums of 1,024 terms in float32, and their sum in float64.
        for (int64_t start = 0; start < vocab; start += 1024) {
            F some[2] = {S::zero(), S::zero()};
            const int64_t end = start + 1024 < vocab ? start + 1024 : vocab;
            for (int64_t k = start; k < end; k += 16) {
                const F term = exponential<S>(S::sub(load(x + k, end - k, S::set1(kNever)), subtracted));
                some[k / 16 % 2] = S::add(some[k / 16 % 2], term);
            }
            sum += static_cast<double>(S::reduce_add(S::add(some[0], some[1])));
        }
        return {largest, sum};
    }

    // Maps a row's elements to log-probabilities.
    struct Normalised {
        F largest, log;
        DECODERY_INLINE F operator()(F x) const { return S::sub(S::sub(x, largest), log); }
    };

    static Normalised normalised(const Norm& found) {
        return {S::set1(found.largest), S::set1(static_cast<float>(log_of(found.sum)))};
    }

    static void log_softmax(const LogSoftmaxArgs& a, Shared&, int chunk, int chunks, Worker&) {
        rows(a.rows, chunk, chunks, [&](int64_t m) {
            const float* x = a.x + m * a.ldx;
            const Norm found = norm(x, a.vocab);
            if (a.norms) a.norms[m] = static_cast<double>(found.largest) + log_of(found.sum);
            if (!a.out) return;
            write_logprobs(x, a.vocab, normalised(found), a.out + m * a.vocab);
        });
    }

    static void write_logprobs(const float* x, int64_t vocab, const Normalised& logprob, float* out) {
        columns(vocab, [&](int64_t k, int64_t left) { store(out + k, logprob(load(x + k, left, logprob.largest)), left); });
    }

    static void leaders(const LeadersArgs& a, Shared&, int chunk, int chunks, Worker& worker) {
        Leaders<S> found(a.count, a.vocab, worker);
        rows(a.rows, chunk, chunks, [&](int64_t m) {
            const float* x = a.x + m * a.ldx;
            if (a.logprobs) found.find(x, a.vocab, normalised(norm(x, a.vocab))); else found.find(x, a.vocab);
            for (int64_t i = 0; i < a.count; i++) {
                a.values[m * a.count + i] = found[i].value;
                a.places[m * a.count + i] = found[i].place;
            }
        });
    }

    // NaN is above nothing.
    static void count_above(const CountAboveArgs& a, Shared&, int chunk, int chunks, Worker&) {
        rows(a.rows, chunk, chunks, [&](int64_t m) {
            const F least = S::set1(a.least[m]);
            int64_t count = 0;
            columns(a.vocab, [&](int64_t k, int64_t left) {
                const F x = load(a.x + m * a.ldx + k, left, S::set1(kNever));
                count += __builtin_popcount(S::above(x, least) & S::equal(x, x));
            });
            a.counts[m] = count;
        });
    }

    static void cut_below(const CutBelowArgs& a, Shared&, int chunk, int chunks, Worker&) {
        rows(a.rows, chunk, chunks, [&](int64_t m) { cut(a.x + m * a.ldx, a.scores + m * a.lds, a.vocab, a.least[m]); });
    }

    // Sets elements with scores below the border to -inf. NaN is kept.
    static void cut(float* x, const float* scores, int64_t vocab, float border) {
        const F least = S::set1(border), never = S::set1(kNever);
        columns(vocab, [&](int64_t k, int64_t left) {
            const F score = load(scores + k, left, least);
            // Not above and not equal: below, as neither is NaN.
            const uint32_t kept = S::above(score, least) | S::equal(score, least);
            store(x + k, S::pick(kept, load(x + k, left, never), never), left);
        });
    }

    static void nucleus(const NucleusArgs& a, Shared&, int chunk, int chunks, Worker& worker) {
        auto* found = reinterpret_cast<Leader*>(worker.buffer(static_cast<size_t>(a.vocab + 16) * sizeof(Leader)));
        rows(a.rows, chunk, chunks, [&](int64_t m) {
            a.border[m] = border(a.scores + m * a.lds, a.logprobs + m * a.ldl, a.vocab, a.mass[m], found);
        });
    }

    // buffer has vocab + 16 elements.
    static float border(const float* scores, const float* logprobs, int64_t vocab, float mass, Leader* buffer) {
        for (int64_t count = 64;; count *= 8) {
            const int64_t looked = count < vocab ? count : vocab;
            Leaders<S> found(looked, vocab, buffer);
            found.find(scores, vocab);
            const int64_t i = reaching(looked, mass, [&](int64_t k) { return logprobs[found[k].place]; });
            // Found among these, or these are all elements: then the border is the last one.
            if (i < looked || looked == vocab) return found[i > 0 ? i - 1 : 0].value;
        }
    }

    // The number of log-probabilities, taken in order, whose probabilities reach a mass; `count` at most.
    template <class Fn>
    static DECODERY_INLINE int64_t reaching(int64_t count, float mass, Fn logprob) {
        int64_t i = 0;
        const double wanted = static_cast<double>(mass);
        for (double sum = 0; i < count && !(sum >= wanted); i++) sum += static_cast<double>(std::exp(logprob(i)));
        return i;
    }

    static void draw(const DrawArgs& a, Shared&, int chunk, int chunks, Worker&) {
        rows(a.rows, chunk, chunks, [&](int64_t m) {
            a.places[m] = drawn(a.x + m * a.ldx, a.vocab, Noise<S>(a.keys[2 * m], a.keys[2 * m + 1]));
        });
    }

    static int64_t drawn(const float* x, int64_t vocab, const Noise<S>& noise) {
        const F never = S::set1(kNever);
        float best = kNever;
        int64_t place = -1;
        columns(vocab, [&](int64_t k, int64_t left) {
            const F logit = load(x + k, left, never);
            const uint32_t possible = S::above(logit, never);
            if (!possible) return;
            const auto tokens = S::add_int(S::set1_int(static_cast<int32_t>(k)), S::iota());
            const F sum = S::add(logit, noise.of(tokens));
            uint32_t better = S::above(sum, S::set1(best)) & possible;
            if (!better) return;
            alignas(64) float sums[16];
            S::store(sums, sum);
            for (; better; better &= better - 1) {
                const int lane = __builtin_ctz(better);
                if (std::isnan(best) || sums[lane] <= best) continue;
                best = sums[lane];
                place = k + lane;
            }
        });
        return std::isnan(best) ? -1 : place;
    }

    static void noise(const NoiseArgs& a, Shared&, int chunk, int chunks, Worker&) {
        const int64_t end = a.count * (chunk + 1) / chunks;
        for (int64_t i = a.count * chunk / chunks; i < end; i += 16) {
            alignas(64) int32_t first[16] = {}, second[16] = {}, tokens[16] = {};
            const int64_t left = end - i < 16 ? end - i : 16;
            for (int64_t j = 0; j < left; j++) {
                first[j] = a.keys[2 * (i + j)];
                second[j] = a.keys[2 * (i + j) + 1];
                tokens[j] = a.tokens[i + j];
            }
            const Noise<S> each(S::load_int(first), S::load_int(second));
            store(a.out + i, each.of(S::load_int(tokens)), left);
        }
    }

    static void mask(const MaskArgs& a, Shared&, int chunk, int chunks, Worker&) {
        rows(a.rows, chunk, chunks, [&](int64_t m) {
            float* x = a.x + m * a.ldx;
            masked(x, a.vocab, a.words + m * a.ldw, x);
        });
    }

    // Writes x to `out`, which may be x, with -inf where the bit is 0. NaN is kept.
    static void masked(const float* x, int64_t vocab, const uint32_t* words, float* out) {
        columns(vocab, [&](int64_t k, int64_t left) {
            const uint32_t allowed = words[k / 32] >> (k % 32) & 0xffff;
            if (allowed == 0xffff && x == out) return;
            const F v = load(x + k, left, S::zero());
            store(out + k, S::pick(allowed | ~S::equal(v, v), v, S::set1(kNever)), left);
        });
    }

    static void divide(const DivideArgs& a, Shared&, int chunk, int chunks, Worker&) {
        rows(a.rows, chunk, chunks, [&](int64_t m) {
            float* x = a.x + m * a.ldx;
            const F divisor = S::set1(a.divisors[m]);
            columns(a.vocab, [&](int64_t k, int64_t left) {
                store(x + k, S::div(load(x + k, left, S::zero()), divisor), left);
            });
        });
    }

    static void copy(const CopyArgs& a, Shared&, int chunk, int chunks, Worker&) {
        rows(a.rows, chunk, chunks, [&](int64_t m) {
            const float* x = a.x + a.sources[m] * a.ldx;
            std::memcpy(a.out + a.targets[m] * a.ldo, x, static_cast<size_t>(a.vocab) * sizeof(float));
        });
    }

    static void spread(const SpreadArgs& a, Shared&, int chunk, int chunks, Worker&) {
        rows(a.rows, chunk, chunks, [&](int64_t m) {
            float* x = a.x + m * a.ldx;
            std::fill(x, x + a.vocab, kNever);
            for (int64_t i = m * a.count; i < (m + 1) * a.count; i++) {
                if (a.places[i] >= 0 && a.places[i] < a.vocab) x[a.places[i]] = a.values[i];
            }
        });
    }

    static void entropy(const EntropyArgs& a, Shared&, int chunk, int chunks, Worker&) {
        rows(a.rows, chunk, chunks, [&](int64_t m) {
            const float* x = a.x + m * a.ldx;
            double sum = 0;
            for (int64_t start = 0; start < a.vocab; start += 1024) {
                F some = S::zero();
                const int64_t end = start + 1024 < a.vocab ? start + 1024 : a.vocab;
                for (int64_t k = start; k < end; k += 16) {
                    const F log = load(x + k, end - k, S::set1(kNever));
                    // The logarithm is bounded to a finite number, so that a probability of 0 contributes 0.
                    some = S::fma(exponential<S>(log), S::max(S::set1(-1000.0f), log), some);
                }
                sum += static_cast<double>(S::reduce_add(some));
            }
            a.out[m] = static_cast<float>(-sum);
        });
    }
};

template <auto Run, class Args>
void plan_rows(const int64_t* args, Plan& plan) {
    const auto& a = *reinterpret_cast<const Args*>(args);
    if (a.rows > 0 && a.vocab > 0) plan.add<Run>(a, std::min<int64_t>(a.rows, 64));
}

template <auto Run, class Args>
void plan_list(const int64_t* args, Plan& plan) {
    const auto& a = *reinterpret_cast<const Args*>(args);
    if (a.count > 0) plan.add<Run>(a, a.count < 4096 ? 1 : 4 * plan.threads);
}

}  // namespace decodery
