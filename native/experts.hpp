// Mixture of experts: each row goes through the gated MLPs that its router has chosen.
//
// The pairs of a row and one of its experts are sorted by expert, so that an expert's weights are read once for all its
// rows. The number of chunks of each stage depends on the number of rows alone, so a program can run again after the
// routing has changed; the chunks share the work evenly once the routing is known.
#pragma once
#include "abi.hpp"
#include "linear.hpp"

namespace decodery {

// The memory that the stages share. In the order of the pairs, sorted by expert: their inputs and later their outputs
// [pairs, width], the gated products [pairs, inner], and the one or the other as int8.
struct ExpertsMemory {
    int64_t* starts;   // Where each expert's pairs begin, and the end: [experts + 1].
    int32_t* places;   // The place of pair row * count + j, or -1 for an expert that does not exist.
    int32_t* sources;  // The pair at each place.
    float* outer;
    float* inner;
    Quantised* quantised;
    size_t bytes;

    ExpertsMemory(const ExpertsArgs& a, uint8_t* base) {
        const int64_t pairs = a.rows * a.count;
        const int64_t most = std::max(quantised_bytes(pairs, a.width), quantised_bytes(pairs, a.inner));
        bytes = 0;
        const auto take = [&](int64_t size) {
            const uintptr_t found = reinterpret_cast<uintptr_t>(base) + bytes;
            bytes += static_cast<size_t>((size + 63) / 64 * 64);
            return reinterpret_cast<uint8_t*>(found);
        };
        starts = reinterpret_cast<int64_t*>(take((a.experts + 1) * 8));
        places = reinterpret_cast<int32_t*>(take(pairs * 4));
        sources = reinterpret_cast<int32_t*>(take(pairs * 4));
        outer = reinterpret_cast<float*>(take(pairs * a.width * 4));
        inner = reinterpret_cast<float*>(take(pairs * a.inner * 4));
        quantised = reinterpret_cast<Quantised*>(take(most));
    }
};

template <class S>
struct Experts {
    using F = typename S::F;

    // Sorts the pairs by expert, those of one expert by row.
    static void sort(const ExpertsArgs& a, Shared& shared, int, int, Worker&) {
        const ExpertsMemory m(a, shared.buffer());
        const int64_t pairs = a.rows * a.count;
        const auto exists = [&](int64_t pair) { return a.ids[pair] >= 0 && a.ids[pair] < a.experts; };
        std::memset(m.starts, 0, static_cast<size_t>(a.experts + 1) * 8);
        for (int64_t p = 0; p < pairs; p++)
            if (exists(p)) m.starts[a.ids[p] + 1]++;
        for (int64_t e = 0; e < a.experts; e++) m.starts[e + 1] += m.starts[e];
        // The starts move to the ends while the places are given out, and back.
        for (int64_t p = 0; p < pairs; p++) {
            m.places[p] = exists(p) ? static_cast<int32_t>(m.starts[a.ids[p]]++) : -1;
            if (exists(p)) m.sources[m.places[p]] = static_cast<int32_t>(p);
        }
        for (int64_t e = a.experts; e > 0; e--) m.starts[e] = m.starts[e - 1];
        m.starts[0] = 0;
    }

    static void gather(const ExpertsArgs& a, const ExpertsMemory& m, int64_t place) {
        const int64_t pair = m.sources[place];
        const float* x = a.x + pair / a.count * a.ldx;
        float* to = m.outer + place * a.width;
        std::memcpy(to, x, static_cast<size_t>(a.width) * 4);
        if (a.weigh_input) for (int64_t k = 0; k < a.width; k++) to[k] *= a.weights[pair];
    }

    // Sums the outputs of each row's experts in the order of its ids.
    static void combine(const ExpertsArgs& a, Shared& shared, int chunk, int chunks, Worker&) {
        const ExpertsMemory m(a, shared.buffer());
        for (int64_t row = a.rows * chunk / chunks; row < a.rows * (chunk + 1) / chunks; row++) {
            for (int64_t n = 0; n < a.width; n += 16) {
                const int64_t left = a.width - n;
                F sum = S::zero();
                for (int64_t p = row * a.count; p < (row + 1) * a.count; p++) {
                    if (m.places[p] < 0) continue;
                    const F value = load_up_to<S>(m.outer + m.places[p] * a.width + n, left);
                    sum = a.weigh_input ? S::add(sum, value) : S::fma(value, S::set1(a.weights[p]), sum);
                }
                if (a.residual) sum = S::add(sum, load_up_to<S>(a.residual + row * a.ldr + n, left));
                float* out = a.out + row * a.width + n;
                if (left >= 16) S::store(out, sum); else S::store_some(out, sum, static_cast<int>(left));
            }
        }
    }

    // The product of one expert's rows with its gate and up, or with its down.
    template <bool First>
    static LinearArgs product_of(const ExpertsArgs& a, const ExpertsMemory& m, int64_t e) {
        const int64_t start = m.starts[e], rows = m.starts[e + 1] - start;
        if constexpr (First) {
            return {m.outer + start * a.width, a.width, rows, a.gate_up + e * a.gate_up_step, a.inner, a.width,
                    a.gate_up_format, a.gate_up_bias ? a.gate_up_bias + e * 2 * a.inner : nullptr, nullptr, 0,
                    m.inner + start * a.inner, a.inner, 1 + a.activation};
        }
        return {m.inner + start * a.inner, a.inner, rows, a.down + e * a.down_step, a.width, a.inner, a.down_format,
                a.down_bias ? a.down_bias + e * a.width : nullptr, nullptr, 0, m.outer + start * a.width, a.width, 0};
    }

    // One of the two products; First: with gate and up.
    template <class W, bool First>
    struct Product {
        using L = Linear<S, W>;

        static int64_t ins(const ExpertsArgs& a) { return First ? a.width : a.inner; }
        static int64_t blocks(const ExpertsArgs& a) { return First ? 2 * blocks_of(a.inner) : blocks_of(a.width); }

        // Brings a part of the rows into the form that the product reads.
        static void prepare(const ExpertsArgs& a, Shared& shared, int chunk, int chunks, Worker&) {
            const ExpertsMemory m(a, shared.buffer());
            const int64_t pairs = m.starts[a.experts];
            const int64_t from = pairs * chunk / chunks, to = pairs * (chunk + 1) / chunks;
            if (First) for (int64_t place = from; place < to; place++) gather(a, m, place);
            if constexpr (!W::kFloat) {
                for (int64_t e = 0; e < a.experts; e++) {
                    const int64_t start = m.starts[e];
                    const int64_t first = std::max(from, start), end = std::min(to, m.starts[e + 1]);
                    if (first >= end) continue;
                    L::quantise_rows(product_of<First>(a, m, e), first - start, end - start,
                                     m.quantised + start * groups_of(ins(a)));
                }
            }
        }

        // Multiplies by a part of the pairs of blocks of all experts that have rows. The time for one pair grows with
        // the rows, and with none it would still be that of reading the weights.
        static void multiply(const ExpertsArgs& a, Shared& shared, int chunk, int chunks, Worker&) {
            const ExpertsMemory m(a, shared.buffer());
            const int64_t count = blocks(a), pairs = (count + 1) / 2;
            int64_t total = 0;
            for (int64_t e = 0; e < a.experts; e++) total += cost(m, e) * pairs;
            const int64_t from = total * chunk / chunks, to = total * (chunk + 1) / chunks;
            int64_t before = 0;
            for (int64_t e = 0; e < a.experts; e++) {
                const int64_t each = cost(m, e), until = before + each * pairs;
                if (each > 0 && until > from && before < to) {
                    // A pair belongs to the chunk in whose part it begins.
                    const int64_t first = from > before ? (from - before + each - 1) / each : 0;
                    const int64_t end = std::min(pairs, (to - before + each - 1) / each);
                    multiply_some(product_of<First>(a, m, e), m.quantised + m.starts[e] * groups_of(ins(a)), count, first, end);
                }
                before = until;
            }
        }

        static int64_t cost(const ExpertsMemory& m, int64_t e) {
            const int64_t rows = m.starts[e + 1] - m.starts[e];
            return rows > 0 ? rows + 1 : 0;
        }

        static void multiply_some(const LinearArgs& a, const Quantised* q, int64_t blocks, int64_t first, int64_t end) {
            for (int64_t row = 0; row < a.rows; row += kRowsAtOnce)
                for (int64_t p = first; p < end; p++)
                    L::rows(a, q, 2 * p, 2 * p + 1 < blocks, row, std::min(a.rows, row + kRowsAtOnce));
        }

        static void plan(const ExpertsArgs& a, Plan& plan) {
            const int64_t pairs = a.rows * a.count, threads = plan.threads;
            if (First || !W::kFloat) plan.add<prepare>(a, pairs <= kFewRows ? 1 : pairs < 64 ? threads : 2 * threads);
            const int64_t read = std::min(pairs, a.experts) * blocks(a) * block_bytes<W>(ins(a));
            const int64_t cost = read * (pairs / std::min(pairs, a.experts) + 1) / 2;
            int64_t chunks = cost / 131072;
            chunks = chunks < 2 ? (cost > 16384 ? threads : 1) : (chunks + threads - 1) / threads * threads;
            plan.add<multiply>(a, std::min({chunks, 16 * threads, (blocks(a) + 1) / 2}));
        }
    };

    static void plan(const ExpertsArgs& a, Plan& plan) {
        if (a.rows <= 0) return;
        plan.shared.grow(ExpertsMemory(a, nullptr).bytes);
        plan.add<sort>(a, 1);
        with_format(a.gate_up_format, [&](auto format) { Product<decltype(format), true>::plan(a, plan); });
        with_format(a.down_format, [&](auto format) { Product<decltype(format), false>::plan(a, plan); });
        plan.add<combine>(a, a.rows < 4 ? 1 : a.rows < 64 ? plan.threads : 2 * plan.threads);
    }
};

template <class S>
void plan_experts(const int64_t* args, Plan& plan) {
    Experts<S>::plan(*reinterpret_cast<const ExpertsArgs*>(args), plan);
}

}  // namespace decodery
