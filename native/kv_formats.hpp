// The forms in which a page holds keys and values, and how they are written; kernels/kv_formats.py does the same in torch.
#pragma once
#include "abi.hpp"
#include "simd_portable.hpp"

namespace decodery {

constexpr int kPage = 16;

// Sixteen numbers clamped to -limit .. limit; 0 for numbers that are not finite.
template <class S>
DECODERY_INLINE typename S::F bounded(typename S::F x, float limit) {
    const auto within = S::max(S::set1(-limit), S::min(S::set1(limit), x));
    return S::pick(S::equal(S::sub(x, x), S::zero()), within, S::zero());
}

// The forms in which keys and values are stored. If kScaled, they are codes: a head's 16 keys (or values) of a page are
// followed by their scales in float32, each of which takes the bytes of kExtra codes.
template <class S>
struct Stored32 {
    using F = typename S::F;
    using T = float;
    static constexpr bool kScaled = false;
    static constexpr int kExtra = 0;
    static constexpr float kLargest = 3.40282347e38f;
    static DECODERY_INLINE F load(const T* p) { return S::load(p); }
    static float one(T x) { return x; }
    static DECODERY_INLINE void store(T* p, F x) { S::store(p, x); }
};

template <class S>
struct StoredHalf {
    using F = typename S::F;
    using T = uint16_t;
    static constexpr bool kScaled = false;
    static constexpr int kExtra = 0;
    static constexpr float kLargest = 65504.0f;
    static DECODERY_INLINE F load(const T* p) { return S::load_half(p); }
    static float one(T x) { return S::half(x); }
    static DECODERY_INLINE void store(T* p, F x) { S::store_half(p, x); }
};

template <class S>
struct StoredBfloat {
    using F = typename S::F;
    using T = uint16_t;
    static constexpr bool kScaled = false;
    static constexpr int kExtra = 0;
    static constexpr float kLargest = 0x1.fep127f;
    static DECODERY_INLINE F load(const T* p) { return S::load_bfloat(p); }
    static float one(T x) { return Portable::bfloat(x); }
    // To the nearest, ties to even.
    static DECODERY_INLINE void store(T* p, F x) {
        const auto bits = S::as_int(x), odd = S::and_int(S::template shift_right<16>(bits), S::set1_int(1));
        const auto above = S::add_int(S::add_int(bits, S::set1_int(0x7fff)), odd);
        S::store_words(p, S::template shift_right<16>(above));
    }
};

template <class S>
struct StoredBytes {
    using F = typename S::F;
    using T = int8_t;
    static constexpr bool kScaled = true;
    static constexpr int kExtra = 4;
    static constexpr float kLargest = 3e38f, kSmallest = 1e-30f;
    static DECODERY_INLINE F load(const T* p) { return S::load_codes(p); }
    static float one(T x) { return x; }
    static DECODERY_INLINE void store(T* p, F x) { S::store_bytes(p, S::to_int(x)); }
    static float largest(const float* x, int64_t dim) {
        F top = S::zero();
        for (int64_t d = 0; d < dim; d += 16) {
            const int left = static_cast<int>(dim - d < 16 ? dim - d : 16);
            top = S::max(top, S::abs(bounded<S>(S::load_some(x + d, left), kLargest)));
        }
        const float all = S::reduce_max(top);
        return all < kSmallest ? 0.0f : all;
    }
};

// Writes a head's key or value to its page: element d at first + d * stride, the scale at its offset in the scales.
template <class S, class C>
DECODERY_INLINE void write_one(const float* x, int64_t dim, typename C::T* page, int64_t offset, int64_t first,
                               int64_t stride) {
    using F = typename S::F;
    using T = typename C::T;
    F factor = S::set1(1.0f);
    if constexpr (C::kScaled) {
        const float top = C::largest(x, dim);
        factor = S::set1(top > 0.0f ? 127.0f / top : 0.0f);
        reinterpret_cast<float*>(page + kPage * dim)[offset] = top / 127.0f;
    }
    for (int64_t d = 0; d < dim; d += 16) {
        const int left = static_cast<int>(dim - d < 16 ? dim - d : 16);
        F part = bounded<S>(left == 16 ? S::load(x + d) : S::load_some(x + d, left), C::kLargest);
        if constexpr (C::kScaled) part = S::mul(part, factor);
        T* to = page + first + d * stride;
        if (stride == 1 && left == 16) {
            C::store(to, part);
        } else {
            T each[16];
            C::store(each, part);
            for (int i = 0; i < left; i++) to[i * stride] = each[i];
        }
    }
}

template <class S, class Fn>
void with_stored(int64_t type, Fn fn) {
    switch (type) {
        case 0: fn(Stored32<S>{}); break;
        case 1: fn(StoredHalf<S>{}); break;
        case 2: fn(StoredBfloat<S>{}); break;
        case 3: fn(StoredBytes<S>{}); break;
    }
}

}  // namespace decodery
