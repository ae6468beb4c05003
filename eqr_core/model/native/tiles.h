// Products of bfloat16 matrices with float32 sums, on AMX tiles or AVX-512 vectors.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace eqr {

using bf16 = uint16_t;

// A matrix as tiles of 16 rows x 32 columns: bytes between rows, tiles and steps of 32 columns.
struct Left {
    const void* at;
    long row, tile, step;
};

// A matrix of k rows x n columns as tiles of 32 x 16, each 1 KiB with pairs of rows interleaved
// (16 x 16 pairs): bytes between tiles along n and along k.
struct Right {
    const void* at;
    long tile, step;
};

// The depth of a product in several runs: how many, and bytes from one to the next in both factors.
struct Runs {
    long count, left, right;
};

constexpr Runs ONE_RUN{1, 0, 0};

constexpr int TILE = 512;  // values of a tile

inline Left row_major(const bf16* at, long columns) { return {at, 2 * columns, 32 * columns, 64}; }

inline const char* bytes(const void* at, long offset) {
    return static_cast<const char*>(at) + offset;
}

#ifdef __AMX_BF16__
// The compiler does not know that tiles are loaded from memory: what is stored before this, is.
inline void stored(const void* at) { __asm__ volatile("" ::"r"(at) : "memory"); }

// Eight tiles of 16 rows x 64 bytes for this thread; what was configured before comes back.
class Tiles {
  public:
    Tiles() {
        _tile_storeconfig(before);
        alignas(64) uint8_t config[64] = {1};
        for (int t = 0; t < 8; ++t) {
            config[16 + 2 * t] = 64;
            config[48 + t] = 16;
        }
        stored(config);
        _tile_loadconfig(config);
    }
    ~Tiles() {
        if (before[0])
            _tile_loadconfig(before);
        else
            _tile_release();
    }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;

  private:
    alignas(64) uint8_t before[64];
};

inline void block_amx(float* c, long ldc, Left a, Right b, long steps, bool add, Runs runs) {
    const long stride = ldc * 4;
    stored(a.at);
    if (add) {
        _tile_loadd(0, c, stride);
        _tile_loadd(1, c + 16, stride);
        _tile_loadd(2, c + 16 * ldc, stride);
        _tile_loadd(3, c + 16 * ldc + 16, stride);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (long run = 0; run < runs.count; ++run)
        for (long k = 0; k < steps; ++k) {
            const char* left = bytes(a.at, run * runs.left + k * a.step);
            const char* right = bytes(b.at, run * runs.right + k * b.step);
            _tile_loadd(4, left, a.row);
            _tile_loadd(6, right, 64);
            _tile_loadd(7, right + b.tile, 64);
            _tile_loadd(5, left + a.tile, a.row);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    _tile_stored(0, c, stride);
    _tile_stored(1, c + 16, stride);
    _tile_stored(2, c + 16 * ldc, stride);
    _tile_stored(3, c + 16 * ldc + 16, stride);
}
#endif

inline __m512 dot_pairs(__m512 sum, __m512i a, __m512i b) {
#ifdef __AVX512BF16__
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
#else
    const __m512i high = _mm512_set1_epi32(0xffff0000);
    sum = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(a, 16)),
                          _mm512_castsi512_ps(_mm512_slli_epi32(b, 16)), sum);
    return _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(a, high)),
                           _mm512_castsi512_ps(_mm512_and_si512(b, high)), sum);
#endif
}

inline void block_vector(float* c, long ldc, Left a, Right b, long steps, bool add, Runs runs) {
    constexpr int ROWS = 8;
    for (int m = 0; m < 32; m += ROWS) {
        __m512 sum[ROWS][2];
        for (int r = 0; r < ROWS; ++r)
            for (int n = 0; n < 2; ++n)
                sum[r][n] = add ? _mm512_loadu_ps(c + (m + r) * ldc + 16 * n) : _mm512_setzero_ps();
        for (long step = 0; step < runs.count * steps; ++step) {
            const long run = step / steps, k = step % steps;
            const char* left = bytes(a.at, run * runs.left + k * a.step + m / 16 * a.tile + m % 16 * a.row);
            const char* right = bytes(b.at, run * runs.right + k * b.step);
            for (int pair = 0; pair < 16; ++pair) {
                const __m512i b0 = _mm512_loadu_si512(right + 64 * pair);
                const __m512i b1 = _mm512_loadu_si512(right + b.tile + 64 * pair);
#pragma GCC unroll 8
                for (int r = 0; r < ROWS; ++r) {
                    int32_t two;
                    std::memcpy(&two, left + r * a.row + 4 * pair, 4);
                    const __m512i both = _mm512_set1_epi32(two);
                    sum[r][0] = dot_pairs(sum[r][0], both, b0);
                    sum[r][1] = dot_pairs(sum[r][1], both, b1);
                }
            }
        }
        for (int r = 0; r < ROWS; ++r)
            for (int n = 0; n < 2; ++n) _mm512_storeu_ps(c + (m + r) * ldc + 16 * n, sum[r][n]);
    }
}

// c [32, 32] = a . b over `steps` steps of 32 of the depth in every run, added with `add`.
inline void block(bool amx, float* c, long ldc, Left a, Right b, long steps, bool add,
                  Runs runs = ONE_RUN) {
#ifdef __AMX_BF16__
    if (amx) return block_amx(c, ldc, a, b, steps, add, runs);
#endif
    block_vector(c, ldc, a, b, steps, add, runs);
}

inline Left from(Left a, long row) { return {bytes(a.at, row / 16 * a.tile), a.row, a.tile, a.step}; }
inline Right from(Right b, long column) {
    return {bytes(b.at, column / 16 * b.tile), b.tile, b.step};
}

// c [m, n] = a [m, k] . b [k, n], added to what c holds with `add`. All of m, n, k: multiples of 32.
inline void multiply(bool amx, float* c, long ldc, Left a, Right b, long m, long n, long k,
                     bool add) {
    for (long j = 0; j < n; j += 32)
        for (long i = 0; i < m; i += 32)
            block(amx, c + i * ldc + j, ldc, from(a, i), from(b, j), k / 32, add);
}

// The same product, handed to use(i, j, c) in 32 x 32 blocks c, columns j outermost. The tiles of
// the next block are at work while one is used.
template <typename Use>
void multiply(bool amx, Left a, Right b, long m, long n, long k, Use use) {
    alignas(64) float blocks[2][32 * 32];
    long last_i = 0, last_j = 0, which = 0;
    for (long j = 0; j < n; j += 32)
        for (long i = 0; i < m; i += 32) {
            block(amx, blocks[which], 32, from(a, i), from(b, j), k / 32, false);
            which ^= 1;
            if (i || j) use(last_i, last_j, static_cast<const float*>(blocks[which]));
            last_i = i;
            last_j = j;
        }
    if (m && n) use(last_i, last_j, static_cast<const float*>(blocks[which ^ 1]));
}

}  // namespace eqr
