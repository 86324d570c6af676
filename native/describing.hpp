// What a choice considered: the likeliest tokens, their probabilities before and after each stage, rank and entropy.
//
// A row is read few times for all its numbers. Sums have terms in float32 and are float64 over blocks of 1,024 terms.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>

#include "abi.hpp"
#include "penalties.hpp"
#include "selection.hpp"
#include "vocabulary.hpp"

namespace decodery {

template <class S>
class Description {
    using F = typename S::F;
    using V = Vocabulary<S>;
    static constexpr int64_t kBlock = 1024;

public:
    static void describe(const DescribeArgs& a, Shared&, int chunk, int chunks, Worker& worker) {
        V::rows(a.rows, chunk, chunks, [&](int64_t m) { Description(a.choices[m], a.vocab, worker).run(); });
    }

private:
    // A row's logits at a stage: the largest, and how many are possible.
    struct Version { float largest; int64_t kept; bool changed; };

    Description(const DescribedChoice& choice, int64_t vocab, Worker& worker) : c_(choice), vocab_(vocab) {
        width_ = choice.count + 1;
        const auto round = [](int64_t bytes) { return (bytes + 63) / 64 * 64; };
        const int64_t leaders = Leaders<S>::capacity_for(choice.count, vocab);
        const int64_t seen = choice.args ? std::max(choice.args->seen_count, choice.args->generated_count) : 0;
        const int64_t row = choice.args ? vocab + 16 : 0, counts[] = {
            round(static_cast<int64_t>(sizeof(Leader)) * leaders), round(4 * width_), round(4 * row), round(4 * row),
            round(4 * seen), round(8 * seen)};
        int64_t bytes = 0;
        for (const int64_t count : counts) bytes += count;
        uint8_t* at = worker.buffer(static_cast<size_t>(bytes));
        const auto next = [&](int i) { return (at += counts[i]) - counts[i]; };
        leaders_ = reinterpret_cast<Leader*>(next(0));
        places_ = reinterpret_cast<int32_t*>(next(1));
        values_ = reinterpret_cast<float*>(next(2));
        list_ = reinterpret_cast<float*>(next(3));
        saved_ = reinterpret_cast<float*>(next(4));
        sorted_ = reinterpret_cast<int64_t*>(next(5));
    }

    void run() {
        const Version raw = describe_raw();
        kept_ = raw.kept;
        if (c_.args) describe_fused(raw); else describe_given();
        c_.whole[2] = kept_;
        if (c_.drawn) describe_noise();
    }

    int64_t stages() const { return c_.args ? kFusedStages : c_.stage_count; }
    int64_t& kept_after(int64_t stage) const { return c_.whole[4 + stage]; }
    int64_t* tokens() const { return c_.whole + 4 + stages(); }
    int64_t* allowed() const { return tokens() + width_; }
    double* logits() const { return c_.numbers + 2; }
    double* noise() const { return logits() + width_; }
    // The probabilities in the model's distribution and after the stages.
    double* probabilities(int64_t version) const { return noise() + width_ * (1 + version); }

    // The shown tokens and all that is said of the unprocessed logits.
    Version describe_raw() {
        Leaders<S> found(c_.count, vocab_, leaders_);
        found.find(c_.x, vocab_);
        const float chosen = c_.x[c_.token];
        bool among = false;
        int64_t above = 0;
        for (int64_t i = 0; i < c_.count; i++) {
            tokens()[i] = found[i].place;
            among |= found[i].place == c_.token;
            above += found[i].value > chosen;
        }
        tokens()[c_.count] = c_.token;
        shown_ = c_.count + !among;
        for (int64_t i = 0; i < shown_; i++) logits()[i] = static_cast<double>(c_.x[tokens()[i]]);
        const float largest = found[0].value;
        const Rest rest = rest_of(largest);
        double total = rest.sum, others = rest.sum, weighted = rest.weighted;
        double* before = probabilities(0);
        for (int64_t i = 0; i < shown_; i++) {
            const double distance = logits()[i] - static_cast<double>(largest), term = exp_of(distance);
            before[i] = term;
            total += term;
            if (i > 0) others += term;
            if (term != 0) weighted += term * distance;
        }
        for (int64_t i = 0; i < shown_; i++) before[i] /= total;
        c_.whole[0] = shown_;
        c_.whole[1] = 1 + (among ? above : count_above(chosen));
        c_.whole[3] = -1;
        // As log1p of all but the largest term, so that a small entropy keeps its digits.
        c_.numbers[0] = (std::log1p(others) - weighted / total) / std::log(2.0);
        c_.numbers[1] = rest.sum / total;
        return {largest, rest.kept + above_never(), true};
    }

    int64_t above_never() const {
        int64_t count = 0;
        for (int64_t i = 0; i < shown_; i++) count += c_.x[tokens()[i]] > kNever;
        return count;
    }

    int64_t count_above(float least) const {
        const F bound = S::set1(least);
        int64_t count = 0;
        V::columns(vocab_, [&](int64_t k, int64_t left) {
            const F x = V::load(c_.x + k, left, S::set1(kNever));
            count += __builtin_popcount(S::above(x, bound) & S::equal(x, x));
        });
        return std::isnan(least) ? 0 : count;
    }

    // The terms exp(d) and d exp(d) of the tokens that are not shown, with d the distance from the largest.
    struct Rest { double sum = 0, weighted = 0; int64_t kept = 0; };

    Rest rest_of(float largest) {
        std::copy(tokens(), tokens() + shown_, places_);
        std::sort(places_, places_ + shown_);
        const F never = S::set1(kNever), subtracted = S::set1(largest);
        Rest rest;
        int64_t next = 0;
        for (int64_t start = 0; start < vocab_; start += kBlock) {
            const int64_t count = std::min(kBlock, vocab_ - start);
            const float* x = c_.x + start;
            alignas(64) float others[kBlock];
            if (next < shown_ && places_[next] < start + count) {
                std::memcpy(others, x, static_cast<size_t>(count) * sizeof(float));
                for (; next < shown_ && places_[next] < start + count; next++) others[places_[next] - start] = kNever;
                x = others;
            }
            F sums[2] = {S::zero(), S::zero()}, weighted[2] = {S::zero(), S::zero()};
            for (int64_t k = 0; k < count; k += 16) {
                const F v = V::load(x + k, count - k, never), d = S::sub(v, subtracted), term = exponential<S>(d);
                rest.kept += __builtin_popcount(S::above(v, never) & S::equal(v, v));
                sums[k / 16 % 2] = S::add(sums[k / 16 % 2], term);
                // The distance is bounded to a finite number, so that a term of 0 contributes 0.
                weighted[k / 16 % 2] = S::fma(term, S::max(S::set1(-1000.0f), d), weighted[k / 16 % 2]);
            }
            rest.sum += static_cast<double>(S::reduce_add(S::add(sums[0], sums[1])));
            rest.weighted += static_cast<double>(S::reduce_add(S::add(weighted[0], weighted[1])));
        }
        return rest;
    }

    void describe_noise() const {
        const Noise<S> noise_of(c_.key[0], c_.key[1]);
        for (int64_t i = 0; i < shown_; i += 16) {
            alignas(64) int32_t some[16] = {};
            alignas(64) float found[16];
            const int64_t left = std::min<int64_t>(16, shown_ - i);
            for (int64_t j = 0; j < left; j++) some[j] = static_cast<int32_t>(tokens()[i + j]);
            S::store(found, noise_of.of(S::load_int(some)));
            for (int64_t j = 0; j < left; j++) noise()[i + j] = static_cast<double>(found[j]);
        }
    }

    // Stages whose logits are given.
    void describe_given() {
        const float* before = c_.x;
        for (int64_t stage = 0; stage < c_.stage_count; stage++) {
            const float* x = c_.stages[stage];
            describe_version(stage, x, compared(x, before));
            before = x;
        }
    }

    // The stages of `FusedSampling`, with the borders that it found.
    void describe_fused(Version now) {
        const FusedSamplingArgs& args = *c_.args;
        const float* x = c_.x;
        for (int64_t stage = 0; stage < kFusedStages; stage++) kept_after(stage) = -1;
        if (c_.words) {
            V::masked(x, vocab_, c_.words, values_);
            now = compared(values_, x);
            x = values_;
            describe_allowed(now.kept);
            describe_version(kGrammarStage, x, now);
        }
        if (x != values_ && (args.seen_count > 0 || args.generated_count > 0)) {
            std::memcpy(values_, x, static_cast<size_t>(vocab_) * sizeof(float));
            x = values_;
        }
        if (args.seen_count > 0) {
            penalise_repetition(values_, vocab_, args.seen, args.seen_count, args.repetition, saved_);
            now = penalised(kRepetitionStage, args.seen, args.seen_count, now);
        }
        if (args.generated_count > 0) {
            const int64_t count = penalise_frequency(values_, vocab_, args.generated, args.generated_count,
                                                     args.presence, args.frequency, sorted_, saved_);
            now = penalised(kFrequencyStage, sorted_, count, now);
        }
        if (args.temperature != 0) describe_sampling(x, static_cast<float>(args.temperature), now);
    }

    void describe_allowed(int64_t count) const {
        c_.whole[3] = count;
        if (count > c_.count) return;
        int64_t* next = allowed();
        V::columns(vocab_, [&](int64_t k, int64_t left) {
            const F v = V::load(values_ + k, left, S::set1(kNever));
            for (uint32_t found = S::above(v, S::set1(kNever)) & S::equal(v, v); found; found &= found - 1)
                *next++ = k + __builtin_ctz(found);
        });
    }

    Version penalised(int64_t stage, const int64_t* changed, int64_t count, Version before) {
        const auto differs = [&](int64_t i) { return in_vocabulary(changed[i], vocab_) && values_[changed[i]] != saved_[i]; };
        for (int64_t i = 0; i < count; i++) {
            if (!differs(i)) continue;
            Version now = compared(values_, values_);
            now.changed = true;
            describe_version(stage, values_, now);
            return now;
        }
        return before;
    }

    // Temperature and truncations.
    void describe_sampling(const float* x, float temperature, Version now) {
        const float largest = now.largest / temperature;
        const F divisor = S::set1(temperature), never = S::set1(kNever);
        const auto scaled = [&](int64_t k, int64_t left) { return S::div(V::load(x + k, left, never), divisor); };
        float border = kNever;
        const auto value = [&](int64_t token) {
            const float found = x[token] / temperature;
            return found >= border ? found : kNever;
        };
        int64_t first = 0;
        while (first < kCuts && !(c_.borders[first] > kNever)) first++;
        const bool cuts = first < kCuts;
        int64_t held = 0;
        // The list of what the first cut leaves is made in the same pass.
        const auto listed = [&](int64_t k, int64_t left) {
            const F found = scaled(k, left);
            if (cuts) held = appended(found, left, c_.borders[first], held);
            return found;
        };
        if (temperature != 1) {
            uint32_t differs = 0;
            const double sum = sum_of(vocab_, largest, [&](int64_t k, int64_t left) {
                const F found = listed(k, left);
                differs |= ~S::equal(found, V::load(x + k, left, never));
                return found;
            });
            if (differs & 0xffff) describe_stage(kTemperatureStage, now.kept, largest, sum, value);
        } else if (cuts) {
            V::columns(vocab_, listed);
        }
        int64_t kept = now.kept;
        for (int64_t cut = first; cut < kCuts; cut++) {
            if (!(c_.borders[cut] > border)) continue;
            border = c_.borders[cut];
            if (cut > first) held = shortened(held, border);
            if (held == kept) continue;
            kept = held;
            const double sum = sum_of(held, largest, [&](int64_t k, int64_t left) { return V::load(list_ + k, left, never); });
            describe_stage(kFirstCut + cut, held, largest, sum, value);
        }
    }

    // Appends to the list, which holds `held` elements, those that are not below the border; returns their new number.
    DECODERY_INLINE int64_t appended(F v, int64_t left, float border, int64_t held) const {
        const F least = S::set1(border);
        uint32_t found = (S::above(v, least) & S::equal(v, v)) | S::equal(v, least);
        if (left < 16) found &= (1u << left) - 1;
        if (!found) return held;
        alignas(64) float some[16];
        S::store(some, v);
        for (; found; found &= found - 1) list_[held++] = some[__builtin_ctz(found)];
        return held;
    }

    // Removes the elements below the border from the list of this length; returns how many are left.
    int64_t shortened(int64_t length, float border) const {
        return std::remove_if(list_, list_ + length, [&](float v) { return !(v >= border); }) - list_;
    }

    void describe_version(int64_t stage, const float* x, Version now) {
        kept_after(stage) = -1;
        if (!now.changed) return;
        const double sum = sum_of(vocab_, now.largest, [&](int64_t k, int64_t left) { return V::load(x + k, left, S::set1(kNever)); });
        describe_stage(stage, now.kept, now.largest, sum, [&](int64_t token) { return x[token]; });
    }

    template <class Fn>
    void describe_stage(int64_t stage, int64_t kept, float largest, double sum, Fn value) {
        kept_after(stage) = kept_ = kept;
        double* after = probabilities(1 + stage);
        for (int64_t i = 0; i < shown_; i++)
            after[i] = exp_of(static_cast<double>(value(tokens()[i])) - static_cast<double>(largest)) / sum;
    }

    // The largest and the number of the possible elements of x, and whether any is not that of `before`.
    Version compared(const float* x, const float* before) const {
        const F never = S::set1(kNever);
        F best = never;
        uint32_t differs = 0;
        int64_t kept = 0;
        V::columns(vocab_, [&](int64_t k, int64_t left) {
            const F v = V::load(x + k, left, never);
            best = S::max(best, v);
            kept += __builtin_popcount(S::above(v, never) & S::equal(v, v));
            differs |= ~S::equal(v, V::load(before + k, left, never));
        });
        return {S::reduce_max(best), kept, (differs & 0xffff) != 0};
    }

    // The sum of exp(element - largest) over what `of` gives; elements that are not possible cost nothing.
    template <class Fn>
    static double sum_of(int64_t count, float largest, Fn of) {
        const F never = S::set1(kNever), subtracted = S::set1(largest);
        double sum = 0;
        for (int64_t start = 0; start < count; start += kBlock) {
            F some[2] = {S::zero(), S::zero()};
            const int64_t end = std::min(start + kBlock, count);
            for (int64_t k = start; k < end; k += 16) {
                const F v = of(k, count - k);
                if (!S::above(v, never)) continue;
                some[k / 16 % 2] = S::add(some[k / 16 % 2], exponential<S>(S::sub(v, subtracted)));
            }
            sum += static_cast<double>(S::reduce_add(S::add(some[0], some[1])));
        }
        return sum;
    }

    const DescribedChoice& c_;
    int64_t vocab_, width_ = 0, shown_ = 0, kept_ = 0;
    Leader* leaders_; int32_t* places_; float* values_; float* list_; float* saved_; int64_t* sorted_;
};

}  // namespace decodery
