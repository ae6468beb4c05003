// What passes a block's two layers together, 32 places (or candidates) at a time, in float32.
#pragma once

#include "factors.h"
#include "shape.h"

namespace eqr {

// The answer at a place is read from the products of its state with rows of `head`.
struct ReadOut {
    const float* head;  // units: [C]; grid: [values, C]
    int64_t values;     // that a cell may have
    int64_t offset;     // token of value 0
};

template <typename F>
class Passes {
    using Value = typename F::Value;
    using Product = typename F::Product;

  public:
    Passes(Arena& arena, long hidden, long inner) : C(hidden), H(inner) {
        result = arena.take<float>(2 * BLOCK * C);
        blocks = arena.take<float>(2 * BLOCK * 32);
        act = arena.take<Value>(F::SIZE * BLOCK * H);
    }

    // settle(p, o) for each place p < count, with o = out(silu(first(x) + others)): left(p) gives
    // x of the 32 places from p on and adds(p, r, c, h) adds the others to h, columns c to c + 31
    // of places p + r and p + r + 1, the latter of no account where it is not below count. While
    // the products of one pass are computed, what follows those before them is done.
    template <typename Left, typename Add, typename Settle>
    void run(long count, const Value* first, const Value* out, Left left, Add adds, Settle settle) {
        const long columns = H / 32, results = C / 32;
        const Factor<Value> activations{act, H, BLOCK * H, H};
        Factor<Value> x = left(0);
        Product(blocks, 32, x, first, 0, H).finish();
        long which = 0, p = 0;
        for (; p < count; p += BLOCK) {
            for (long j = 0; j < columns; ++j, which ^= 1) {
                const bool turn = j + 1 == columns, more = !turn || p + BLOCK < count;
                if (turn && more) x = left(p + BLOCK);
                if (!more) x.runs = 0;
                Product next(blocks + (which ^ 1) * BLOCK * 32, 32, x, first,
                             turn ? 0 : 32 * (j + 1), H);
                gate(p, std::min(BLOCK, count - p), 32 * j, blocks + which * BLOCK * 32, next, adds);
                next.finish();
            }
            float *o = result + p / BLOCK % 2 * BLOCK * C, *last = result + BLOCK * C - (o - result);
            for (long j = 0; j < results; ++j) {
                Product product(o + 32 * j, C, activations, out, 32 * j, C);
                const long from = BLOCK * j / results, to = BLOCK * (j + 1) / results;
                const long pieces = product.share(to - from);
                for (long r = from; r < to && p; ++r) {
                    settle(p - BLOCK + r, last + r * C);
                    product.advance(pieces);
                }
                product.finish();
            }
        }
        p -= BLOCK;
        for (long r = 0; p + r < count; ++r) settle(p + r, result + (p / BLOCK % 2 * BLOCK + r) * C);
    }

    // o += x of a place; returns (1 - damping) / RMS(o).
    Vec scale(float* o, const float* x, double damping) const {
        Vec sum = set(0);
        for (long c = 0; c < C; c += 16) {
            const Vec y = add(load(o + c), load(x + c));
            store(o + c, y);
            sum = _mm512_fmadd_ps(y, y, sum);
        }
        const float mean = _mm512_reduce_add_ps(sum) / static_cast<float>(C);
        return set(static_cast<float>(1 - damping) / std::sqrt(mean + NORM_EPSILON));
    }

  private:
    const long C, H;
    float *result, *blocks;
    Value* act;

    template <typename Add>
    void gate(long p, long rows, long c, const float* x, Product& next, Add adds) {
        const long pieces = next.share(BLOCK / 2);
        for (long r = 0; r < rows; r += 2, x += 64) {
            Vec h[4] = {load(x), load(x + 16), load(x + 32), load(x + 48)};
            adds(p, r, c, h);
            F::put(act + r * H + c, BLOCK * H, silu(h[0]), silu(h[1]));
            F::put(act + (r + 1) * H + c, BLOCK * H, silu(h[2]), silu(h[3]));
            next.advance(pieces);
        }
    }
};

// A state after an update.
inline Vec mixed(Vec keep, Vec before, Vec scale, Vec o, const float* draw) {
    const Vec x = _mm512_fmadd_ps(scale, o, mul(keep, before));
    return draw ? add(x, load(draw)) : x;
}

// Sums of which a residual is made.
struct Moved {
    double change = 0, length = 0;

    float residual() const {
        return static_cast<float>(std::sqrt(change) / (std::sqrt(length) + 1e-8));
    }
};

}  // namespace eqr
