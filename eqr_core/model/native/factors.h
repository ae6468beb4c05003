// Products of float32 matrices: on AMX tiles, as sums of products of bfloat16 parts, or on vectors.
//
// Both classes offer the same. `put` writes 32 columns of a row of a left factor, `pack` a right
// factor. A `Product` computes 32 rows x 32 columns piece by piece, so that tiles are at work
// while vectors are: a core does not look far enough ahead to do that by itself. Columns and
// depths are multiples of 32.
#pragma once

#include "vectors.h"

namespace eqr {

// 32 rows of a left factor, `row` values from one to the next and `part` from one part of the
// values to the next. The depth comes in `runs` of `depth` each, `run` values from one to the next.
template <typename Value>
struct Factor {
    const Value* at;
    long row, part, depth, runs = 1, run = 0;

    long columns() const { return runs * depth; }
};

#ifdef __AMX_BF16__
// A value is the sum of PARTS bfloat16 numbers, each the rest that the ones before it leave, and a
// product the sum of those products of parts that are not smaller than what is left out. Part by
// part a factor lies in memory with columns c and c + 16 of every 32 side by side.
template <int PARTS>
struct Tiled {
    using Value = bf16;
    static constexpr long SIZE = PARTS;  // numbers that a value takes

    // To nearest, ties away from 0; a NaN may come out as any number.
    static Pairs rounded(Vec x) {
        const Pairs bits = _mm512_add_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(0x8000));
        return _mm512_and_si512(bits, _mm512_set1_epi32(0xffff0000));
    }

    static void put(bf16* at, long part, Vec first, Vec second) {
        for (int p = 0; p < PARTS; ++p) {
            const Pairs a = rounded(first), b = rounded(second);
            store_pairs(at + p * part, _mm512_or_si512(_mm512_srli_epi32(a, 16), b));
            first = _mm512_sub_ps(first, _mm512_castsi512_ps(a));
            second = _mm512_sub_ps(second, _mm512_castsi512_ps(b));
        }
    }

    // weight [n, k], row-major, is the transpose of the factor.
    static void pack(bf16* at, const float* weight, long k, long n) {
        for (long j = 0; j < n; ++j)
            for (long i = 0; i < k; ++i) {
                float rest = weight[j * k + i];
                const long tile = (i / 32 * (n / 16) + j / 16) * TILE;
                bf16* to = at + tile + i % 16 * 32 + j % 16 * 2 + i % 32 / 16;
                for (int p = 0; p < PARTS; ++p) {
                    to[p * k * n] = narrow(rest);
                    rest -= widen(to[p * k * n]);
                }
            }
    }

    // The tiles hold one product at a time: finish it before another is begun.
    class Product {
      public:
        // c [32, 32] = a [32, k] . columns j to j + 31 of b [k, n].
        Product(float* c, long ldc, Factor<bf16> a, const bf16* b, long j, long n)
            : c(c), ldc(ldc), a(a), b(b + j / 16 * TILE), k(a.columns()), n(n), left(a.at) {
            stored(a.at);
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
        }

        // Pieces to compute at each of so many turns.
        long share(long turns) const {
            return turns ? (k / 32 * PAIRS + turns - 1) / turns : 0;
        }

        void advance(long pieces) {
            for (; pieces && step < k / 32; --pieces) piece();
        }

        void finish() {
            while (step < k / 32) piece();
            _tile_stored(0, c, 4 * ldc);
            _tile_stored(1, c + 16, 4 * ldc);
            _tile_stored(2, c + 16 * ldc, 4 * ldc);
            _tile_stored(3, c + 16 * ldc + 16, 4 * ldc);
        }

      private:
        static constexpr long PAIRS = PARTS * (PARTS + 1) / 2;
        float* c;
        long ldc;
        Factor<bf16> a;
        const bf16* b;
        long k, n, step = 0, in_run = 0;
        const bf16* left;
        int p = PARTS - 1, q = 0;  // parts of a and b to multiply next
        bool fresh_a = true, fresh_b = true;

        // The pairs go there and back along p, so that a's part stays where it is when q changes.
        void piece() {
            if (fresh_b) {
                const bf16* right = b + q * k * n + step * (n / 16) * TILE;
                _tile_loadd(6, right, 64);
                _tile_loadd(7, right + TILE, 64);
            }
            if (fresh_a) {
                const bf16* from = left + p * a.part;
                _tile_loadd(4, from, 2 * a.row);
                _tile_loadd(5, from + 16 * a.row, 2 * a.row);
            }
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
            const int last = q % 2 ? PARTS - 1 - q : 0;
            fresh_b = p == last;
            fresh_a = !fresh_b;
            if (!fresh_b) {
                p += q % 2 ? 1 : -1;
            } else if (++q == PARTS) {
                q = 0;
                p = PARTS - 1;
                fresh_a = true;
                next_step();
            } else if (p > PARTS - 1 - q) {
                p = PARTS - 1 - q;
                fresh_a = true;
            }
        }

        void next_step() {
            ++step;
            left += 32;
            in_run += 32;
            if (in_run == a.depth) {
                left += a.run - a.depth;
                in_run = 0;
            }
        }
    };
};
#endif

struct Plain {
    using Value = float;
    static constexpr long SIZE = 1;

    static void put(float* at, long, Vec first, Vec second) {
        store(at, first);
        store(at + 16, second);
    }

    static void pack(float* at, const float* weight, long k, long n) {
        for (long j = 0; j < n; ++j)
            for (long i = 0; i < k; ++i) at[j / 32 * k * 32 + i * 32 + j % 32] = weight[j * k + i];
    }

    class Product {
      public:
        Product(float* c, long ldc, Factor<float> a, const float* b, long j, long)
            : c(c), ldc(ldc), a(a), b(b + j * a.columns()) {}

        long share(long) const { return 0; }
        void advance(long) {}

        void finish() {
            constexpr int ROWS = 8;
            for (int m = 0; m < 32; m += ROWS) {
                Vec sum[ROWS][2];
                for (auto& pair : sum) pair[0] = pair[1] = set(0);
                const float* right = b;
                for (long run = 0; run < a.runs; ++run)
                    for (long i = 0; i < a.depth; ++i, right += 32) {
                        const float* left = a.at + run * a.run + m * a.row + i;
                        const Vec b0 = load(right), b1 = load(right + 16);
#pragma GCC unroll 8
                        for (int r = 0; r < ROWS; ++r) {
                            const Vec x = set(left[r * a.row]);
                            sum[r][0] = _mm512_fmadd_ps(x, b0, sum[r][0]);
                            sum[r][1] = _mm512_fmadd_ps(x, b1, sum[r][1]);
                        }
                    }
                for (int r = 0; r < ROWS; ++r)
                    for (int i = 0; i < 2; ++i) store(c + (m + r) * ldc + 16 * i, sum[r][i]);
            }
        }

      private:
        float* c;
        long ldc;
        Factor<float> a;
        const float* b;
    };
};

}  // namespace eqr
