// Attention over pages of keys and values, for queries of many sequences at once.
//
// The keys of a query are processed in segments of kSegment by position: a softmax within each segment, then the
// segments' results are combined in order. Within a segment a score is a sequential sum over the head's elements, and
// an output a sequential sum over the keys. Masked keys have the weight 0 exactly and change no bit. So a query's
// result depends on its position and its keys alone, however its sequence is cut into steps, whatever the other queries
// are, and on any number of threads.
#pragma once
#include <cmath>
#include <cstring>

#include "abi.hpp"
#include "functions.hpp"
#include "kv_formats.hpp"
#include "simd_portable.hpp"

namespace decodery {

constexpr int kSegment = 256;
constexpr int kScores = kSegment + 16;  // The stride of a row's scores, which is no power of 2.
constexpr int kQueryBlock = 8;  // The queries of a sequence that are processed together; divides kSegment.
constexpr int kAhead = 8;  // The distance in pages of prefetching: processors cannot predict the next page.

// An item of work: one segment of the keys of a block of queries. It is number `segment` of `segments`, after `skipped`
// segments that no query of the block sees; `end` is the number of keys up to the last one that a query of the block
// sees. Its partial results begin at `slot` (in tokens times segments). With kAllSegments, the item is all segments in
// order, and their partial results stay in the thread's own buffer.
constexpr int32_t kAllSegments = -1;
constexpr int kManyQueries = 256;  // With so many queries of a sequence in a step, their blocks keep all threads busy.
struct Work {
    int32_t token, position, count, table, segment, segments, skipped, slot, end;
};

// The keys first .. end - 1 that a query sees.
struct Visible { int64_t first, end; };

inline Visible visible(int64_t position, int64_t keys, int64_t window, int64_t chunk, bool causal) {
    Visible v{0, causal && position + 1 < keys ? position + 1 : keys};
    if (window > 0) {
        if (position + 1 > window) v.first = position + 1 - window;
        if (position + window < v.end) v.end = position + window;
    }
    if (chunk > 0) {
        const int64_t begin = position - position % chunk;
        if (begin > v.first) v.first = begin;
        if (begin + chunk < v.end) v.end = begin + chunk;
    }
    return v;
}

template <class S, class C>
struct Attention {
    using F = typename S::F;
    using T = typename C::T;
    static constexpr int kRowTile = S::kBlocks == 2 ? 6 : S::kRows == 1 ? 1 : 2;
    static constexpr int kPageTile = S::kBlocks == 2 ? 4 : 1;
    // With so many rows a tile has half as many pages or values, so that fewer are converted for each product.
    static constexpr int kManyRows = S::kBlocks == 2 ? 12 : kRowTile;
    static constexpr int pages_of(int rows) { return rows > kRowTile ? 2 : kPageTile; }
    // The elements of a cache line, and its groups of 16 elements. If a group is larger than a line, it has kLines
    // lines.
    static constexpr int kLineItems = 64 / sizeof(T), kLine = kLineItems < 16 ? 1 : kLineItems / 16;
    static constexpr int kLines = kLineItems < 16 ? 16 / kLineItems : 1;

    // One segment of an item of work for one K/V head.
    struct Piece {
        const AttentionArgs& a;
        const Work& w;
        int64_t head, group, rows;  // rows: (query, head) pairs.
        float* q; float* totals; float* scores;  // [rows, k_dim], [rows], [rows, kScores]
        float* partials;
        int64_t segment = 0, start = 0, keys = 0;  // The first key, and the number of keys.

        void enter(int64_t next) {
            segment = next;
            start = (w.skipped + segment) * kSegment;
            keys = w.end - start < kSegment ? w.end - start : kSegment;
        }
        // The partial result of a row: its largest score, the sum of its weights, then its output.
        float* partial(int64_t row) const {
            const int64_t query = row / group * a.heads + head * group + row % group;
            const int64_t first = w.segment == kAllSegments ? row * w.segments : w.slot * a.heads + query * w.segments;
            return partials + (first + segment) * (a.v_dim + 2);
        }
        int64_t page(int64_t index) const { return a.step->tables[w.table + start / kPage + index]; }
        const T* keys_of(int64_t index) const {
            return static_cast<const T*>(a.keys) + page(index) * a.k_stride + head * kPage * (a.k_dim + C::kExtra);
        }
        const T* values_of(int64_t index) const {
            return static_cast<const T*>(a.values) + page(index) * a.v_stride + head * kPage * (a.v_dim + C::kExtra);
        }
        // The page to prefetch while page `index` of the keys is read: those of the keys, then those of the values.
        const T* ahead(int64_t index) const {
            const int64_t pages = (keys + kPage - 1) / kPage, wanted = index + kAhead;
            if (wanted < pages) return keys_of(wanted);
            return values_of(wanted - pages < pages ? wanted - pages : pages - 1);
        }
        int64_t query_head(int64_t row) const { return head * group + row % group; }
        int64_t place(int64_t row) const { return (w.token + row / group) * a.heads + query_head(row); }
    };

    // Head by head, so that two threads write to the same page at most once.
    static void write(const WriteKvArgs& a, Shared&, int chunk, int chunks, Worker&) {
        const int64_t rows = a.step->tokens, items = rows * a.kv_heads;
        for (int64_t i = items * chunk / chunks; i < items * (chunk + 1) / chunks; i++) {
            const int64_t h = i / rows, m = i % rows;
            const int64_t page = a.step->slots[m] / kPage, offset = a.step->slots[m] % kPage;
            T* keys = static_cast<T*>(a.keys) + page * a.k_stride + h * kPage * (a.k_dim + C::kExtra);
            T* values = static_cast<T*>(a.values) + page * a.v_stride + h * kPage * (a.v_dim + C::kExtra);
            write_one<S, C>(a.k + m * a.ldk + h * a.k_dim, a.k_dim, keys, offset, offset, kPage);
            write_one<S, C>(a.v + m * a.ldv + h * a.v_dim, a.v_dim, values, offset, offset * a.v_dim, 1);
        }
    }

    static void attend(const AttentionArgs& a, Shared& shared, int chunk, int chunks, Worker& worker) {
        const int64_t items = a.step->works * a.kv_heads, group = a.heads / a.kv_heads;
        for (int64_t i = items * chunk / chunks; i < items * (chunk + 1) / chunks; i++) {
            const Work& w = reinterpret_cast<const Work*>(a.step->work)[i / a.kv_heads];
            const bool all = w.segment == kAllSegments;
            const int64_t rows = w.count * group, kept = all ? w.segments : 0;
            const int64_t floats = rows * (a.k_dim + 1 + kScores + kept * (a.v_dim + 2)) + kept + 15;
            float* q = reinterpret_cast<float*>(worker.buffer(static_cast<size_t>(floats) * 4));
            float* totals = q + rows * a.k_dim;
            float* scores = totals + rows;
            float* own = scores + rows * kScores;
            Piece p{a, w, i % a.kv_heads, group, rows, q, totals, scores, all ? own : shared.partial.data()};
            scale(p);
            for (int64_t s = all ? 0 : w.segment; s < (all ? w.segments : w.segment + 1); s++) {
                p.enter(s);
                piece(p);
            }
            if (kept < 2) continue;
            for (int64_t row = 0; row < rows; row++) {
                const float* parts = own + row * kept * (a.v_dim + 2);
                combine_row(a, parts, w.segments, own + rows * kept * (a.v_dim + 2), p.place(row));
            }
        }
    }

    static void scale(const Piece& p) {
        const auto& a = p.a;
        for (int64_t r = 0; r < p.rows; r++) {
            const float* from = a.q + (p.w.token + r / p.group) * a.ldq + p.query_head(r) * a.k_dim;
            for (int64_t d = 0; d < a.k_dim; d++) p.q[r * a.k_dim + d] = from[d] * static_cast<float>(a.scale);
        }
    }

    static void piece(const Piece& p) {
        const auto& a = p.a;
        const int64_t pages = (p.keys + kPage - 1) / kPage;
        for (int64_t r = 0; r < p.rows;) r += row_tile(p.rows - r, [&](auto rows) {
            int64_t n = 0;
            constexpr int tile = pages_of(rows.value);
            for (; n + tile <= pages; n += tile) score<rows.value, tile>(p, r, n);
            for (; n < pages; n++) score<rows.value, 1>(p, r, n);
        });
        int64_t row = 0;
        for (; row + 4 <= p.rows; row += 4) exponentiate<4>(p, row, pages * kPage);
        for (; row < p.rows; row++) exponentiate<1>(p, row, pages * kPage);
        for (int64_t r = 0; r < p.rows;) r += row_tile(p.rows - r, [&](auto rows) {
            int64_t d = 0;
            constexpr int tile = rows.value > kRowTile ? 2 : 4;  // In groups of 16 values.
            for (; d + tile * 16 <= a.v_dim; d += tile * 16) weigh_values<rows.value, tile>(p, r, d);
            for (; d + 16 <= a.v_dim; d += 16) weigh_values<rows.value, 1>(p, r, d);
            if (d < a.v_dim) weigh_values_tail(p, r, rows.value, d);
        });
    }

    template <int N> struct Count { static constexpr int value = N; };

    // Calls fn with the largest tile of at most `left` rows, and returns the rows of the tile.
    template <class Fn, int N = kManyRows>
    static DECODERY_INLINE int64_t row_tile(int64_t left, Fn fn) {
        if constexpr (N > 1) {
            if (left < N) return row_tile<Fn, N <= kRowTile ? N - 1 : kRowTile>(left, fn);
        }
        fn(Count<N>{});
        return N;
    }

    template <int NR, int NP>
    static DECODERY_INLINE void score(const Piece& p, int64_t row, int64_t first) {
        F acc[NR][NP];
        const T* keys[NP];
        const T* ahead[NP];
        for (int n = 0; n < NP; n++) keys[n] = p.keys_of(first + n);
        for (int n = 0; n < NP; n++) ahead[n] = p.ahead(first + n);
        for (int r = 0; r < NR; r++) for (int n = 0; n < NP; n++) acc[r][n] = S::zero();
        const float* q = p.q + row * p.a.k_dim;
        for (int64_t d = 0; d < p.a.k_dim; d++) {
            if (row == 0 && d % kLine == 0) {
                for (int n = 0; n < NP; n++)
                    for (int i = 0; i < kLines; i++) S::prefetch(ahead[n] + d * kPage + i * kLineItems);
            }
            F k[NP];
            #pragma GCC unroll 4
            for (int n = 0; n < NP; n++) k[n] = C::load(keys[n] + d * kPage);
            #pragma GCC unroll 12
            for (int r = 0; r < NR; r++) {
                const F x = S::set1(q[r * p.a.k_dim + d]);
                #pragma GCC unroll 4
                for (int n = 0; n < NP; n++) acc[r][n] = S::fma(x, k[n], acc[r][n]);
            }
        }
        for (int n = 0; n < NP; n++) {
            float* to = p.scores + row * kScores + (first + n) * kPage;
            for (int r = 0; r < NR; r++) S::store(to + r * kScores, scaled(keys[n], p.a.k_dim, acc[r][n]));
        }
    }

    // Sixteen numbers, one for each key of a page, times the scales of the keys (or values) of `dim` elements.
    static DECODERY_INLINE F scaled(const T* page, int64_t dim, F x) {
        if constexpr (C::kScaled) return S::mul(x, S::load(reinterpret_cast<const float*>(page + kPage * dim)));
        return x;
    }

    // Caps a row's scores: Gemma 2 (2024), section 2.
    static void cap_scores(const Piece& p, int64_t row, int64_t padded) {
        const F cap = S::set1(static_cast<float>(p.a.softcap));
        float* s = p.scores + row * kScores;
        for (int64_t k = 0; k < padded; k += 16)
            S::store(s + k, S::mul(cap, hyperbolic_tangent<S>(S::div(S::load(s + k), cap))));
    }

    // Adds the head's bias for the relative positions of the keys to a row's scores.
    static void add_bias(const Piece& p, int64_t row, int64_t padded) {
        const float* bias = p.a.bias + p.query_head(row) * p.a.columns;
        float* s = p.scores + row * kScores;
        const int64_t last = p.a.columns - 1;
        int64_t column = p.start - p.w.position - row / p.group + p.a.zero;  // That of the segment's first key.
        for (int64_t k = 0; k < padded; k += 16, column += 16) {
            F added;
            if (column >= 0 && column + 15 <= last) {
                added = S::load(bias + column);
            } else if (column + 15 <= 0) {
                added = S::set1(bias[0]);
            } else {
                float each[16];
                for (int64_t i = 0; i < 16; i++) {
                    const int64_t c = column + i;
                    each[i] = bias[c < 0 ? 0 : c > last ? last : c];
                }
                added = S::load(each);
            }
            S::store(s + k, S::add(S::load(s + k), added));
        }
    }

    // Caps the scores, adds the bias, and sets the scores of keys that the query does not see to -inf. Returns the row's
    // largest score, the sink among them.
    static DECODERY_INLINE float mask(const Piece& p, int64_t row, int64_t padded) {
        float* s = p.scores + row * kScores;
        if (p.a.softcap != 0.0) cap_scores(p, row, padded);
        if (p.a.bias) add_bias(p, row, padded);
        const auto& step = *p.a.step;
        const auto seen = visible(p.w.position + row / p.group, p.w.end, step.window, step.chunk, step.causal);
        for (int64_t k = seen.end > p.start ? seen.end - p.start : 0; k < padded; k++) s[k] = -INFINITY;
        for (int64_t k = 0; k < seen.first - p.start && k < padded; k++) s[k] = -INFINITY;
        F top = S::set1(-INFINITY);
        for (int64_t k = 0; k < padded; k += 16) top = S::max(top, S::load(s + k));
        const float largest = S::reduce_max(top), sink = p.a.sinks ? p.a.sinks[p.query_head(row)] : -INFINITY;
        return sink > largest ? sink : largest;
    }

    // The weight of a head's sink, given the largest score; 0 without one.
    static DECODERY_INLINE float sink_weight(const AttentionArgs& a, int64_t head, float largest) {
        if (!a.sinks) return 0.0f;
        float each[16];
        S::store(each, exponential<S>(S::set1(a.sinks[head] - largest)));
        return each[0];
    }

    // Replaces the scores of rows by the weights exp(score - largest), times the values' scales. Stores the largest
    // score and the sum of the unscaled weights for `combine`.
    template <int NR>
    static DECODERY_INLINE void exponentiate(const Piece& p, int64_t row, int64_t padded) {
        float largest[NR];
        F base[NR], sum[NR];
        for (int r = 0; r < NR; r++) largest[r] = mask(p, row + r, padded);
        for (int r = 0; r < NR; r++) base[r] = S::set1(largest[r] == -INFINITY ? 0.0f : largest[r]);
        for (int r = 0; r < NR; r++) sum[r] = S::zero();
        float* s = p.scores + row * kScores;
        for (int64_t k = 0; k < padded; k += 16) {
            #pragma GCC unroll 4
            for (int r = 0; r < NR; r++) {
                float* at = s + r * kScores + k;
                const F weight = exponential<S>(S::sub(S::load(at), base[r]));
                sum[r] = S::add(sum[r], weight);
                S::store(at, C::kScaled ? scaled(p.values_of(k / kPage), p.a.v_dim, weight) : weight);
            }
        }
        for (int r = 0; r < NR; r++) {
            const float total = S::reduce_add(sum[r]);
            if (p.w.segments == 1) {
                const float top = largest[r] == -INFINITY ? 0.0f : largest[r];
                p.totals[row + r] = total + sink_weight(p.a, p.query_head(row + r), top);
            } else {
                float* about = p.partial(row + r);
                about[0] = largest[r];
                about[1] = total;
            }
        }
    }

    // Stores a sum over the values of a segment: as output if the segment is the only one, else as partial result.
    static DECODERY_INLINE void store_output(const Piece& p, int64_t row, int64_t d, F sum, int left) {
        float* to;
        if (p.w.segments == 1) {
            sum = S::div(sum, S::set1(p.totals[row]));
            to = p.a.out + p.place(row) * p.a.v_dim + d;
        } else {
            to = p.partial(row) + 2 + d;
        }
        if (left >= 16) S::store(to, sum); else S::store_some(to, sum, left);
    }

    // Sums the values of a segment, each times its weight: NV groups of 16 elements from d on, for NR rows.
    template <int NR, int NV>
    static DECODERY_INLINE void weigh_values(const Piece& p, int64_t row, int64_t d) {
        F acc[NR][NV];
        for (int r = 0; r < NR; r++) for (int n = 0; n < NV; n++) acc[r][n] = S::zero();
        const float* weights = p.scores + row * kScores;
        const int64_t pages = (p.keys + kPage - 1) / kPage;
        for (int64_t k = 0; k < p.keys; k += kPage) {
            const T* v = p.values_of(k / kPage) + d;
            const T* ahead = p.values_of(k / kPage + kAhead < pages ? k / kPage + kAhead : pages - 1) + d;
            const int64_t count = p.keys - k < kPage ? p.keys - k : kPage;
            for (int64_t j = 0; j < count; j++, v += p.a.v_dim, ahead += p.a.v_dim) {
                if (row == 0) for (int i = 0; i < NV * 16; i += kLineItems) S::prefetch(ahead + i);
                F value[NV];
                #pragma GCC unroll 4
                for (int n = 0; n < NV; n++) value[n] = C::load(v + n * 16);
                #pragma GCC unroll 12
                for (int r = 0; r < NR; r++) {
                    const F x = S::set1(weights[r * kScores + k + j]);
                    #pragma GCC unroll 4
                    for (int n = 0; n < NV; n++) acc[r][n] = S::fma(x, value[n], acc[r][n]);
                }
            }
        }
        for (int r = 0; r < NR; r++) for (int n = 0; n < NV; n++) store_output(p, row + r, d + n * 16, acc[r][n], 16);
    }

    // The same for the last elements of a head whose size is no multiple of 16.
    static void weigh_values_tail(const Piece& p, int64_t row, int rows, int64_t d) {
        const int left = static_cast<int>(p.a.v_dim - d);
        for (int r = 0; r < rows; r++) {
            F acc = S::zero();
            for (int64_t k = 0; k < p.keys; k++) {
                const T* v = p.values_of(k / kPage) + k % kPage * p.a.v_dim + d;
                float value[16] = {};
                for (int i = 0; i < left; i++) value[i] = C::one(v[i]);
                acc = S::fma(S::set1(p.scores[(row + r) * kScores + k]), S::load(value), acc);
            }
            store_output(p, row + r, d, acc, left);
        }
    }

    // Combines the partial results of each query's segments in order.
    static void combine(const AttentionArgs& a, Shared& shared, int chunk, int chunks, Worker& worker) {
        const int64_t works = a.step->works;
        for (int64_t i = works * chunk / chunks; i < works * (chunk + 1) / chunks; i++) {
            const Work& w = reinterpret_cast<const Work*>(a.step->work)[i];
            if (w.segments == 1 || w.segment != 0) continue;
            float* weights = reinterpret_cast<float*>(worker.buffer(static_cast<size_t>(w.segments + 15) * 4));
            for (int64_t row = 0; row < w.count * a.heads; row++) {
                const float* parts = shared.partial.data() + (w.slot * a.heads + row * w.segments) * (a.v_dim + 2);
                combine_row(a, parts, w.segments, weights, w.token * a.heads + row);
            }
        }
    }

    // Rescales the segments' results to the largest score of all segments and adds them: the online softmax. The result
    // is that of (query, head) number `place`. weights has an element for each segment, rounded up to 16.
    static void combine_row(const AttentionArgs& a, const float* parts, int segments, float* weights, int64_t place) {
        const int64_t step = a.v_dim + 2;
        float largest = -INFINITY;
        for (int s = 0; s < segments; s++) largest = parts[s * step] > largest ? parts[s * step] : largest;
        if (largest == -INFINITY) largest = 0.0f;
        const F base = S::set1(largest);
        for (int s = 0; s < segments; s++) weights[s] = parts[s * step];
        for (int s = 0; s < segments; s += 16) {
            const F tops = S::load_some(weights + s, segments - s < 16 ? segments - s : 16);
            S::store(weights + s, exponential<S>(S::sub(tops, base)));
        }
        F sum = S::zero();
        for (int s = 0; s < segments; s++) sum = S::fma(S::set1(weights[s]), S::set1(parts[s * step + 1]), sum);
        sum = S::add(sum, S::set1(sink_weight(a, place % a.heads, largest)));
        float* out = a.out + place * a.v_dim;
        for (int64_t d = 0; d < a.v_dim; d += 16) {
            const int left = static_cast<int>(a.v_dim - d < 16 ? a.v_dim - d : 16);
            F acc = S::zero();
            for (int s = 0; s < segments; s++)
                acc = S::fma(S::set1(weights[s]), S::load_some(parts + s * step + 2 + d, left), acc);
            S::store_some(out + d, S::div(acc, sum), left);
        }
    }
};

template <class S>
void plan_write_kv(const int64_t* args, Plan& plan) {
    const auto& a = *reinterpret_cast<const WriteKvArgs*>(args);
    with_stored<S>(a.type, [&](auto stored) {
        const int64_t rows = a.step->tokens;
        if (rows > 0) plan.add<Attention<S, decltype(stored)>::write>(a, rows < 4 ? 1 : 2 * plan.threads);
    });
}

template <class S>
void plan_attention(const int64_t* args, Plan& plan) {
    const auto& a = *reinterpret_cast<const AttentionArgs*>(args);
    const int64_t works = a.step->works;
    if (works <= 0) return;
    with_stored<S>(a.type, [&](auto stored) {
        using A = Attention<S, decltype(stored)>;
        const int64_t items = works * a.kv_heads;
        plan.add<A::attend>(a, items < 64 * plan.threads ? items : 64 * plan.threads);
        if (a.step->partials == 0) return;
        const auto floats = static_cast<size_t>(a.step->partials * a.heads * (a.v_dim + 2));
        if (plan.shared.partial.size() < floats) plan.shared.partial.resize(floats);
        plan.add<A::combine>(a, works < 4 * plan.threads ? works : 4 * plan.threads);
    });
}

}  // namespace decodery
