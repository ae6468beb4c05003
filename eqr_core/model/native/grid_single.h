// An outer step of one row (sample) of the `grid` operator in float32, over places (see grid.h).
#pragma once

#include "grid.h"
#include "passes.h"

namespace eqr {

template <typename F>
struct GridPacked {
    using Value = typename F::Value;
    std::vector<Value*> near, out;

    GridPacked(Arena& arena, const GridShape& s) {
        const long size = F::SIZE * s.inner * s.hidden;
        for (long b = 0; b < s.blocks; ++b) {
            near.push_back(arena.take<Value>(NEIGHBOURS * size));
            out.push_back(arena.take<Value>(size));
        }
    }

    void fill(const GridShape& s, const GridWeights& w) const {
        const long size = s.inner * s.hidden;
        for (long b = 0; b < s.blocks; ++b) {
            F::pack(near[b], w.near + b * NEIGHBOURS * size, NEIGHBOURS * s.hidden, s.inner);
            F::pack(out[b], w.out + b * size, s.inner, s.hidden);
        }
    }
};

template <typename F>
class GridSingle {
    using Value = typename F::Value;

  public:
    // What it takes of the arena is 0 at first, and stays so where there is no cell.
    GridSingle(Arena& arena, const GridShape& shape, const Places& places,
               const GridPacked<F>& weights)
        : s(shape), at(places), w(weights), C(shape.hidden), passes(arena, C, shape.inner) {
        z = arena.take<float>(s.rows * s.columns * C);
        for (Input& one : inputs) {
            one.values = arena.take<float>(at.count * C);
            one.factor = arena.take<Value>(F::SIZE * at.all * C);
        }
    }

    // As Single::run, with cells for candidates.
    float run(float* state, const float* e, const float* noise, const ReadOut& read,
              uint8_t* tokens) {
        const long size = s.rows * s.columns * C, count = s.updates * s.blocks;
        for (long p = 0; p < at.count; ++p)
            if (const long cell = at.cell[p]; cell >= 0)
                put(inputs[0], p, [&](long c) {
                    return add(load(state + cell * C + c), load(e + cell * C + c));
                });
        Moved moved;
        for (long pass = 0; pass < count; ++pass) {
            const long block = pass % s.blocks, update = pass / s.blocks;
            const Input &x = inputs[pass % 2], &next = inputs[(pass + 1) % 2];
            const float *before = update ? z : state, *draw = noise ? noise + update * size : noise;
            const auto each = [&](auto use) {
                pass_all(x, block, [&](long p, float* o) {
                    if (at.cell[p] >= 0) use(p, at.cell[p] * C, o);
                });
            };
            if (block + 1 < s.blocks)
                each([&](long p, long, float* o) { hand_on(x, next, p, o); });
            else if (pass + 1 < count)
                each([&](long p, long cell, float* o) {
                    advance(x, next, p, cell, o, before, e, draw);
                });
            else
                each([&](long p, long cell, float* o) {
                    end(x, p, cell, o, before, state, draw, moved);
                    tokens[at.cell[p]] = answer(state + cell, read);
                });
        }
        return moved.residual();
    }

  private:
    // A block's input at each place, and as a left factor with margins.
    struct Input {
        float* values;
        Value* factor;
    };

    const GridShape& s;
    const Places& at;
    const GridPacked<F>& w;
    const long C;
    Passes<F> passes;
    float* z;
    Input inputs[2];

    // x of place p becomes value(c), 16 columns from c on at a time.
    template <typename Make>
    void put(const Input& x, long p, Make value) const {
        for (long c = 0; c < C; c += 32) {
            const Vec first = value(c), second = value(c + 16);
            store(x.values + p * C + c, first);
            store(x.values + p * C + c + 16, second);
            F::put(x.factor + (at.margin + p) * C + c, at.all * C, first, second);
        }
    }

    // settle(p, o) for each place p with o = out(silu(near(x))).
    template <typename Settle>
    void pass_all(const Input& x, long block, Settle settle) {
        const auto left = [&](long p) {
            const Value* from = x.factor + (at.margin + p - at.pitch - 1) * C;
            return Factor<Value>{from, C, at.all * C, 3 * C, 3, at.pitch * C};
        };
        const auto nothing = [](long, long, long, Vec*) {};
        passes.run(at.count, w.near[block], w.out[block], left, nothing, settle);
    }

    // The next block's input.
    void hand_on(const Input& x, const Input& next, long p, float* o) {
        const Vec by = passes.scale(o, x.values + p * C, 0);
        put(next, p, [&](long c) { return mul(by, load(o + c)); });
    }

    // z of a cell after an update, and the input of the next.
    void advance(const Input& x, const Input& next, long p, long cell, float* o,
                 const float* before, const float* e, const float* draw) {
        const Vec keep = set(static_cast<float>(s.damping));
        const Vec by = passes.scale(o, x.values + p * C, s.damping);
        put(next, p, [&](long c) {
            const long i = cell + c;
            const Vec y = mixed(keep, load(before + i), by, load(o + c), draw ? draw + i : draw);
            store(z + i, y);
            return add(y, load(e + i));
        });
    }

    // The state of a cell after the last update, and what it adds to the residual.
    void end(const Input& x, long p, long cell, float* o, const float* before, float* state,
             const float* draw, Moved& moved) {
        const Vec keep = set(static_cast<float>(s.damping));
        const Vec by = passes.scale(o, x.values + p * C, s.damping);
        Vec change = set(0), length = set(0);
        for (long c = 0; c < C; c += 16) {
            const long i = cell + c;
            const Vec y = mixed(keep, load(before + i), by, load(o + c), draw ? draw + i : draw);
            const Vec step = _mm512_sub_ps(y, load(state + i));
            change = _mm512_fmadd_ps(step, step, change);
            length = _mm512_fmadd_ps(y, y, length);
            store(state + i, y);
        }
        moved.change += _mm512_reduce_add_ps(change);
        moved.length += _mm512_reduce_add_ps(length);
    }

    uint8_t answer(const float* z, const ReadOut& read) const {
        long best = 0;
        float most = 0;
        for (long v = 0; v < read.values; ++v) {
            Vec sum = set(0);
            for (long c = 0; c < C; c += 16)
                sum = _mm512_fmadd_ps(load(z + c), load(read.head + v * C + c), sum);
            const float logit = _mm512_reduce_add_ps(sum);
            if (!v || logit > most) {
                most = logit;
                best = v;
            }
        }
        return static_cast<uint8_t>(best + read.offset);
    }
};

}  // namespace eqr
