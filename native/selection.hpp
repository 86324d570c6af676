// The largest elements of a row.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "team.hpp"

namespace decodery {

// The first index of the largest element; NaN is larger than anything.
template <class S>
inline int64_t first_largest(const float* x, int64_t count) {
    using F = typename S::F;
    const F lowest = S::set1(-std::numeric_limits<float>::infinity());
    F best[4] = {lowest, lowest, lowest, lowest};
    uint32_t strange = 0;
    int64_t k = 0;
    for (; k + 64 <= count; k += 64) {
        for (int j = 0; j < 4; j++) {
            const F v = S::load(x + k + 16 * j);
            strange |= ~S::equal(v, v) & 0xffff;
            best[j] = S::max(best[j], v);
        }
    }
    float largest = S::reduce_max(S::max(S::max(best[0], best[1]), S::max(best[2], best[3])));
    for (; k < count; k++) {
        strange |= x[k] != x[k];
        largest = x[k] > largest ? x[k] : largest;
    }
    if (strange) return std::find_if(x, x + count, [](float v) { return v != v; }) - x;
    const F wanted = S::set1(largest);
    for (k = 0; k + 16 <= count; k += 16) {
        if (const uint32_t found = S::equal(S::load(x + k), wanted)) return k + __builtin_ctz(found);
    }
    while (k + 1 < count && x[k] != largest) k++;
    return k;
}

struct Leader {
    float value;
    int32_t place;
    // Equal values are ordered by index, and NaN comes before all numbers.
    bool operator<(const Leader& other) const {
        const bool strange = value != value, theirs = other.value != other.value;
        if (strange != theirs) return strange;
        if (!strange && value != other.value) return value > other.value;
        return place < other.place;
    }
};

// The `count` largest elements of a row, in order.
template <class S>
class Leaders {
public:
    // found has capacity_for(count, width) elements.
    Leaders(int64_t count, int64_t width, Leader* found)
        : count_(count), capacity_(capacity_for(count, width)), found_(found) {}

    Leaders(int64_t count, int64_t width, Worker& worker)
        : Leaders(count, width,
                  reinterpret_cast<Leader*>(worker.buffer(static_cast<size_t>(capacity_for(count, width)) * sizeof(Leader)))) {}

    static int64_t capacity_for(int64_t count, int64_t width) { return std::min(2 * count + 128, width) + 16; }

    const Leader& operator[](int64_t i) const { return found_[i]; }

    void find(const float* x, int64_t width) {
        find(x, width, [](typename S::F v) { return v; });
    }

    // The same for the results of `of`, which maps sixteen elements at a time.
    template <class Fn>
    void find(const float* x, int64_t width, Fn of) {
        using F = typename S::F;
        held_ = 0;
        // Later elements must be above the least of those chosen so far, since equal ones are ordered by index.
        float least = 0;
        bool bounded = false;
        for (int64_t k = 0; k < width; k += 16) {
            const int64_t left = width - k;
            const F v = of(left >= 16 ? S::load(x + k) : S::load_some(x + k, static_cast<int>(left)));
            uint32_t taken = left >= 16 ? 0xffff : (1u << left) - 1;
            if (bounded) taken &= S::above(v, S::set1(least));
            if (!taken) continue;
            alignas(64) float values[16];
            S::store(values, v);
            for (; taken; taken &= taken - 1) {
                const int lane = __builtin_ctz(taken);
                found_[held_++] = {values[lane], static_cast<int32_t>(k + lane)};
            }
            if (held_ + 16 > capacity_) {
                keep_best();
                least = found_[count_ - 1].value;
                bounded = least == least;
            }
        }
        keep_best();
        std::sort(found_, found_ + held_);
    }

private:
    void keep_best() {
        if (held_ <= count_) return;
        std::nth_element(found_, found_ + count_ - 1, found_ + held_);
        held_ = count_;
    }

    int64_t count_, capacity_, held_ = 0;
    Leader* found_;
};

}  // namespace decodery
