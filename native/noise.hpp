// Gumbel noise as a pure function of a key of two words and a token.
#pragma once
#include "functions.hpp"

namespace decodery {

template <class S>
struct Noise {
    using F = typename S::F;
    using I = typename S::I;
    I first, second;

    Noise(int32_t one, int32_t two) : first(S::set1_int(one)), second(S::set1_int(two)) {}
    Noise(I one, I two) : first(one), second(two) {}

    template <int N>
    static DECODERY_INLINE I folded(I x) { return S::xor_int(x, S::template shift_right<N>(x)); }

    static DECODERY_INLINE I mixed(I x) {
        x = S::mul_int(folded<16>(x), S::set1_int(0x7feb352d));
        x = S::mul_int(folded<15>(x), S::set1_int(static_cast<int32_t>(0x846ca68b)));
        return folded<16>(x);
    }

    // -log(-log(1 - u)), with u of 32 random bits.
    DECODERY_INLINE F of(I tokens) const {
        const I golden = S::set1_int(static_cast<int32_t>(0x9e3779b1));
        const I seeded = mixed(S::xor_int(S::mul_int(tokens, golden), first));
        // The hash is a signed number, so half of the range is added: that flips the sign bit.
        const I bits = S::xor_int(mixed(S::xor_int(seeded, second)), S::set1_int(INT32_MIN));
        const F high = S::to_float(S::template shift_right<16>(bits));
        const F low = S::to_float(S::and_int(bits, S::set1_int(0xffff)));
        const F number = S::add(S::fma(high, S::set1(65536.0f), low), S::set1(0.5f));
        // Below 1, so that the noise is finite.
        const F u = S::min(S::mul(number, S::set1(0x1p-32f)), S::set1(0x1.fffffep-1f));
        // With w = 1 - u rounded, log(1 - u) = log(w) u / (1 - w) is accurate also for small u.
        const F one = S::set1(1.0f), w = S::sub(one, u), taken = S::sub(one, w);
        const F scaled = S::mul(logarithm<S>(w), S::div(u, taken));
        const F minus_log = S::pick(S::equal(taken, S::zero()), u, S::sub(S::zero(), scaled));
        return S::sub(S::zero(), logarithm<S>(minus_log));
    }
};

}  // namespace decodery
