// The gradient of one row's updates. All but their inputs u is computed again: that costs less
// than to keep it.
#pragma once

#include "forward.h"

namespace eqr {

constexpr long SPAN = 128;  // candidates whose part of a weight's gradient is one product

class Backward : Forward {
  public:
    // Sums over the rows seen: [C, H], [C, H], [kinds, 2 C, H]; own and pooled are transposed.
    float *d_own, *d_out, *d_pooled;

    Backward(Arena& arena, const Shape& shape, const Layers& layers)
        : Forward(arena, shape, layers) {
        g = arena.take<float>(s.padded * C);
        du = arena.take<float>(s.padded * C);
        de = arena.take<float>(s.padded * C);
        dh = arena.take<bf16>(s.padded * H);
        d_act = arena.take<float>(BLOCK * H);
        d_result = arena.take<bf16>(BLOCK * C);
        act_tiles = arena.take<bf16>(SPAN * H);
        dh_tiles = arena.take<bf16>(SPAN * H);
        u_turned = arena.take<bf16>(SPAN * C);
        d_result_turned = arena.take<bf16>(SPAN * C);
        d_projected = arena.take<bf16>(s.groups * H);
        d_projected_tiles = arena.take<bf16>(s.groups * H);
        pool_turned = arena.take<bf16>(s.groups * 2 * C);
        d_pool = arena.take<float>(s.groups * 2 * C);
        d_own = arena.take<float>(C * H);
        d_out = arena.take<float>(C * H);
        d_pooled = arena.take<float>(s.kinds * 2 * C * H);
    }

    void clear() const {
        std::memset(d_own, 0, sizeof(float) * C * H);
        std::memset(d_out, 0, sizeof(float) * C * H);
        std::memset(d_pooled, 0, sizeof(float) * s.kinds * 2 * C * H);
    }

    // From the gradient of the last state to those of the first state (unless null) and of e, all
    // [candidates, C]; inputs as Forward::run left them.
    void run(const bf16* end, const bf16* inputs, long stride, bf16* start, bf16* e) {
        const long size = s.candidates * C;
        for (long i = 0; i < size; i += 16) store(g + i, load(end + i));
        std::memset(de, 0, sizeof(float) * size);
        for (long update = s.updates - 1; update >= 0; --update) undo(inputs + update * stride);
        for (long i = 0; i < size; i += 16) store(e + i, load(de + i));
        for (long i = 0; start && i < size; i += 16) store(start + i, load(g + i));
    }

  private:
    bf16 *dh, *d_result, *act_tiles, *dh_tiles, *u_turned, *d_result_turned;
    bf16 *d_projected, *d_projected_tiles, *pool_turned;
    float *g, *du, *de, *d_act, *d_pool;

    // g, the gradient of z after the update, becomes that of z before it.
    void undo(const bf16* u) {
        project(u);
        const long step = 2 * TILE, across = H / 16 * step, turned = C / 16 * step;
        for (long first = 0; first < s.padded; first += SPAN) {
            const long span = std::min(SPAN, s.padded - first);
            for (long p = first; p < first + span; p += BLOCK) undo_block(u, p, p - first);
            times(d_out, H, {d_result_turned, 64, step, turned}, {act_tiles, step, across}, C, H,
                  span, true);
            times(d_own, H, {u_turned, 64, step, turned}, {dh_tiles, step, across}, C, H, span,
                  true);
        }
        undo_project();
        spread(u);
    }

    // du and dh of the candidates from p on, and what the products of their span need.
    void undo_block(const bf16* u, long p, long place) {
        activate<true>(u, p, act_tiles + place * H);
        undo_norm(u, p);
        for (long c = 0; c < C; c += 16) {
            turn(d_result_turned + place * C + c / 16 * TILE, d_result + c, C);
            turn(u_turned + place * C + c / 16 * TILE, u + p * C + c, C);
        }
        times(d_act, H, row_major(d_result, C), w.out.back.right(), BLOCK, H, C);
        for (long r = 0; r < BLOCK; r += 2)
            for (long c = 0; c < H; c += 16) {
                const long at = r * H + c;
                const Vec low = mul(load(d_act + at), load(pre + at));
                const Vec high = mul(load(d_act + at + H), load(pre + at + H));
                store(dh + p * H + at, low);
                store(dh + (p + 1) * H + at, high);
                store_pairs(dh_tiles + place * H + c / 16 * TILE + r * 16, interleaved(low, high));
            }
        times(du + p * C, C, row_major(dh + p * H, H), w.own.back.right(), BLOCK, C, H, true);
    }

    // d_result and du from g through the norm, of the candidates from p on; 0 beyond the last.
    void undo_norm(const bf16* u, long p) {
        const auto width = static_cast<float>(C), share = static_cast<float>(1 - s.damping);
        const long rows = std::min(BLOCK, s.candidates - p);
        for (long r = 0; r < rows; ++r) {
            const long at = (p + r) * C;
            float* o = result + r * C;
            const float norm = add_input(o, u + at);
            Vec product = set(0);
            for (long c = 0; c < C; c += 16)
                product = _mm512_fmadd_ps(load(g + at + c), load(o + c), product);
            const Vec along = set(_mm512_reduce_add_ps(product) / width * norm * norm);
            const Vec scale = set(norm * share);
            for (long c = 0; c < C; c += 16) {
                const Vec across = _mm512_fnmadd_ps(along, load(o + c), load(g + at + c));
                const Vec d = mul(scale, across);
                store(du + at + c, d);
                store(d_result + r * C + c, d);
            }
        }
        std::memset(du + (p + rows) * C, 0, sizeof(float) * (BLOCK - rows) * C);
        std::memset(d_result + rows * C, 0, sizeof(bf16) * (BLOCK - rows) * C);
    }

    // d_pool and d_pooled from dh; the mean's part of d_pool is divided by the group's size.
    void undo_project() {
        for (long r = 0; r < s.groups; ++r)
            for (long c = 0; c < H; c += 32) {
                Vec sum0 = set(0), sum1 = set(0);
                for (long m = s.start[r]; m < s.start[r + 1]; ++m) {
                    const Pairs x = load_pairs(dh + s.member[m] * H + c);
                    sum0 = add(sum0, even(x));
                    sum1 = add(sum1, odd(x));
                }
                store_pairs(d_projected + r * H + c, interleaved(sum0, sum1));
            }
        for (long r = 0; r < s.groups; r += 32) {
            for (long i = 0; i < 32; i += 2)
                for (long c = 0; c < H; c += 16) {
                    const bf16* at = d_projected + (r + i) * H + c;
                    store_pairs(d_projected_tiles + r * H + c / 16 * TILE + i * 16,
                                interleaved(at, at + H));
                }
            for (long c = 0; c < 2 * C; c += 16)
                turn(pool_turned + r * 2 * C + c / 16 * TILE, pool + r * 2 * C + c, 2 * C);
        }
        const long step = 2 * TILE;
        for (long k = 0; k < s.kinds; ++k) {
            const long first = s.kind[k], count = s.kind[k + 1] - first;
            times(d_pool + first * 2 * C, 2 * C, row_major(d_projected + first * H, H),
                  w.pooled[k].back.right(), count, 2 * C, H);
            times(d_pooled + k * 2 * C * H, H, {pool_turned + first * 2 * C, 64, step, C / 8 * step},
                  {d_projected_tiles + first * H, step, H / 16 * step}, 2 * C, H, count, true);
        }
        for (long r = 0; r < s.groups; ++r) {
            const Vec share = set(1.0f / static_cast<float>(std::max(1, s.start[r + 1] - s.start[r])));
            float* mean = d_pool + r * 2 * C;
            for (long c = 0; c < C; c += 16) store(mean + c, mul(share, load(mean + c)));
        }
    }

    // Add to du what comes through the groups; every maximum of a group gets the whole gradient.
    void spread(const bf16* u) {
        const Vec keep = set(static_cast<float>(s.damping));
        for (long p = 0; p < s.candidates; ++p) {
            const int32_t* group = s.group + p * s.families;
            for (long c = 0; c < C; c += 16) {
                const long at = p * C + c;
                const Vec value = load(u + at);
                Vec d = load(du + at);
                for (long f = 0; f < s.families; ++f) {
                    const long row = group[f] * 2 * C + c;
                    const auto top = _mm512_cmp_ps_mask(value, load(pool + row + C), _CMP_EQ_OQ);
                    d = add(d, load(d_pool + row));
                    d = _mm512_mask_add_ps(d, top, d, load(d_pool + row + C));
                }
                store(g + at, _mm512_fmadd_ps(keep, load(g + at), d));
                store(de + at, add(load(de + at), d));
            }
        }
    }

    // One tile of the transpose of 32 rows x 16 columns at `in`.
    static void turn(bf16* out, const bf16* in, long columns) {
        Pairs pairs[16];
        for (long r = 0; r < 16; ++r)
            pairs[r] = interleaved(in + 2 * r * columns, in + (2 * r + 1) * columns);
        transpose(out, pairs);
    }
};

}  // namespace eqr
