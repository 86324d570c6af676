// From a row's logits to its token in one go: what most requests ask for, and nothing else between.
//
// The same tokens as the kernels over the vocabulary give one after the other: the same operations on the same numbers.
#pragma once
#include "abi.hpp"
#include "penalties.hpp"
#include "vocabulary.hpp"

namespace decodery {

template <class S>
struct Choice {
    using F = typename S::F;
    using V = Vocabulary<S>;

    // What a row needs besides its logits, in a worker's room.
    struct Room {
        int64_t* sorted; float* seen; float* generated;
        float* values; float* logprobs; Leader* leaders;

        Room(const Way& way, int64_t vocab, Worker& worker) {
            const auto round = [](int64_t bytes) { return (bytes + 63) / 64 * 64; };
            const int64_t whole = round(4 * (vocab + 16)), counts[] = {
                round(8 * way.generated_count), round(4 * way.seen_count), round(4 * way.generated_count), whole, whole,
                round(static_cast<int64_t>(sizeof(Leader)) * (vocab + 16))};
            int64_t bytes = 0;
            for (const int64_t count : counts) bytes += count;
            uint8_t* at = worker.room(static_cast<size_t>(bytes));
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
            a.places[m] = penalised(a.x + m * a.ldx, a.vocab, a.ways[m], Room(a.ways[m], a.vocab, worker));
        });
    }

    static int64_t penalised(float* x, int64_t vocab, const Way& way, const Room& room) {
        if (way.seen_count > 0)
            penalise_repetition(x, vocab, way.seen, way.seen_count, way.repetition, room.seen);
        const int64_t changed = penalise_frequency(x, vocab, way.generated, way.generated_count, way.presence,
                                                   way.frequency, room.sorted, room.generated);
        const int64_t token = way.temperature == 0 ? likeliest(x, vocab) : sampled(x, vocab, way, room);
        restore(x, vocab, room.sorted, changed, room.generated);
        restore(x, vocab, way.seen, way.seen_count, room.seen);
        return token;
    }

    static int64_t likeliest(const float* x, int64_t vocab) {
        const int64_t place = first_largest<S>(x, vocab);
        return x[place] > kNever ? place : -1;
    }

    static int64_t sampled(const float* x, int64_t vocab, const Way& way, const Room& room) {
        if (way.width > 0) {
            Leaders<S> found(way.width, vocab, room.leaders);
            found.find(x, vocab);
            // One token more than can stay: where it is not equal to the last that stays, no other one is.
            if (cut_short(found, way, room.values)) return drawn(found, way, room.values);
        }
        return of_all(x, vocab, way, room);
    }

    // The values of the likeliest after top-k; false where more tokens tie with the last of them.
    static bool cut_short(const Leaders<S>& found, const Way& way, float* values) {
        for (int64_t i = 0; i < way.width; i++) values[i] = found[i].value / static_cast<float>(way.temperature);
        const float least = values[way.top_k - 1], last = values[way.width - 1];
        if (!(last < least || last == kNever)) return false;
        cut_after(values, way.width, least);
        return true;
    }

    // Of values in descending order, as V::cut cuts them.
    static void cut_after(float* values, int64_t count, float least) {
        for (int64_t i = count - 1; i >= 0 && values[i] < least; i--) values[i] = kNever;
    }

    static int64_t drawn(const Leaders<S>& found, const Way& way, float* values) {
        const int64_t width = way.width;
        const float mass = static_cast<float>(way.top_p);
        if (way.top_p < 1) {
            const auto norm = V::norm(values, width);
            const float log = static_cast<float>(std::log(norm.sum));
            const int64_t i = V::reaching(width, mass, [&](int64_t k) { return values[k] - norm.largest - log; });
            cut_after(values, width, values[i > 0 ? i - 1 : 0]);
        }
        cut_after(values, width, values[0] + static_cast<float>(way.min_p));
        const Noise<S> noise(way.key[0], way.key[1]);
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
                // Of equal sums the first token counts.
                if (sums[i] < best || (sums[i] == best && tokens[i] > token)) continue;
                best = sums[i];
                token = tokens[i];
            }
        }
        return token;
    }

    static int64_t of_all(const float* x, int64_t vocab, const Way& way, const Room& room) {
        const F divisor = S::set1(static_cast<float>(way.temperature));
        V::columns(vocab, [&](int64_t k, int64_t left) {
            V::store(room.values + k, S::div(V::load(x + k, left, S::zero()), divisor), left);
        });
        if (way.top_k > 0) {
            const int64_t kept = way.top_k < vocab ? way.top_k : vocab;
            Leaders<S> found(kept, vocab, room.leaders);
            found.find(room.values, vocab);
            V::cut(room.values, room.values, vocab, found[kept - 1].value);
        }
        const float mass = static_cast<float>(way.top_p);
        if (way.top_p < 1) {
            const auto norm = V::norm(room.values, vocab);
            V::write_logprobs(room.values, vocab, V::normalised(norm), room.logprobs);
            V::cut(room.values, room.values, vocab, V::border(room.values, room.logprobs, vocab, mass, room.leaders));
        }
        if (way.min_p > -std::numeric_limits<double>::infinity()) {
            const float largest = room.values[first_largest<S>(room.values, vocab)];
            V::cut(room.values, room.values, vocab, largest + static_cast<float>(way.min_p));
        }
        return V::drawn(room.values, vocab, Noise<S>(way.key[0], way.key[1]));
    }
};

}  // namespace decodery
