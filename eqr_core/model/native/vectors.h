// Vectors of 16 float32, and their bfloat16 forms.
#pragma once

#include <cstring>

#include "tiles.h"

namespace eqr {

using Vec = __m512;
using Half = __m256i;   // 16 bfloat16
using Pairs = __m512i;  // 16 lanes of two bfloat16, the first in the low half

inline Vec set(float value) { return _mm512_set1_ps(value); }
inline Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
inline Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }

inline Vec even(Pairs x) { return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16)); }
inline Vec odd(Pairs x) {
    return _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(0xffff0000)));
}
inline Vec widen(Half x) { return even(_mm512_cvtepu16_epi32(x)); }

// To nearest, ties to even.
inline bf16 narrow(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    if (x != x) return 0x7fc0;
    return static_cast<bf16>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline float widen(bf16 x) {
    const uint32_t bits = static_cast<uint32_t>(x) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

inline Half narrow(Vec x) {
#ifdef __AVX512BF16__
    return (Half)_mm512_cvtneps_pbh(x);
#else
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i last = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(last, _mm512_set1_epi32(0x7fff)));
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    const __m512i kept = _mm512_mask_mov_epi32(up, nan, _mm512_set1_epi32(0x7fc00000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(kept, 16));
#endif
}

inline Half load_half(const bf16* at) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
}
inline Vec load(const float* at) { return _mm512_loadu_ps(at); }
inline Vec load(const bf16* at) { return widen(load_half(at)); }
inline Pairs load_pairs(const bf16* at) { return _mm512_loadu_si512(at); }
inline void store(float* at, Vec x) { _mm512_storeu_ps(at, x); }
inline void store(bf16* at, Half x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), x); }
inline void store(bf16* at, Vec x) { store(at, narrow(x)); }
inline void store_pairs(bf16* at, Pairs x) { _mm512_storeu_si512(at, x); }

inline Pairs interleaved(Half first, Half second) {
    return _mm512_or_si512(_mm512_cvtepu16_epi32(first),
                           _mm512_slli_epi32(_mm512_cvtepu16_epi32(second), 16));
}
inline Pairs interleaved(Vec first, Vec second) {
    return interleaved(narrow(first), narrow(second));
}
inline Pairs interleaved(const bf16* first, const bf16* second) {
    return interleaved(load_half(first), load_half(second));
}

// -x / ln 2 within bounds in which nothing that follows is denormal: a processor is slow at that,
// and an operator's sums reach hundreds. Beyond them a sigmoid is 0 or 1 to 1e-19. NaN stays NaN.
inline Vec exponent(Vec x) {
    return _mm512_max_ps(set(-64), _mm512_min_ps(set(64), mul(x, set(-1.44269504f))));
}

// 1 / (1 + exp(-x)) to a relative 2e-4; bfloat16 keeps 2e-3. 2^t = 2^floor(t) * cubic(rest).
inline Vec sigmoid(Vec x) {
    const Vec t = exponent(x);
    const Vec rest = _mm512_reduce_ps(t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    Vec power = set(0.07802452222f);
    power = _mm512_fmadd_ps(power, rest, set(0.22606717105f));
    power = _mm512_fmadd_ps(power, rest, set(0.69583352657f));
    power = _mm512_fmadd_ps(power, rest, set(0.99992522079f));
    return _mm512_rcp14_ps(add(_mm512_scalef_ps(power, t), set(1)));
}

// x / (1 + exp(-x)) to a relative 5e-7, for an x below -44 to an absolute 1e-17.
inline Vec silu(Vec x) {
    const Vec t = exponent(x);
    const Vec rest = _mm512_reduce_ps(t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    Vec power = set(0.001877784128f);
    power = _mm512_fmadd_ps(power, rest, set(0.008989127362f));
    power = _mm512_fmadd_ps(power, rest, set(0.0558261729f));
    power = _mm512_fmadd_ps(power, rest, set(0.2401538184f));
    power = _mm512_fmadd_ps(power, rest, set(0.6931530239f));
    power = _mm512_fmadd_ps(power, rest, set(0.9999999267f));
    const Vec sum = add(_mm512_scalef_ps(power, t), set(1));
    const Vec guess = _mm512_rcp14_ps(sum);
    return mul(x, mul(guess, _mm512_fnmadd_ps(sum, guess, set(2))));
}

// out = the transpose of 16 x 16 lanes.
inline void transpose(bf16* out, const Pairs* in) {
    Pairs two[16], four[16];
    for (int i = 0; i < 8; ++i) {
        two[2 * i] = _mm512_unpacklo_epi32(in[2 * i], in[2 * i + 1]);
        two[2 * i + 1] = _mm512_unpackhi_epi32(in[2 * i], in[2 * i + 1]);
    }
    for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 2; ++j) {
            four[4 * i + 2 * j] = _mm512_unpacklo_epi64(two[4 * i + j], two[4 * i + 2 + j]);
            four[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(two[4 * i + j], two[4 * i + 2 + j]);
        }
    for (int j = 0; j < 4; ++j) {
        const Pairs low0 = _mm512_shuffle_i32x4(four[j], four[4 + j], 0x88);
        const Pairs low1 = _mm512_shuffle_i32x4(four[8 + j], four[12 + j], 0x88);
        const Pairs high0 = _mm512_shuffle_i32x4(four[j], four[4 + j], 0xdd);
        const Pairs high1 = _mm512_shuffle_i32x4(four[8 + j], four[12 + j], 0xdd);
        store_pairs(out + 32 * j, _mm512_shuffle_i32x4(low0, low1, 0x88));
        store_pairs(out + 32 * (4 + j), _mm512_shuffle_i32x4(high0, high1, 0x88));
        store_pairs(out + 32 * (8 + j), _mm512_shuffle_i32x4(low0, low1, 0xdd));
        store_pairs(out + 32 * (12 + j), _mm512_shuffle_i32x4(high0, high1, 0xdd));
    }
}

// One tile of the transpose of 32 rows x 16 columns at `in`.
inline void turn(bf16* out, const bf16* in, long columns) {
    Pairs pairs[16];
    for (long r = 0; r < 16; ++r)
        pairs[r] = interleaved(in + 2 * r * columns, in + (2 * r + 1) * columns);
    transpose(out, pairs);
}

}  // namespace eqr
