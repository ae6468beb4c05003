// What a call works on: sizes, constraint groups, weights in tiles, and memory.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "vectors.h"

namespace eqr {

constexpr long BLOCK = 32;  // candidates or places that pass a block's layers together
constexpr long SPAN = 128;  // of them, those whose part of a weight's gradient is one product
constexpr float NORM_EPSILON = 1e-5f;

// Mirrored in layout.py. Groups are numbered through all families, those that share weights (a
// kind) together; a kind's groups are padded with empty ones to a multiple of 32.
struct Shape {
    int64_t candidates, padded;  // padded: to a multiple of 32
    int64_t hidden, inner;       // multiples of 32
    int64_t families, kinds, groups, updates;
    int64_t embeddings;     // rows of the table of embeddings
    const int32_t* group;   // [candidates, families]: the groups a candidate is in
    const int32_t* start;   // [groups + 1]: where a group's members start
    const int32_t* member;  // [candidates * families]
    const int32_t* kind;    // [kinds + 1]: where a kind's groups start
    double damping;
    int64_t amx;  // whether to use tiles
};

// Mirrored in step.py: float32, row-major, as the parameters are.
struct Weights {
    const float *own, *out, *pooled;  // [inner, hidden] [hidden, inner] [kinds, inner, 2 hidden]
};

// The embedding of each candidate or cell, or a table of embeddings and which of them each has.
struct Embedding {
    const bf16* values;
    const uint8_t* kinds;  // null without a table

    const bf16* row(long p, long width) const { return values + (kinds ? kinds[p] : p) * width; }
};

// Hands out aligned parts of one piece of memory. From address 0 it only counts.
struct Arena {
    char* at;

    template <typename T>
    T* take(long count) {
        T* part = reinterpret_cast<T*>(at);
        at += (count * static_cast<long>(sizeof(T)) + 63) / 64 * 64;
        return part;
    }
};

// A matrix of k rows x n columns as tiles (see Right).
struct Matrix {
    bf16* tiles;
    long k, n;

    Matrix(Arena& arena, long rows, long columns)
        : tiles(arena.take<bf16>(rows * columns)), k(rows), n(columns) {}

    Matrix(bf16* tiles, long rows, long columns) : tiles(tiles), k(rows), n(columns) {}

    Right right() const { return {tiles, 2 * TILE, n / 16 * 2 * TILE}; }

    // Rows from `first` on, a multiple of 32.
    Matrix rows(long first, long count) const { return {tiles + first * n, count, n}; }

    // Entry (i, j) becomes from[i * down + j * across].
    void fill(const float* from, long down, long across) const {
        for (long i = 0; i < k; ++i)
            for (long j = 0; j < n; ++j) {
                const long tile = (i / 32 * (n / 16) + j / 16) * TILE;
                tiles[tile + i % 32 / 2 * 32 + j % 16 * 2 + i % 2] =
                    narrow(from[i * down + j * across]);
            }
    }
};

// A layer's weight [outputs, inputs] and its transpose, for the way there and the way back.
struct Layer {
    Matrix there, back;

    Layer(Arena& arena, long outputs, long inputs)
        : there(arena, inputs, outputs), back(arena, outputs, inputs) {}

    void fill(const float* weight) const {
        there.fill(weight, 1, there.k);
        back.fill(weight, back.n, 1);
    }
};

struct Layers {
    Layer own, out;
    std::vector<Layer> pooled;

    Layers(Arena& arena, const Shape& s)
        : own(arena, s.inner, s.hidden), out(arena, s.hidden, s.inner) {
        for (long k = 0; k < s.kinds; ++k) pooled.emplace_back(arena, s.inner, 2 * s.hidden);
    }

    void fill(const Weights& w) const {
        own.fill(w.own);
        out.fill(w.out);
        for (const Layer& layer : pooled) {
            const long index = &layer - pooled.data();
            layer.fill(w.pooled + index * layer.back.k * layer.back.n);
        }
    }
};

}  // namespace eqr
