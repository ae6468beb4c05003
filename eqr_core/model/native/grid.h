// The updates of one row (sample) of the `grid` operator, and their gradient.
//
// A tensor over places, not cells: the cells of a grid's row, then one empty place that is the
// neighbour beyond both the row's end and the next row's start. Before the first place and after the
// last stand `margin` empty ones. What is 0 there: inputs of blocks, and gradients of activations.
#pragma once

#include <algorithm>
#include <cmath>

#include "shape.h"

namespace eqr {

// Mirrored in layout.py.
struct GridShape {
    int64_t rows, columns;
    int64_t hidden, inner;  // multiples of 32
    int64_t blocks, updates;
    int64_t embeddings;  // rows of the table of embeddings
    double damping;
    int64_t amx;  // whether to use tiles
};

// As the parameters are: near [blocks, inner, 9 hidden], out [blocks, hidden, inner].
struct GridWeights {
    const float *near, *out;
};

constexpr long NEIGHBOURS = 9;

struct Places {
    long pitch, count, margin, all;  // count: to a multiple of 32; all: with both margins
    std::vector<int32_t> cell;       // [count]: the cell at a place, or -1

    explicit Places(const GridShape& s)
        : pitch(s.columns + 1),
          count((s.rows * pitch + 31) / 32 * 32),
          margin((pitch + 2) / 2 * 2),
          all(count + 2 * margin),
          cell(count, -1) {
        for (long r = 0; r < s.rows; ++r)
            for (long c = 0; c < s.columns; ++c)
                cell[r * pitch + c] = static_cast<int32_t>(r * s.columns + c);
    }
};

// A block's weights. `spread` is for the way back through `near`: from a place's surroundings,
// seen from their side.
struct GridLayer {
    Matrix near, spread;
    Layer out;

    GridLayer(Arena& arena, const GridShape& s)
        : near(arena, NEIGHBOURS * s.hidden, s.inner),
          spread(arena, NEIGHBOURS * s.inner, s.hidden),
          out(arena, s.hidden, s.inner) {}

    void fill(const GridShape& s, const float* from_near, const float* from_out) const {
        const long c = s.hidden, h = s.inner;
        near.fill(from_near, 1, NEIGHBOURS * c);
        for (long tap = 0; tap < NEIGHBOURS; ++tap) {
            const Matrix part = spread.rows(tap * h, h);
            part.fill(from_near + (NEIGHBOURS - 1 - tap) * c, NEIGHBOURS * c, 1);
        }
        out.fill(from_out);
    }
};

struct GridLayers {
    std::vector<GridLayer> blocks;

    GridLayers(Arena& arena, const GridShape& s) {
        for (long b = 0; b < s.blocks; ++b) blocks.emplace_back(arena, s);
    }

    void fill(const GridShape& s, const GridWeights& w) const {
        const long size = s.hidden * s.inner;
        for (long b = 0; b < s.blocks; ++b)
            blocks[b].fill(s, w.near + b * NEIGHBOURS * size, w.out + b * size);
    }
};

class GridForward {
  public:
    GridForward(Arena& arena, const GridShape& shape, const Places& places,
                const GridLayers& layers)
        : s(shape), at(places), w(layers), C(shape.hidden), H(shape.inner) {
        act = arena.take<bf16>(BLOCK * H);
        result = arena.take<float>(BLOCK * C);
        blocks = arena.take<float>(2 * BLOCK * 32);
    }

    // Values between the inputs of blocks.
    long stride() const { return at.all * C; }

    // From state `start` to `end`, [cells, C] both; draw(i) is the noise of update i, or null.
    // `inputs` takes the input of every block of every update, or of the last two with `twice`.
    template <typename Draw>
    void run(const bf16* start, Embedding e, Draw draw, bf16* end, bf16* inputs, bool twice) {
        std::memcpy(end, start, 2 * s.rows * s.columns * C);
        const long passes = s.updates * s.blocks;
        auto input = [&](long pass) { return inputs + (twice ? pass % 2 : pass) * stride(); };
        enter(input(0), end, e);
        for (long pass = 0; pass < passes; ++pass) {
            const long block = pass % s.blocks, update = pass / s.blocks;
            const bf16* x = input(pass) + at.margin * C;
            bf16* next = pass + 1 < passes ? input(pass + 1) : nullptr;
            const bool last = block + 1 == s.blocks;
            const bf16* noise = last ? draw(update) : nullptr;
            if (next) clear_margins(next);
            pass_all<false>(x, w.blocks[block], [&](long p) {
                for (long r = 0; r < BLOCK; ++r) {
                    bf16* to = next ? next + (at.margin + p + r) * C : nullptr;
                    if (at.cell[p + r] < 0)
                        blank(to);
                    else if (last)
                        settle(at.cell[p + r], r, x + (p + r) * C, e, noise, end, to);
                    else
                        hand_on(r, x + (p + r) * C, to);
                }
            });
        }
    }

  protected:
    const GridShape& s;
    const Places& at;
    const GridLayers& w;
    const long C, H;
    bf16* act;
    float *result, *blocks;

    // What pass_all keeps of 32 places for the way back: activations as the right factor of a
    // product over places, and their derivatives [16 pairs of places, 2 H], the two side by side.
    struct Kept {
        bf16 *tiles, *slope;
    };

    // For the places from p on, 32 at a time: result = out(silu(near(x))), then finish(p).
    template <bool gradient, typename Finish, typename Keep>
    void pass_all(const bf16* x, const GridLayer& layer, Finish finish, Keep keep) {
        const long columns = H / 32;
        long which = 0;
        surroundings(blocks, x, C, layer.near.right(), 0);
        for (long p = 0; p < at.count; p += BLOCK) {
            const Kept kept = keep(p);
            for (long j = 0; j < columns; ++j, which ^= 1) {
                const bool turn = j + 1 == columns;
                if (!turn || p + BLOCK < at.count)
                    surroundings(blocks + (which ^ 1) * BLOCK * 32, x + (turn ? p + BLOCK : p) * C,
                                 C, layer.near.right(), turn ? 0 : 32 * (j + 1));
                gate<gradient>(blocks + which * BLOCK * 32, 32 * j, kept);
            }
            multiply(s.amx, result, C, row_major(act, H), layer.out.there.right(), BLOCK, C, H,
                     false);
            finish(p);
        }
    }

    template <bool gradient, typename Finish>
    void pass_all(const bf16* x, const GridLayer& layer, Finish finish) {
        pass_all<gradient>(x, layer, finish, [](long) { return Kept{}; });
    }

    // c [32, 32] = the surroundings of 32 places from x on, `width` values a place, . columns from
    // `column` on of b.
    void surroundings(float* c, const bf16* x, long width, Right b, long column) const {
        const long steps = 3 * width / 32;
        const Left left{x - (at.pitch + 1) * width, 2 * width, 32 * width, 64};
        block(s.amx, c, 32, left, from(b, column), steps, false,
              {3, 2 * at.pitch * width, steps * b.step});
    }

    // act = silu(x) of 32 columns from c on. With `gradient`, it goes to tiles too and its
    // derivative to `slope`.
    template <bool gradient>
    void gate(const float* x, long c, Kept kept) {
        for (long r = 0; r < BLOCK; r += 2, x += 64) {
            const Vec h[4] = {load(x), load(x + 16), load(x + 32), load(x + 48)};
            Vec a[4], d[4];
            for (int i = 0; i < 4; ++i) {
                const Vec open = sigmoid(h[i]);
                a[i] = mul(h[i], open);
                if (gradient) d[i] = _mm512_fmadd_ps(a[i], _mm512_sub_ps(set(1), open), open);
            }
            bf16* out = act + r * H + c;
            for (int i = 0; i < 2; ++i) {
                store(out + 16 * i, a[i]);
                store(out + H + 16 * i, a[2 + i]);
                if (!gradient) continue;
                store_pairs(kept.slope + r * H + 2 * c + 32 * i, interleaved(d[i], d[2 + i]));
                store_pairs(kept.tiles + (c / 16 + i) * TILE + r * 16,
                            interleaved(a[i], a[2 + i]));
            }
        }
    }

    // o += x; returns 1 / RMS(o), of one place.
    float add_input(float* o, const bf16* x) const {
        Vec sum = set(0);
        for (long c = 0; c < C; c += 16) {
            const Vec y = add(load(o + c), load(x + c));
            store(o + c, y);
            sum = _mm512_fmadd_ps(y, y, sum);
        }
        return 1.0f / std::sqrt(_mm512_reduce_add_ps(sum) / static_cast<float>(C) + NORM_EPSILON);
    }

  private:
    void blank(bf16* to) const {
        if (to) std::memset(to, 0, 2 * C);
    }

    void clear_margins(bf16* input) const {
        std::memset(input, 0, 2 * at.margin * C);
        std::memset(input + (at.margin + at.count) * C, 0, 2 * at.margin * C);
    }

    void enter(bf16* input, const bf16* z, Embedding e) const {
        clear_margins(input);
        for (long p = 0; p < at.count; ++p) {
            bf16* to = input + (at.margin + p) * C;
            const long cell = at.cell[p];
            if (cell < 0) {
                blank(to);
                continue;
            }
            for (long c = 0; c < C; c += 16)
                store(to + c, add(load(z + cell * C + c), load(e.row(cell, C) + c)));
        }
    }

    // The next block's input from row r of `result`.
    void hand_on(long r, const bf16* x, bf16* to) {
        const Vec scale = set(add_input(result + r * C, x));
        for (long c = 0; c < C; c += 16) store(to + c, mul(scale, load(result + r * C + c)));
    }

    // The state of `cell` after the update from row r of `result`, and the next update's input.
    void settle(long cell, long r, const bf16* x, Embedding e, const bf16* noise, bf16* z,
                bf16* to) {
        const auto damping = static_cast<float>(s.damping);
        const Vec keep = set(damping);
        const Vec scale = set((1 - damping) * add_input(result + r * C, x));
        const bf16* embedded = e.row(cell, C);
        for (long c = 0; c < C; c += 16) {
            Vec before = mul(keep, load(z + cell * C + c));
            if (noise) before = add(before, load(noise + cell * C + c));
            const Half half = narrow(_mm512_fmadd_ps(scale, load(result + r * C + c), before));
            store(z + cell * C + c, half);
            if (to) store(to + c, add(widen(half), load(embedded + c)));
        }
    }
};

// All but the inputs of blocks is computed again: that costs less than to keep it.
class GridBackward : GridForward {
  public:
    // Sums over the rows seen: [blocks, 9 C, H] (transposed), [blocks, C, H], [embeddings, C].
    float *d_near, *d_out, *d_table;

    GridBackward(Arena& arena, const GridShape& shape, const Places& places,
                 const GridLayers& layers)
        : GridForward(arena, shape, places, layers) {
        g = arena.take<float>(s.rows * s.columns * C);
        d = arena.take<float>(at.count * C);
        slope = arena.take<bf16>(BLOCK * H);
        d_result = arena.take<bf16>(BLOCK * C);
        act_tiles = arena.take<bf16>(SPAN * H);
        d_result_turned = arena.take<bf16>(SPAN * C);
        x_turned = arena.take<bf16>(at.count * C);
        dh = arena.take<bf16>(at.all * H);
        for (bf16*& tiles : dh_tiles) tiles = arena.take<bf16>(at.all * H);
        d_near = arena.take<float>(s.blocks * NEIGHBOURS * C * H);
        d_out = arena.take<float>(s.blocks * C * H);
        d_table = arena.take<float>(s.embeddings * C);
    }

    void clear() const {
        std::memset(d_near, 0, sizeof(float) * s.blocks * NEIGHBOURS * C * H);
        std::memset(d_out, 0, sizeof(float) * s.blocks * C * H);
        std::memset(d_table, 0, sizeof(float) * s.embeddings * C);
        // Their margins stay so.
        std::memset(dh, 0, sizeof(bf16) * at.all * H);
        for (bf16* tiles : dh_tiles) std::memset(tiles, 0, sizeof(bf16) * at.all * H);
    }

    // From the gradient of the last state to that of the first (unless null), [cells, C]; kinds
    // [cells] says which embedding a cell had, inputs are as Forward::run left them.
    void run(const bf16* end, const uint8_t* kinds, const bf16* inputs, bf16* start) {
        const long cells = s.rows * s.columns, size = cells * C;
        const auto damping = static_cast<float>(s.damping);
        for (long i = 0; i < size; i += 16) store(g + i, load(end + i));
        for (long update = s.updates - 1; update >= 0; --update) {
            each_cell([&](long cell, long p) {
                for (long c = 0; c < C; c += 16)
                    store(d + p * C + c, mul(set(1 - damping), load(g + cell * C + c)));
            });
            for (long b = s.blocks - 1; b >= 0; --b)
                undo(inputs + (update * s.blocks + b) * stride() + at.margin * C, b);
            each_cell([&](long cell, long p) {
                float *sum = d_table + kinds[cell] * C, *kept = g + cell * C;
                for (long c = 0; c < C; c += 16) {
                    const Vec x = load(d + p * C + c);
                    store(sum + c, add(load(sum + c), x));
                    store(kept + c, _mm512_fmadd_ps(set(damping), load(kept + c), x));
                }
            });
        }
        for (long i = 0; start && i < size; i += 16) store(start + i, load(g + i));
    }

  private:
    float *g, *d;
    bf16 *slope, *d_result, *act_tiles, *d_result_turned, *x_turned, *dh;
    bf16* dh_tiles[2];  // pairs of places (2 i, 2 i + 1), and (2 i + 1, 2 i + 2)

    template <typename Use>
    void each_cell(Use use) const {
        for (long p = 0; p < at.count; ++p)
            if (at.cell[p] >= 0) use(at.cell[p], p);
    }

    // d, the gradient of block b's output, becomes that of its input x.
    void undo(const bf16* x, long b) {
        const GridLayer& layer = w.blocks[b];
        const auto keep = [&](long p) { return Kept{act_tiles + p % SPAN * H, slope}; };
        const auto finish = [&](long p) {
            undo_norm(x, p);
            for (long c = 0; c < C; c += 16) {
                turn(d_result_turned + p % SPAN * C + c / 16 * TILE, d_result + c, C);
                turn(x_turned + p * C + c / 16 * TILE, x + p * C + c, C);
            }
            undo_gate(layer, p);
            const long span = p % SPAN + BLOCK;
            if (span == SPAN || p + BLOCK == at.count)
                multiply(s.amx, d_out + b * C * H, H, turned(d_result_turned),
                         {act_tiles, 2 * TILE, H / 8 * TILE}, C, H, span, true);
        };
        pass_all<true>(x, layer, finish, keep);
        tile();
        for (long tap = 0; tap < NEIGHBOURS; ++tap) {
            const long place = at.margin - (tap / 3 - 1) * at.pitch - (tap % 3 - 1);
            const bf16* pairs = dh_tiles[place % 2] + place / 2 * 32;
            multiply(s.amx, d_near + (b * NEIGHBOURS + tap) * C * H, H, turned(x_turned),
                     {pairs, at.all * 32, 2 * TILE}, C, H, at.count, true);
        }
        for (long p = 0; p < at.count; p += BLOCK)
            for (long c = 0; c < C; c += 32) {
                surroundings(blocks, dh + (at.margin + p) * H, H, layer.spread.right(), c);
                for (long r = 0; r < BLOCK; ++r)
                    for (long i = 0; i < 32; i += 16) {
                        float* to = d + (p + r) * C + c + i;
                        store(to, add(load(to), load(blocks + 32 * r + i)));
                    }
            }
    }

    Left turned(const bf16* tiles) const { return {tiles, 64, 2 * TILE, C / 8 * TILE}; }

    // d through the norm, also as d_result, of the places from p on; 0 where there is no cell.
    void undo_norm(const bf16* x, long p) {
        const auto width = static_cast<float>(C);
        for (long r = 0; r < BLOCK; ++r) {
            float *o = result + r * C, *row = d + (p + r) * C;
            if (at.cell[p + r] < 0) {
                std::memset(row, 0, sizeof(float) * C);
                std::memset(d_result + r * C, 0, sizeof(bf16) * C);
                continue;
            }
            const float norm = add_input(o, x + (p + r) * C);
            Vec product = set(0);
            for (long c = 0; c < C; c += 16)
                product = _mm512_fmadd_ps(load(row + c), load(o + c), product);
            const Vec along = set(_mm512_reduce_add_ps(product) / width * norm * norm);
            for (long c = 0; c < C; c += 16) {
                const Vec y =
                    mul(set(norm), _mm512_fnmadd_ps(along, load(o + c), load(row + c)));
                store(row + c, y);
                store(d_result + r * C + c, y);
            }
        }
    }

    // dh of the places from p on.
    void undo_gate(const GridLayer& layer, long p) {
        const auto gate = [&](long, long c, const float* x) {
            for (long r = 0; r < BLOCK; r += 2, x += 64)
                for (long i = 0; i < 32; i += 16) {
                    const Pairs slopes = load_pairs(slope + r * H + 2 * (c + i));
                    bf16* to = dh + (at.margin + p + r) * H + c + i;
                    store(to, mul(load(x + i), even(slopes)));
                    store(to + H, mul(load(x + 32 + i), odd(slopes)));
                }
        };
        multiply(s.amx, row_major(d_result, C), layer.out.back.right(), BLOCK, H, C, gate);
    }

    // dh_tiles from dh.
    void tile() {
        const long column = at.all * 16;
        for (long c = 0; c < H; c += 16)
            for (long p = at.margin - 2; p <= at.margin + at.count; p += 2) {
                const bf16* row = dh + p * H + c;
                const long pair = c / 16 * column + p / 2 * 32;
                store_pairs(dh_tiles[0] + pair, interleaved(row, row + H));
                store_pairs(dh_tiles[1] + pair, interleaved(row + H, row + 2 * H));
            }
    }
};

}  // namespace eqr
