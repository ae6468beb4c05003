// An outer step of one row (sample) of the `units` operator in float32. What it works on stays in the
// core's cache.
#pragma once

#include <algorithm>
#include <cmath>

#include "passes.h"

namespace eqr {

template <typename F>
struct Packed {
    using Value = typename F::Value;
    Value *own, *out;
    std::vector<Value*> pooled;

    Packed(Arena& arena, const Shape& s) {
        own = arena.take<Value>(F::SIZE * s.inner * s.hidden);
        out = arena.take<Value>(F::SIZE * s.inner * s.hidden);
        for (long k = 0; k < s.kinds; ++k)
            pooled.push_back(arena.take<Value>(F::SIZE * s.inner * 2 * s.hidden));
    }

    void fill(const Shape& s, const Weights& w) const {
        F::pack(own, w.own, s.hidden, s.inner);
        F::pack(out, w.out, s.inner, s.hidden);
        for (long k = 0; k < s.kinds; ++k)
            F::pack(pooled[k], w.pooled + k * s.inner * 2 * s.hidden, 2 * s.hidden, s.inner);
    }
};

template <typename F>
class Single {
    using Value = typename F::Value;
    using Product = typename F::Product;

  public:
    Single(Arena& arena, const Shape& shape, const Packed<F>& weights)
        : s(shape), w(weights), C(shape.hidden), H(shape.inner), passes(arena, C, H) {
        z = arena.take<float>(s.candidates * C);
        u = arena.take<float>(s.candidates * C);
        projected = arena.take<float>(s.groups * H);
        logits = arena.take<float>(s.candidates);
        pool = arena.take<Value>(F::SIZE * s.groups * 2 * C);
        input = arena.take<Value>(F::SIZE * BLOCK * C);
    }

    // The state, its embedding e [candidates, C] and the noise of each update [updates,
    // candidates, C] or null: the next state takes the place of the old one. Returns the
    // residual; `tokens` takes the answer of each cell.
    float run(float* state, const float* e, const float* noise, const ReadOut& read,
              uint8_t* tokens) {
        const long size = s.candidates * C;
        for (long i = 0; i < size; i += 16) store(u + i, add(load(state + i), load(e + i)));
        Moved moved;
        for (long update = 0; update < s.updates; ++update) {
            project();
            const float *before = update ? z : state, *draw = noise ? noise + update * size : noise;
            if (update + 1 < s.updates)
                pass_all([&](long p, float* o) { advance(p, o, before, e, draw); });
            else
                pass_all([&](long p, float* o) {
                    end(p, o, before, state, draw, read.head, moved);
                });
        }
        answer(read, tokens);
        return moved.residual();
    }

  private:
    const Shape& s;
    const Packed<F>& w;
    const long C, H;
    Passes<F> passes;
    float *z, *u, *projected, *logits;
    Value *pool, *input;

    // projected = the mean and the maximum of every group of u, through its kind's weights. The
    // groups of a block are pooled while the one before it is multiplied.
    void project() {
        const long columns = H / 32, part = s.groups * 2 * C;
        for (long r = 0; r < 32; ++r) pool_group(r);
        for (long first = 0, k = 0; first < s.groups; first += 32) {
            while (first >= s.kind[k + 1]) ++k;
            for (long j = 0; j < columns; ++j) {
                Product product(projected + first * H + 32 * j, H,
                                {pool + first * 2 * C, 2 * C, part, 2 * C}, w.pooled[k], 32 * j, H);
                const long from = 32 * j / columns, to = 32 * (j + 1) / columns;
                const long pieces = product.share(to - from);
                for (long r = from; r < to && first + 32 < s.groups; ++r) {
                    pool_group(first + 32 + r);
                    product.advance(pieces);
                }
                product.finish();
            }
        }
    }

    void pool_group(long r) {
        const long begin = s.start[r], end = s.start[r + 1], part = s.groups * 2 * C;
        if (begin == end) return;
        const Vec share = set(1.0f / static_cast<float>(end - begin));
        for (long c = 0; c < C; c += 32) {
            const float* first = u + s.member[begin] * C + c;
            Vec sum0 = load(first), sum1 = load(first + 16), top0 = sum0, top1 = sum1;
            for (long m = begin + 1; m < end; ++m) {
                const float* next = u + s.member[m] * C + c;
                const Vec x0 = load(next), x1 = load(next + 16);
                sum0 = add(sum0, x0);
                sum1 = add(sum1, x1);
                top0 = _mm512_max_ps(top0, x0);
                top1 = _mm512_max_ps(top1, x1);
            }
            F::put(pool + r * 2 * C + c, part, mul(sum0, share), mul(sum1, share));
            F::put(pool + r * 2 * C + C + c, part, top0, top1);
        }
    }

    // settle(p, o) for each candidate p with o = out(silu(own(u) + what its groups project)).
    template <typename Settle>
    void pass_all(Settle settle) {
        const auto left = [&](long p) {
            split(p);
            return Factor<Value>{input, C, BLOCK * C, C};
        };
        const auto adds = [&](long p, long r, long c, Vec* h) {
            const int32_t* low = s.group + (p + r) * s.families;
            const int32_t* high = p + r + 1 < s.candidates ? low + s.families : low;
            for (long f = 0; f < s.families; ++f) {
                const float* first = projected + low[f] * H + c;
                const float* second = projected + high[f] * H + c;
                h[0] = add(h[0], load(first));
                h[1] = add(h[1], load(first + 16));
                h[2] = add(h[2], load(second));
                h[3] = add(h[3], load(second + 16));
            }
        };
        passes.run(s.candidates, w.own, w.out, left, adds, settle);
    }

    // The inputs of the candidates from p on as a left factor. What stands beyond the last of them
    // is of no account: a row of a product depends on that row alone.
    void split(long p) {
        for (long r = 0; r < std::min(BLOCK, s.candidates - p); ++r)
            for (long c = 0; c < C; c += 32) {
                const float* from = u + (p + r) * C + c;
                F::put(input + r * C + c, BLOCK * C, load(from), load(from + 16));
            }
    }

    // z of candidate p after an update, and u of the next.
    void advance(long p, float* o, const float* before, const float* e, const float* draw) {
        const Vec keep = set(static_cast<float>(s.damping)), by = passes.scale(o, u + p * C, s.damping);
        for (long c = 0; c < C; c += 16) {
            const long at = p * C + c;
            const Vec x = mixed(keep, load(before + at), by, load(o + c), draw ? draw + at : draw);
            store(z + at, x);
            store(u + at, add(x, load(e + at)));
        }
    }

    // The state of candidate p after the last update, what it adds to the norms of the residual,
    // and its logit.
    void end(long p, float* o, const float* before, float* state, const float* draw,
             const float* head, Moved& moved) {
        const Vec keep = set(static_cast<float>(s.damping)), by = passes.scale(o, u + p * C, s.damping);
        Vec change = set(0), length = set(0), logit = set(0);
        for (long c = 0; c < C; c += 16) {
            const long at = p * C + c;
            const Vec x = mixed(keep, load(before + at), by, load(o + c), draw ? draw + at : draw);
            const Vec step = _mm512_sub_ps(x, load(state + at));
            change = _mm512_fmadd_ps(step, step, change);
            length = _mm512_fmadd_ps(x, x, length);
            logit = _mm512_fmadd_ps(x, load(head + c), logit);
            store(state + at, x);
        }
        moved.change += _mm512_reduce_add_ps(change);
        moved.length += _mm512_reduce_add_ps(length);
        logits[p] = _mm512_reduce_add_ps(logit);
    }

    void answer(const ReadOut& read, uint8_t* tokens) const {
        for (long cell = 0; cell < s.candidates / read.values; ++cell) {
            const float* from = logits + cell * read.values;
            const long best = std::max_element(from, from + read.values) - from;
            tokens[cell] = static_cast<uint8_t>(best + read.offset);
        }
    }
};

}  // namespace eqr
