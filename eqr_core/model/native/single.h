// An outer step of one row (sample) in float32. What it works on stays in the core's cache.
#pragma once

#include <algorithm>
#include <cmath>

#include "factors.h"
#include "shape.h"

namespace eqr {

constexpr long PASS = 32;  // candidates that pass the block's layers together
constexpr float EPSILON = 1e-5f;

// The answer of a cell is the value whose candidate has the greatest product with `head`.
struct ReadOut {
    const float* head;  // [C]
    int64_t values;     // of a cell
    int64_t offset;     // token of value 0
};

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
        : s(shape), w(weights), C(shape.hidden), H(shape.inner) {
        z = arena.take<float>(s.candidates * C);
        u = arena.take<float>(s.candidates * C);
        projected = arena.take<float>(s.groups * H);
        result = arena.take<float>(2 * PASS * C);
        blocks = arena.take<float>(2 * PASS * 32);
        logits = arena.take<float>(s.candidates);
        pool = arena.take<Value>(F::SIZE * s.groups * 2 * C);
        input = arena.take<Value>(F::SIZE * PASS * C);
        act = arena.take<Value>(F::SIZE * PASS * H);
    }

    // The state, its embedding e [candidates, C] and the noise of each update [updates,
    // candidates, C] or null: the next state takes the place of the old one. Returns the
    // residual; `tokens` takes the answer of each cell.
    float run(float* state, const float* e, const float* noise, const ReadOut& read,
              uint8_t* tokens) {
        const long size = s.candidates * C;
        for (long i = 0; i < size; i += 16) store(u + i, add(load(state + i), load(e + i)));
        double moved = 0, norm = 0;
        for (long update = 0; update < s.updates; ++update) {
            project();
            const float *before = update ? z : state, *draw = noise ? noise + update * size : noise;
            if (update + 1 < s.updates)
                pass_all([&](long p, float* o) { advance(p, o, before, e, draw); });
            else
                pass_all([&](long p, float* o) {
                    end(p, o, before, state, draw, read.head, moved, norm);
                });
        }
        answer(read, tokens);
        return static_cast<float>(std::sqrt(moved) / (std::sqrt(norm) + 1e-8));
    }

  private:
    const Shape& s;
    const Packed<F>& w;
    const long C, H;
    float *z, *u, *projected, *result, *blocks, *logits;
    Value *pool, *input, *act;

    // projected = the mean and the maximum of every group of u, through its kind's weights. The
    // groups of a block are pooled while the one before it is multiplied.
    void project() {
        const long columns = H / 32, part = s.groups * 2 * C;
        for (long r = 0; r < 32; ++r) pool_group(r);
        for (long first = 0, k = 0; first < s.groups; first += 32) {
            while (first >= s.kind[k + 1]) ++k;
            for (long j = 0; j < columns; ++j) {
                Product product(projected + first * H + 32 * j, H, pool + first * 2 * C, part,
                                w.pooled[k], 32 * j, 2 * C, H);
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
    // While the products of one pass are computed, what follows those before them is done.
    template <typename Settle>
    void pass_all(Settle settle) {
        const long columns = H / 32, results = C / 32;
        split(0);
        Product(blocks, 32, input, PASS * C, w.own, 0, C, H).finish();
        long which = 0, p = 0;
        for (; p < s.candidates; p += PASS) {
            for (long j = 0; j < columns; ++j, which ^= 1) {
                const bool turn = j + 1 == columns, more = !turn || p + PASS < s.candidates;
                if (turn && more) split(p + PASS);
                Product next(blocks + (which ^ 1) * PASS * 32, 32, input, PASS * C, w.own,
                             turn ? 0 : 32 * (j + 1), more ? C : 0, H);
                gate(p, 32 * j, blocks + which * PASS * 32, next);
                next.finish();
            }
            float *o = result + p / PASS % 2 * PASS * C, *last = result + PASS * C - (o - result);
            for (long j = 0; j < results; ++j) {
                Product product(o + 32 * j, C, act, PASS * H, w.out, 32 * j, H, C);
                const long from = PASS * j / results, to = PASS * (j + 1) / results;
                const long pieces = product.share(to - from);
                for (long r = from; r < to && p; ++r) {
                    settle(p - PASS + r, last + r * C);
                    product.advance(pieces);
                }
                product.finish();
            }
        }
        p -= PASS;
        for (long r = 0; p + r < s.candidates; ++r)
            settle(p + r, result + (p / PASS % 2 * PASS + r) * C);
    }

    // The inputs of the candidates from p on as a left factor. What stands beyond the last of them
    // is of no account: a row of a product depends on that row alone.
    void split(long p) {
        for (long r = 0; r < std::min(PASS, s.candidates - p); ++r)
            for (long c = 0; c < C; c += 32) {
                const float* from = u + (p + r) * C + c;
                F::put(input + r * C + c, PASS * C, load(from), load(from + 16));
            }
    }

    // act = silu(x + what their groups project) of 32 columns from c on, candidates from p on.
    void gate(long p, long c, const float* x, Product& next) {
        const long rows = std::min(PASS, s.candidates - p), pieces = next.share(PASS / 2);
        for (long r = 0; r < rows; r += 2, x += 64) {
            const int32_t* low = s.group + (p + r) * s.families;
            const int32_t* high = r + 1 < rows ? low + s.families : low;
            Vec h[4] = {load(x), load(x + 16), load(x + 32), load(x + 48)};
            for (long f = 0; f < s.families; ++f) {
                const float* first = projected + low[f] * H + c;
                const float* second = projected + high[f] * H + c;
                h[0] = add(h[0], load(first));
                h[1] = add(h[1], load(first + 16));
                h[2] = add(h[2], load(second));
                h[3] = add(h[3], load(second + 16));
            }
            F::put(act + r * H + c, PASS * H, silu(h[0]), silu(h[1]));
            F::put(act + (r + 1) * H + c, PASS * H, silu(h[2]), silu(h[3]));
            next.advance(pieces);
        }
    }

    // o += u of candidate p; returns (1 - damping) / RMS(o).
    Vec scale(long p, float* o) const {
        Vec sum = set(0);
        for (long c = 0; c < C; c += 16) {
            const Vec x = add(load(o + c), load(u + p * C + c));
            store(o + c, x);
            sum = _mm512_fmadd_ps(x, x, sum);
        }
        const float mean = _mm512_reduce_add_ps(sum) / static_cast<float>(C);
        return set(static_cast<float>(1 - s.damping) / std::sqrt(mean + EPSILON));
    }

    Vec mixed(Vec keep, Vec before, Vec scale, Vec o, const float* draw) const {
        const Vec x = _mm512_fmadd_ps(scale, o, mul(keep, before));
        return draw ? add(x, load(draw)) : x;
    }

    // z of candidate p after an update, and u of the next.
    void advance(long p, float* o, const float* before, const float* e, const float* draw) {
        const Vec keep = set(static_cast<float>(s.damping)), by = scale(p, o);
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
             const float* head, double& moved, double& norm) {
        const Vec keep = set(static_cast<float>(s.damping)), by = scale(p, o);
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
        moved += _mm512_reduce_add_ps(change);
        norm += _mm512_reduce_add_ps(length);
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
