// Functions of sixteen lanes, each one order of exactly rounded operations.
#pragma once
#include <cstdint>

namespace decodery {

#define DECODERY_INLINE inline __attribute__((always_inline))

// e^x within two units in the last place; 0 below -87.7 and infinity above 88.3.
template <class S>
DECODERY_INLINE typename S::F exponential(typename S::F x) {
    using F = typename S::F;
    // The bounds stand first, so that NaN passes.
    const F bounded = S::max(S::set1(-88.0f), S::min(S::set1(89.0f), x));
    const auto n = S::to_int(S::mul(bounded, S::set1(1.44269504089f)));
    const F whole = S::to_float(n);
    F r = S::fma(whole, S::set1(-0.693359375f), bounded);
    r = S::fma(whole, S::set1(2.12194440e-4f), r);
    F p = S::set1(1.9875691500e-4f);
    p = S::fma(p, r, S::set1(1.3981999507e-3f));
    p = S::fma(p, r, S::set1(8.3334519073e-3f));
    p = S::fma(p, r, S::set1(4.1665795894e-2f));
    p = S::fma(p, r, S::set1(1.6666665459e-1f));
    p = S::fma(p, r, S::set1(5.0000001201e-1f));
    p = S::fma(S::mul(p, r), r, S::add(r, S::set1(1.0f)));
    return S::mul(p, S::power_of_two(n));
}

// The natural logarithm of positive normal numbers, within two units in the last place.
template <class S>
DECODERY_INLINE typename S::F logarithm(typename S::F x) {
    using F = typename S::F;
    // x = m 2^n with m from 2/3 to 4/3.
    const auto bits = S::as_int(x);
    const auto n = S::and_int(S::sub_int(bits, S::set1_int(0x3f2aaaab)), S::set1_int(static_cast<int32_t>(0xff800000)));
    const F f = S::sub(S::as_float(S::sub_int(bits, n)), S::set1(1.0f));
    const F exponent = S::mul(S::to_float(n), S::set1(0x1p-23f));
    // log(1 + f) = f - f^2 / 2 + f^3 p(f), p fitted for the least relative error.
    F p = S::set1(-0.12891442f);
    p = S::fma(p, f, S::set1(0.13984543f));
    p = S::fma(p, f, S::set1(-0.12184311f));
    p = S::fma(p, f, S::set1(0.14005847f));
    p = S::fma(p, f, S::set1(-0.16680485f));
    p = S::fma(p, f, S::set1(0.20010407f));
    p = S::fma(p, f, S::set1(-0.24999797f));
    p = S::fma(p, f, S::set1(0.33333215f));
    p = S::fma(p, f, S::set1(-0.5f));
    const F log = S::fma(S::mul(f, f), p, f);
    return S::fma(exponent, S::set1(0.693147181f), log);
}

template <class S>
DECODERY_INLINE typename S::F swiglu(typename S::F gate, typename S::F up) {
    const auto one = S::set1(1.0f);
    const auto shut = exponential<S>(S::sub(S::zero(), gate));
    return S::mul(S::div(gate, S::add(one, shut)), up);
}

}  // namespace decodery
