// Penalties, truncations and the draw of a row in one kernel, for the parameters that most requests use.
//
// The tokens are those of the separate kernels over the vocabulary: the same operations on the same numbers.
#pragma once
#include "abi.hpp"
#include "penalties.hpp"
#include "vocabulary.hpp"

namespace decodery {

template <class S>
struct FusedSampling {
    using F = typename S::F;
    using V = Vocabulary<S>;

    // The memory that a row needs besides its logits, in a worker's buffer.
    struct Buffers {
        int64_t* sorted; float* seen; float* generated;
        float* values; float* logprobs; Leader* leaders;

        Buffers(const FusedSamplingArgs& args, int64_t vocab, Worker& worker) {
            const auto round = [](int64_t bytes) { return (bytes + 63) / 64 * 64; };
            const int64_t row = round(4 * (vocab + 16)), counts[] = {
                round(8 * args.generated_count), round(4 * args.seen_count), round(4 * args.generated_count), row, row,
                round(static_cast<int64_t>(sizeof(Leader)) * (vocab + 16))};
            int64_t bytes = 0;
            for (const int64_t count : counts) bytes += count;
            uint8_t* at = worker.buffer(static_cast<size_t>(bytes));
            const auto next = [&](int i) { return (at += counts[i]) - counts[i]; };
            sorted = reinterpret_cast<int64_t*>(next(0));
            seen = reinterpret_cast<float*>(next(1));
            generated = reinterpret_cast<float*>(next(2));
            values = reinterpret_cast<float*>(next(3));
            logprobs = reinterpret_cast<float*>(next(4));
            leaders = reinterpret_cast<Leader*>(next(5));
        }
    };

    static void choose(const ChooseArgs& a, Shared&, int chunk, int chunks, Worker& worker) {
        V::rows(a.rows, chunk, chunks, [&](int64_t m) {
            float found[kCuts];
            float* borders = a.borders ? a.borders + m * kCuts : found;
            std::fill(borders, borders + kCuts, kNever);
            a.places[m] = penalised(a.x + m * a.ldx, a.vocab, a.args[m], Buffers(a.args[m], a.vocab, worker), borders);
        });
    }

    static int64_t penalised(float* x, int64_t vocab, const FusedSamplingArgs& args, const Buffers& buffers,
                             float* borders) {
        if (args.seen_count > 0)
            penalise_repetition(x, vocab, args.seen, args.seen_count, args.repetition, buffers.seen);
        const int64_t changed = penalise_frequency(x, vocab, args.generated, args.generated_count, args.presence,
                                                   args.frequency, buffers.sorted, buffers.generated);
        const int64_t token = args.temperature == 0 ? likeliest(x, vocab) : sampled(x, vocab, args, buffers, borders);
        restore(x, vocab, buffers.sorted, changed, buffers.generated);
        restore(x, vocab, args.seen, args.seen_count, buffers.seen);
        return token;
    }

    static int64_t likeliest(const float* x, int64_t vocab) {
        const int64_t place = first_largest<S>(x, vocab);
        return x[place] > kNever ? place : -1;
    }

    static int64_t sampled(const float* x, int64_t vocab, const FusedSamplingArgs& args, const Buffers& buffers,
                           float* borders) {
        if (args.width > 0) {
            Leaders<S> found(args.width, vocab, buffers.leaders);
            found.find(x, vocab);
            // At least one token more than top-k keeps: if the last found is below the last kept, no other token ties.
            if (top_k_of(found, args, buffers.values, borders)) return drawn(found, args, buffers.values, borders);
        }
        return of_all(x, vocab, args, buffers, borders);
    }

    // Writes the values of the likeliest tokens after top-k; false if tokens that were not found may tie with the last.
    static bool top_k_of(const Leaders<S>& found, const FusedSamplingArgs& args, float* values, float* borders) {
        for (int64_t i = 0; i < args.width; i++) values[i] = found[i].value / static_cast<float>(args.temperature);
        const float least = values[args.top_k - 1], last = values[args.width - 1];
        if (!(last < least || last == kNever)) return false;
        cut_after(values, args.width, least, borders[kTopK - kFirstCut]);
        return true;
    }

    // Does the same as V::cut for values in descending order; sets the border of the cut.
    static void cut_after(float* values, int64_t count, float least, float& border) {
        border = least;
        for (int64_t i = count - 1; i >= 0 && values[i] < least; i--) values[i] = kNever;
    }

    static int64_t drawn(const Leaders<S>& found, const FusedSamplingArgs& args, float* values, float* borders) {
        const int64_t width = args.width;
        const float mass = static_cast<float>(args.top_p);
        if (args.top_p < 1) {
            const auto norm = V::norm(values, width);
            const float log = static_cast<float>(log_of(norm.sum));
            const int64_t i = V::reaching(width, mass, [&](int64_t k) { return values[k] - norm.largest - log; });
            cut_after(values, width, values[i > 0 ? i - 1 : 0], borders[kTopP - kFirstCut]);
        }
        cut_after(values, width, values[0] + static_cast<float>(args.min_p), borders[kMinP - kFirstCut]);
        const Noise<S> noise(args.key[0], args.key[1]);
        float best = kNever;
        int64_t token = -1;
        for (int64_t k = 0; k < width && values[k] != kNever; k += 16) {
            alignas(64) int32_t tokens[16] = {};
            alignas(64) float sums[16];
            const int64_t left = width - k < 16 ? width - k : 16;
            for (int64_t i = 0; i < left; i++) tokens[i] = found[k + i].place;
            S::store(sums, S::add(V::load(values + k, left, S::set1(kNever)), noise.of(S::load_int(tokens))));
            for (int64_t i = 0; i < left && values[k + i] != kNever; i++) {
                if (std::isnan(sums[i])) return -1;
                // Of equal sums the lowest token wins.
                if (sums[i] < best || (sums[i] == best && tokens[i] > token)) continue;
                best = sums[i];
                token = tokens[i];
            }
        }
        return token;
    }

    static int64_t of_all(const float* x, int64_t vocab, const FusedSamplingArgs& args, const Buffers& buffers,
                          float* borders) {
        const auto cut = [&](FusedStage stage, float border) {
            V::cut(buffers.values, buffers.values, vocab, border);
            borders[stage - kFirstCut] = border;
        };
        const F divisor = S::set1(static_cast<float>(args.temperature));
        V::columns(vocab, [&](int64_t k, int64_t left) {
            V::store(buffers.values + k, S::div(V::load(x + k, left, S::zero()), divisor), left);
        });
        if (args.top_k > 0) {
            const int64_t kept = args.top_k < vocab ? args.top_k : vocab;
            Leaders<S> found(kept, vocab, buffers.leaders);
            found.find(buffers.values, vocab);
            cut(kTopK, found[kept - 1].value);
        }
        const float mass = static_cast<float>(args.top_p);
        if (args.top_p < 1) {
            const auto norm = V::norm(buffers.values, vocab);
            V::write_logprobs(buffers.values, vocab, V::normalised(norm), buffers.logprobs);
            cut(kTopP, V::border(buffers.values, buffers.logprobs, vocab, mass, buffers.leaders));
        }
        if (args.min_p > -std::numeric_limits<double>::infinity()) {
            const float largest = buffers.values[first_largest<S>(buffers.values, vocab)];
            cut(kMinP, largest + static_cast<float>(args.min_p));
        }
        return V::drawn(buffers.values, vocab, Noise<S>(args.key[0], args.key[1]));
    }
};

}  // namespace decodery
