// The gradient of one row's updates. All but their inputs u is computed again: that costs less
// than to keep it.
#pragma once

#include "forward.h"

namespace eqr {

class Backward : Forward {
  public:
    // Sums over the rows seen: [C, H], [C, H], [kinds, 2 C, H], [embeddings, C]; own and pooled
    // are transposed.
    float *d_own, *d_out, *d_pooled, *d_table;

    Backward(Arena& arena, const Shape& shape, const Layers& layers)
        : Forward(arena, shape, layers) {
        g = arena.take<float>(s.padded * C);
        dh = arena.take<bf16>(s.padded * H);
        slope = arena.take<bf16>(BLOCK * H);
        d_result = arena.take<bf16>(BLOCK * C);
        act_tiles = arena.take<bf16>(SPAN * H);
        dh_tiles = arena.take<bf16>(SPAN * H);
        u_turned = arena.take<bf16>(SPAN * C);
        d_result_turned = arena.take<bf16>(SPAN * C);
        d_projected = arena.take<bf16>(s.groups * H);
        d_projected_tiles = arena.take<bf16>(s.groups * H);
        pool_turned = arena.take<bf16>(s.groups * 2 * C);
        d_pool = arena.take<bf16>(s.groups * 2 * C);
        d_own = arena.take<float>(C * H);
        d_out = arena.take<float>(C * H);
        d_pooled = arena.take<float>(s.kinds * 2 * C * H);
        d_table = arena.take<float>(s.embeddings * C);
    }

    void clear() const {
        std::memset(d_own, 0, sizeof(float) * C * H);
        std::memset(d_out, 0, sizeof(float) * C * H);
        std::memset(d_pooled, 0, sizeof(float) * s.kinds * 2 * C * H);
        std::memset(d_table, 0, sizeof(float) * s.embeddings * C);
    }

    // From the gradient of the last state to that of the first (unless null), [candidates, C];
    // kinds [candidates] says which embedding a candidate had, inputs are as Forward::run left them.
    void run(const bf16* end, const uint8_t* kinds, const bf16* inputs, long stride, bf16* start) {
        const long size = s.candidates * C;
        for (long i = 0; i < size; i += 16) store(g + i, load(end + i));
        const auto damping = static_cast<float>(s.damping);
        count(kinds, -damping);
        for (long update = s.updates - 1; update >= 0; --update) {
            undo(inputs + update * stride);
            // What u adds to g is g less damping times the g before.
            count(kinds, update ? 1 - damping : 1);
        }
        for (long i = 0; start && i < size; i += 16) store(start + i, load(g + i));
    }

  private:
    bf16 *dh, *slope, *d_result, *act_tiles, *dh_tiles, *u_turned, *d_result_turned;
    bf16 *d_projected, *d_projected_tiles, *pool_turned, *d_pool;
    float* g;

    void count(const uint8_t* kinds, float times) const {
        const Vec weight = set(times);
        for (long p = 0; p < s.candidates; ++p) {
            float* sum = d_table + kinds[p] * C;
            for (long c = 0; c < C; c += 16)
                store(sum + c, _mm512_fmadd_ps(weight, load(g + p * C + c), load(sum + c)));
        }
    }

    // g, the gradient of z after the update, becomes that of z before it.
    void undo(const bf16* u) {
        project(u);
        const long step = 2 * TILE, across = H / 16 * step, turned = C / 16 * step;
        for (long first = 0; first < s.padded; first += SPAN) {
            const long span = std::min(SPAN, s.padded - first);
            for (long p = first; p < first + span; p += BLOCK) undo_block(u, p, p - first);
            multiply(s.amx, d_out, H, {d_result_turned, 64, step, turned},
                     {act_tiles, step, across}, C, H, span, true);
            multiply(s.amx, d_own, H, {u_turned, 64, step, turned}, {dh_tiles, step, across}, C, H,
                     span, true);
        }
        undo_project();
        spread(u);
    }

    // g through the block's layers, dh of the candidates from p on, and what the products of
    // their span need.
    void undo_block(const bf16* u, long p, long place) {
        activate<true>(u, p, act_tiles + place * H, slope);
        undo_norm(u, p);
        for (long c = 0; c < C; c += 16) {
            turn(d_result_turned + place * C + c / 16 * TILE, d_result + c, C);
            turn(u_turned + place * C + c / 16 * TILE, u + p * C + c, C);
        }
        const auto gate = [&](long, long c, const float* x) {
            for (long r = 0; r < BLOCK; r += 2, x += 64)
                for (long i = 0; i < 32; i += 16) {
                    const Pairs slopes = load_pairs(slope + r * H + 2 * (c + i));
                    const Vec low = mul(load(x + i), even(slopes));
                    const Vec high = mul(load(x + 32 + i), odd(slopes));
                    store(dh + (p + r) * H + c + i, low);
                    store(dh + (p + r + 1) * H + c + i, high);
                    store_pairs(dh_tiles + place * H + (c + i) / 16 * TILE + r * 16,
                                interleaved(low, high));
                }
        };
        multiply(s.amx, row_major(d_result, C), w.out.back.right(), BLOCK, H, C, gate);
        multiply(s.amx, g + p * C, C, row_major(dh + p * H, H), w.own.back.right(), BLOCK, C, H,
                 true);
    }

    // d_result from g through the norm, added to what the damping keeps of g, of the candidates
    // from p on; 0 beyond the last.
    void undo_norm(const bf16* u, long p) {
        const auto width = static_cast<float>(C), damping = static_cast<float>(s.damping);
        const Vec keep = set(damping);
        const long rows = std::min(BLOCK, s.candidates - p);
        for (long r = 0; r < rows; ++r) {
            float *o = result + r * C, *row = g + (p + r) * C;
            const float norm = add_input(o, u + (p + r) * C);
            Vec product = set(0);
            for (long c = 0; c < C; c += 16)
                product = _mm512_fmadd_ps(load(row + c), load(o + c), product);
            const Vec along = set(_mm512_reduce_add_ps(product) / width * norm * norm);
            const Vec scale = set(norm * (1 - damping));
            for (long c = 0; c < C; c += 16) {
                const Vec before = load(row + c);
                const Vec d = mul(scale, _mm512_fnmadd_ps(along, load(o + c), before));
                store(row + c, _mm512_fmadd_ps(keep, before, d));
                store(d_result + r * C + c, d);
            }
        }
        std::memset(g + (p + rows) * C, 0, sizeof(float) * (BLOCK - rows) * C);
        std::memset(d_result + rows * C, 0, sizeof(bf16) * (BLOCK - rows) * C);
    }

    // d_pool and d_pooled from dh. d_pool has what a group's member gets that is not the group's
    // maximum, then what its maximum gets.
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
            // Columns come in order, so the mean's are there when the maximum's come.
            const auto keep = [&](long i, long c, const float* x) {
                for (long r = first + i; r < first + i + 32; ++r, x += 32) {
                    bf16* out = d_pool + r * 2 * C + c;
                    const long members = std::max(1, s.start[r + 1] - s.start[r]);
                    const Vec share = set(1.0f / static_cast<float>(members));
                    for (long j = 0; j < 32; j += 16)
                        store(out + j, c < C ? mul(load(x + j), share)
                                             : add(load(x + j), load(out + j - C)));
                }
            };
            multiply(s.amx, row_major(d_projected + first * H, H), w.pooled[k].back.right(), count,
                     2 * C, H, keep);
            multiply(s.amx, d_pooled + k * 2 * C * H, H,
                     {pool_turned + first * 2 * C, 64, step, C / 8 * step},
                     {d_projected_tiles + first * H, step, H / 16 * step}, 2 * C, H, count, true);
        }
    }

    // Add to g what comes through the groups; every maximum of a group gets the whole gradient.
    void spread(const bf16* u) {
        const __m512i first = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
        const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
        for (long p = 0; p < s.candidates; ++p) {
            const int32_t* group = s.group + p * s.families;
            for (long c = 0; c < C; c += 32) {
                const Pairs value = load_pairs(u + p * C + c);
                Vec d0 = set(0), d1 = set(0);
                for (long f = 0; f < s.families; ++f) {
                    const long row = group[f] * 2 * C + c;
                    const auto top = _mm512_cmpeq_epi16_mask(value, load_pairs(pool + row + C));
                    const Pairs x = _mm512_mask_loadu_epi16(load_pairs(d_pool + row), top,
                                                            d_pool + row + C);
                    d0 = add(d0, even(x));
                    d1 = add(d1, odd(x));
                }
                float* out = g + p * C + c;
                store(out, add(load(out), _mm512_permutex2var_ps(d0, first, d1)));
                store(out + 16, add(load(out + 16), _mm512_permutex2var_ps(d0, second, d1)));
            }
        }
    }
};

}  // namespace eqr
