// The updates of one row (sample). Its tensors stay in the core's cache.
#pragma once

#include <algorithm>
#include <cmath>

#include "shape.h"

namespace eqr {

constexpr long BLOCK = 32;  // candidates that pass the block's layers together
constexpr float NORM_EPSILON = 1e-5f;

class Forward {
  public:
    Forward(Arena& arena, const Shape& shape, const Layers& layers)
        : s(shape), w(layers), C(shape.hidden), H(shape.inner) {
        z = arena.take<bf16>(s.candidates * C);
        pool = arena.take<bf16>(s.groups * 2 * C);
        projected = arena.take<float>(s.groups * H);
        pre = arena.take<float>(BLOCK * H);
        act = arena.take<bf16>(BLOCK * H);
        result = arena.take<float>(BLOCK * C);
    }

    // From state `start` to `end`, [candidates, C] both; draw(i) is the noise of update i, or
    // null. inputs [padded, C] takes u = z + e of an update; the next one's stands `stride` after.
    template <typename Draw>
    void run(const bf16* start, const bf16* e, Draw draw, bf16* end, bf16* inputs, long stride) {
        const long size = s.candidates * C;
        std::memcpy(z, start, 2 * size);
        for (long i = 0; i < size; i += 16) store(inputs + i, add(load(z + i), load(e + i)));
        for (long update = 0; update < s.updates; ++update) {
            const bf16* u = inputs + update * stride;
            bf16* next = update + 1 < s.updates ? inputs + (update + 1) * stride : nullptr;
            std::memset(inputs + update * stride + size, 0, 2 * (s.padded * C - size));
            project(u);
            for (long p = 0; p < s.candidates; p += BLOCK) {
                activate<false>(u, p, nullptr);
                finish(u, p, e, draw(update), next);
            }
        }
        std::memcpy(end, z, 2 * size);
    }

  protected:
    const Shape& s;
    const Layers& w;
    const long C, H;
    bf16 *z, *pool, *act;
    float *projected, *pre, *result;

    void times(float* c, long ldc, Left a, Right b, long m, long n, long k, bool more = false) {
        multiply(s.amx, c, ldc, a, b, m, n, k, more);
    }

    // projected = the mean and the maximum of every group of u, through its kind's weights.
    void project(const bf16* u) {
        for (long r = 0; r < s.groups; ++r) {
            const long begin = s.start[r], end = s.start[r + 1];
            bf16* row = pool + r * 2 * C;
            if (begin == end) {
                std::memset(row, 0, 4 * C);
                continue;
            }
            const Vec share = set(1.0f / static_cast<float>(end - begin));
            for (long c = 0; c < C; c += 32) {
                Pairs x = load_pairs(u + s.member[begin] * C + c);
                Vec sum0 = even(x), sum1 = odd(x), top0 = sum0, top1 = sum1;
                for (long m = begin + 1; m < end; ++m) {
                    x = load_pairs(u + s.member[m] * C + c);
                    sum0 = add(sum0, even(x));
                    sum1 = add(sum1, odd(x));
                    top0 = _mm512_max_ps(top0, even(x));
                    top1 = _mm512_max_ps(top1, odd(x));
                }
                store_pairs(row + c, interleaved(mul(sum0, share), mul(sum1, share)));
                store_pairs(row + C + c, interleaved(top0, top1));
            }
        }
        for (long k = 0; k < s.kinds; ++k) {
            const long first = s.kind[k], count = s.kind[k + 1] - first;
            times(projected + first * H, H, row_major(pool + first * 2 * C, 2 * C),
                  w.pooled[k].there.right(), count, H, 2 * C);
        }
    }

    // result = out(silu(h)) of the candidates from p on. With `gradient`, `pre` becomes the
    // derivative of silu at h, and silu(h) goes to `tiles` too; both 0 beyond the last pair.
    template <bool gradient>
    void activate(const bf16* u, long p, bf16* tiles) {
        times(pre, H, row_major(u + p * C, C), w.own.there.right(), BLOCK, H, C);
        const long rows = std::min(BLOCK, s.candidates - p);
        for (long r = 0; r < rows; r += 2) {
            const int32_t* low = s.group + (p + r) * s.families;
            const int32_t* high = r + 1 < rows ? low + s.families : low;
            for (long c = 0; c < H; c += 32) {
                float *at0 = pre + r * H + c, *at1 = at0 + H;
                Vec h[4] = {load(at0), load(at0 + 16), load(at1), load(at1 + 16)};
                for (long f = 0; f < s.families; ++f) {
                    const float *p0 = projected + low[f] * H + c, *p1 = projected + high[f] * H + c;
                    h[0] = add(h[0], load(p0));
                    h[1] = add(h[1], load(p0 + 16));
                    h[2] = add(h[2], load(p1));
                    h[3] = add(h[3], load(p1 + 16));
                }
                Vec a[4];
                for (int i = 0; i < 4; ++i) {
                    const Vec gate = sigmoid(h[i]);
                    a[i] = mul(h[i], gate);
                    if (gradient) h[i] = _mm512_fmadd_ps(a[i], _mm512_sub_ps(set(1), gate), gate);
                }
                for (int i = 0; i < 2; ++i) {
                    store(act + r * H + c + 16 * i, a[i]);
                    store(act + (r + 1) * H + c + 16 * i, a[2 + i]);
                    if (!gradient) continue;
                    store(at0 + 16 * i, h[i]);
                    store(at1 + 16 * i, h[2 + i]);
                    store_pairs(tiles + (c / 16 + i) * TILE + r * 16, interleaved(a[i], a[2 + i]));
                }
            }
        }
        for (long r = (rows + 1) / 2 * 2; r < BLOCK; r += 2) {
            std::memset(act + r * H, 0, 4 * H);
            if (!gradient) continue;
            std::memset(pre + r * H, 0, 8 * H);
            for (long c = 0; c < H; c += 16) std::memset(tiles + c / 16 * TILE + r * 16, 0, 64);
        }
        times(result, C, row_major(act, H), w.out.there.right(), BLOCK, C, H);
    }

    // o += u; returns 1 / RMS(o), of one candidate.
    float add_input(float* o, const bf16* u) const {
        Vec sum = set(0);
        for (long c = 0; c < C; c += 16) {
            const Vec x = add(load(o + c), load(u + c));
            store(o + c, x);
            sum = _mm512_fmadd_ps(x, x, sum);
        }
        return 1.0f / std::sqrt(_mm512_reduce_add_ps(sum) / static_cast<float>(C) + NORM_EPSILON);
    }

  private:
    // z of the candidates from p on after the update, and u of the next one unless null.
    void finish(const bf16* u, long p, const bf16* e, const bf16* noise, bf16* next) {
        const auto damping = static_cast<float>(s.damping);
        const Vec keep = set(damping);
        for (long r = 0; r < std::min(BLOCK, s.candidates - p); ++r) {
            const long at = (p + r) * C;
            const Vec scale = set((1 - damping) * add_input(result + r * C, u + at));
            for (long c = 0; c < C; c += 16) {
                Vec x = mul(keep, load(z + at + c));
                if (noise) x = add(x, load(noise + at + c));
                const Half half = narrow(_mm512_fmadd_ps(scale, load(result + r * C + c), x));
                store(z + at + c, half);
                if (next) store(next + at + c, add(widen(half), load(e + at + c)));
            }
        }
    }
};

}  // namespace eqr
