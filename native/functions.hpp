// Functions of sixteen lanes, each computed by exactly rounded operations in a fixed order.
#pragma once
#include <cmath>
#include <cstdint>

namespace decodery {

#define DECODERY_INLINE inline __attribute__((always_inline))

// e^x within two units in the last place; 0 below -87.7 and infinity above 88.3.
template <class S>
DECODERY_INLINE typename S::F exponential(typename S::F x) {
    using F = typename S::F;
    // The bounds are the first operands, so that NaN is kept.
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

// Logarithm and exponential of one number. Not `log` and `exp`: code that is linked with a new glibc needs their versions
// of 2.29, and a wheel shall load with the older ones that torch runs with. `logl` and `expl` never had other versions.
inline double log_of(double x) { return static_cast<double>(std::log(static_cast<long double>(x))); }
inline double exp_of(double x) { return static_cast<double>(std::exp(static_cast<long double>(x))); }

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

// tanh x within three units in the last place. Below 5/8 it is x + x^3 p(x^2), whose coefficients are those of Cephes
// (Moshier, 1989).
template <class S>
DECODERY_INLINE typename S::F hyperbolic_tangent(typename S::F x) {
    using F = typename S::F;
    const F size = S::abs(x), square = S::mul(x, x), one = S::set1(1.0f);
    F p = S::set1(-5.70498872745e-3f);
    p = S::fma(p, square, S::set1(2.06390887954e-2f));
    p = S::fma(p, square, S::set1(-5.37397155531e-2f));
    p = S::fma(p, square, S::set1(1.33314422036e-1f));
    p = S::fma(p, square, S::set1(-3.33332819422e-1f));
    const F near = S::fma(S::mul(x, square), p, x);
    const F e = exponential<S>(S::add(size, size));
    const F far = S::sub(one, S::div(S::set1(2.0f), S::add(one, e)));
    const F negated = S::sub(S::zero(), far);
    return S::pick(S::above(size, S::set1(0.625f)), S::pick(S::above(S::zero(), x), negated, far), near);
}

template <class S>
DECODERY_INLINE typename S::F silu(typename S::F x) {
    return S::div(x, S::add(S::set1(1.0f), exponential<S>(S::sub(S::zero(), x))));
}

template <class S>
DECODERY_INLINE typename S::F swiglu(typename S::F gate, typename S::F up) { return S::mul(silu<S>(gate), up); }

// (up + 1) * gate * logistic(1.702 gate) with the gate up to 7 and up from -7 to 7; NaN is kept.
template <class S>
DECODERY_INLINE typename S::F clamped_swiglu(typename S::F gate, typename S::F up) {
    using F = typename S::F;
    const F one = S::set1(1.0f), limit = S::set1(7.0f);
    gate = S::min(limit, gate);
    up = S::max(S::set1(-7.0f), S::min(limit, up));
    const F e = exponential<S>(S::mul(gate, S::set1(-1.702f)));
    return S::mul(S::add(up, one), S::div(gate, S::add(one, e)));
}

// The activations by their numbers in decodery.kernels.native.native_calls. kClampedSwiglu is gated, and kClip has a
// parameter, so `activate` has neither.
enum ActivationId : int64_t { kSilu, kGelu, kGeluTanh, kRelu, kClampedSwiglu, kClip };

// Both forms of gelu are max(x, 0) - |x| * q(|x|) with q from 1/2 down to 0: no digits cancel, and beyond 14 the
// second term is 0, also where x is infinite.
template <class S>
DECODERY_INLINE typename S::F less_tail(typename S::F x, typename S::F size, typename S::F q) {
    return S::sub(S::max(S::zero(), x), S::mul(size, q));
}

// x times the normal distribution's mass below x. Its tail q beyond t >= 0 is e^(-t^2 / 2) times a slowly varying
// function. That is computed as 1/2 plus a polynomial in v = 1 - 1 / (1 + 15/64 t), with a relative error of 4e-8 over
// 0 .. 14.
template <class S>
DECODERY_INLINE typename S::F gelu(typename S::F x) {
    using F = typename S::F;
    const F t = S::min(S::set1(14.0f), S::abs(x)), scaled = S::mul(t, S::set1(0.234375f));
    const F v = S::div(scaled, S::add(S::set1(1.0f), scaled));
    F p = S::set1(-1.6041014080e-2f);
    p = S::fma(p, v, S::set1(-6.1207701355e-3f));
    p = S::fma(p, v, S::set1(2.1395609306e-1f));
    p = S::fma(p, v, S::set1(-3.8877904392e-1f));
    p = S::fma(p, v, S::set1(-1.9023577391e-1f));
    p = S::fma(p, v, S::set1(1.6680806475f));
    p = S::fma(p, v, S::set1(-2.9276269621f));
    p = S::fma(p, v, S::set1(2.8488736714f));
    p = S::fma(p, v, S::set1(-1.7021516943f));
    p = S::fma(p, v, S::set1(0.5f));
    return less_tail<S>(x, t, S::mul(p, exponential<S>(S::mul(S::mul(t, t), S::set1(-0.5f)))));
}

// x / 2 * (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))): the tail is e / (1 + e) with e = exp(-2 ...) of |x|.
template <class S>
DECODERY_INLINE typename S::F gelu_tanh(typename S::F x) {
    using F = typename S::F;
    const F t = S::min(S::set1(14.0f), S::abs(x));
    const F inner = S::mul(t, S::fma(S::mul(t, t), S::set1(-0.0713548162726f), S::set1(-1.59576912161f)));
    const F e = exponential<S>(inner);
    return less_tail<S>(x, t, S::div(e, S::add(S::set1(1.0f), e)));
}

template <class S>
DECODERY_INLINE typename S::F activate(int64_t activation, typename S::F x) {
    switch (activation) {
        case kGelu: return gelu<S>(x);
        case kGeluTanh: return gelu_tanh<S>(x);
        case kRelu: return S::max(S::zero(), x);
        default: return silu<S>(x);
    }
}

}  // namespace decodery
