// The updates of one row (sample). Its tensors stay in the core's cache.
#pragma once

#include <algorithm>
#include <cmath>

#include "shape.h"

namespace eqr {

class Forward {
  public:
    Forward(Arena& arena, const Shape& shape, const Layers& layers)
        : s(shape), w(layers), C(shape.hidden), H(shape.inner) {
        z = arena.take<bf16>(s.candidates * C);
        pool = arena.take<bf16>(s.groups * 2 * C);
        projected = arena.take<bf16>(s.groups * H);
        act = arena.take<bf16>(BLOCK * H);
        result = arena.take<float>(BLOCK * C);
    }

    // From state `start` to `end`, [candidates, C] both; draw(i) is the noise of update i, or
    // null. inputs [padded, C] takes u = z + e of an update; the next one's stands `stride` after.
    template <typename Draw>
    void run(const bf16* start, Embedding e, Draw draw, bf16* end, bf16* inputs, long stride) {
        const long size = s.candidates * C;
        std::memcpy(z, start, 2 * size);
        for (long p = 0; p < s.candidates; ++p)
            for (long c = 0; c < C; c += 16)
                store(inputs + p * C + c, add(load(z + p * C + c), load(e.row(p, C) + c)));
        for (long update = 0; update < s.updates; ++update) {
            bf16 *u = inputs + update * stride, *next = u + stride;
            std::memset(u + size, 0, 2 * (s.padded * C - size));
            project(u);
            for (long p = 0; p < s.candidates; p += BLOCK) {
                activate<false>(u, p, nullptr, nullptr);
                finish(u, p, e, draw(update), update + 1 < s.updates ? next : nullptr);
            }
        }
        std::memcpy(end, z, 2 * size);
    }

  protected:
    const Shape& s;
    const Layers& w;
    const long C, H;
    bf16 *z, *pool, *projected, *act;
    float* result;

    // projected = the mean and the maximum of every group of u, through its kind's weights, with
    // columns i and i + 16 of every 32 paired.
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
            const auto keep = [&](long r, long c, const float* x) {
                for (long i = 0; i < BLOCK; ++i, x += 32)
                    store_pairs(projected + (first + r + i) * H + c,
                                interleaved(load(x), load(x + 16)));
            };
            multiply(s.amx, row_major(pool + first * 2 * C, 2 * C), w.pooled[k].there.right(),
                     count, H, 2 * C, keep);
        }
    }

    // result = out(silu(h)) of the candidates from p on. With `gradient`, silu(h) goes to `tiles`
    // too and its derivative to `slope`. All are 0 beyond the last pair.
    template <bool gradient>
    void activate(const bf16* u, long p, bf16* tiles, bf16* slope) {
        const long rows = std::min(BLOCK, s.candidates - p);
        const auto gate = [&](long, long c, const float* x) {
            for (long r = 0; r < rows; r += 2, x += 64) {
                const int32_t* low = s.group + (p + r) * s.families;
                const int32_t* high = r + 1 < rows ? low + s.families : low;
                Vec h[4] = {load(x), load(x + 16), load(x + 32), load(x + 48)};
                for (long f = 0; f < s.families; ++f) {
                    const Pairs first = load_pairs(projected + low[f] * H + c);
                    const Pairs second = load_pairs(projected + high[f] * H + c);
                    h[0] = add(h[0], even(first));
                    h[1] = add(h[1], odd(first));
                    h[2] = add(h[2], even(second));
                    h[3] = add(h[3], odd(second));
                }
                Vec a[4];
                for (int i = 0; i < 4; ++i) {
                    const Vec open = sigmoid(h[i]);
                    a[i] = mul(h[i], open);
                    if (gradient) h[i] = _mm512_fmadd_ps(a[i], _mm512_sub_ps(set(1), open), open);
                }
                bf16* out = act + r * H + c;
                for (int i = 0; i < 2; ++i) {
                    store(out + 16 * i, a[i]);
                    store(out + H + 16 * i, a[2 + i]);
                    if (!gradient) continue;
                    store_pairs(slope + r * H + 2 * c + 32 * i, interleaved(h[i], h[2 + i]));
                    store_pairs(tiles + (c / 16 + i) * TILE + r * 16, interleaved(a[i], a[2 + i]));
                }
            }
        };
        multiply(s.amx, row_major(u + p * C, C), w.own.there.right(), BLOCK, H, C, gate);
        for (long r = (rows + 1) / 2 * 2; r < BLOCK; r += 2) {
            std::memset(act + r * H, 0, 4 * H);
            if (!gradient) continue;
            std::memset(slope + r * H, 0, 4 * H);
            for (long c = 0; c < H; c += 16) std::memset(tiles + c / 16 * TILE + r * 16, 0, 64);
        }
        multiply(s.amx, result, C, row_major(act, H), w.out.there.right(), BLOCK, C, H, false);
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
    void finish(const bf16* u, long p, Embedding e, const bf16* noise, bf16* next) {
        const auto damping = static_cast<float>(s.damping);
        const Vec keep = set(damping);
        for (long r = 0; r < std::min(BLOCK, s.candidates - p); ++r) {
            const long at = (p + r) * C;
            const bf16* embedded = e.row(p + r, C);
            const Vec scale = set((1 - damping) * add_input(result + r * C, u + at));
            for (long c = 0; c < C; c += 16) {
                Vec x = mul(keep, load(z + at + c));
                if (noise) x = add(x, load(noise + at + c));
                const Half half = narrow(_mm512_fmadd_ps(scale, load(result + r * C + c), x));
                store(z + at + c, half);
                if (next) store(next + at + c, add(widen(half), load(embedded + c)));
            }
        }
    }
};

}  // namespace eqr
