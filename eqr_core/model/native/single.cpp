// Outer steps with a single state, in float32, in place. A row's result depends on the row alone.
#include "calls.h"
#include "grid_single.h"
#include "single.h"

using namespace eqr;

namespace {

template <typename Use>
void with_factors(bool amx, Use use) {
#ifdef __AMX_BF16__
    if (amx) return use(Tiled<3>());
#endif
    use(Plain());
}

struct Units {
    using Shape = eqr::Shape;
    using Weights = eqr::Weights;
    struct Plan {
        explicit Plan(const Shape&) {}
    };
    template <typename F>
    using Packed = eqr::Packed<F>;

    template <typename F>
    static Single<F> worker(Arena& arena, const Shape& s, const Plan&, const Packed<F>& weights) {
        return {arena, s, weights};
    }
    static long cells(const Shape& s, const ReadOut& read) { return s.candidates / read.values; }
    static long size(const Shape& s) { return s.candidates * s.hidden; }
};

struct Grid {
    using Shape = GridShape;
    using Weights = GridWeights;
    using Plan = Places;
    template <typename F>
    using Packed = GridPacked<F>;

    template <typename F>
    static GridSingle<F> worker(Arena& arena, const Shape& s, const Plan& places,
                                const Packed<F>& weights) {
        return {arena, s, places, weights};
    }
    static long cells(const Shape& s, const ReadOut&) { return s.rows * s.columns; }
    static long size(const Shape& s) { return s.rows * s.columns * s.hidden; }
};

template <typename Mixer, typename F>
auto crew(Arena& arena, const typename Mixer::Shape& s, const typename Mixer::Plan& plan,
          const typename Mixer::template Packed<F>& weights, long threads) {
    std::vector<decltype(Mixer::template worker<F>(arena, s, plan, weights))> workers;
    for (long t = 0; t < threads; ++t)
        workers.push_back(Mixer::template worker<F>(arena, s, plan, weights));
    return workers;
}

template <typename Mixer>
int64_t packed_bytes(const typename Mixer::Shape& s) {
    Arena arena{nullptr};
    with_factors(s.amx, [&](auto f) { typename Mixer::template Packed<decltype(f)>(arena, s); });
    return taken(arena);
}

template <typename Mixer>
int64_t workspace_bytes(const typename Mixer::Shape& s, int64_t threads) {
    Arena arena{nullptr};
    with_factors(s.amx, [&](auto f) {
        Arena nowhere{nullptr};
        const typename Mixer::template Packed<decltype(f)> weights(nowhere, s);
        const typename Mixer::Plan plan(s);
        crew<Mixer, decltype(f)>(arena, s, plan, weights, threads);
    });
    return taken(arena);
}

template <typename Mixer>
int pack(const typename Mixer::Shape& s, const typename Mixer::Weights& weights, char* packed) {
    return guarded([&] {
        Arena arena{packed};
        with_factors(s.amx, [&](auto f) {
            typename Mixer::template Packed<decltype(f)>(arena, s).fill(s, weights);
        });
    });
}

template <typename Mixer>
int step(const typename Mixer::Shape& s, char* packed, const ReadOut& read, long rows,
         const int64_t* slots, float* z, const float* e, const float* noise, float* residual,
         uint8_t* tokens, char* workspace, long threads) {
    const long size = Mixer::size(s), cells = Mixer::cells(s, read);
    return guarded([&] {
        with_factors(s.amx, [&](auto f) {
            Arena held{packed}, arena{workspace};
            const typename Mixer::template Packed<decltype(f)> weights(held, s);
            const typename Mixer::Plan plan(s);
            auto workers = crew<Mixer, decltype(f)>(arena, s, plan, weights, threads);
            share_out(Shares::ready, s.amx, threads, rows, [&](long t, long row) {
                const float* draws = noise ? noise + row * s.updates * size : nullptr;
                residual[row] = workers[t].run(z + slots[row] * size, e + slots[row] * size, draws,
                                               read, tokens + row * cells);
            });
        });
    });
}

}  // namespace

extern "C" {

// What rounds the results of a step: two with equal names give the same bits.
const char* eqr_single_name(int64_t amx) { return amx ? "native-bf16x3" : "native-float32"; }

// For each mixer, NAME_single_
// - packed, workspace: bytes that the packed weights take, and that a call with so many threads
//   works in, which start as 0. Both start at a multiple of 64.
// - pack: the weights as a step reads them.
// - step: row i of the call is row slots[i] of z and e [., places, C]; noise [rows, updates,
//   places, C] or null, residual [rows] and tokens [rows, cells] have a row for each of the call.
#define EQR_SINGLE(NAME, MIXER)                                                                    \
    int64_t eqr_##NAME##_single_packed(const MIXER::Shape* s) noexcept {                           \
        return packed_bytes<MIXER>(*s);                                                            \
    }                                                                                              \
    int64_t eqr_##NAME##_single_workspace(const MIXER::Shape* s, int64_t threads) noexcept {       \
        return workspace_bytes<MIXER>(*s, threads);                                                \
    }                                                                                              \
    int eqr_##NAME##_single_pack(const MIXER::Shape* s, const MIXER::Weights* w, char* packed) {   \
        return pack<MIXER>(*s, *w, packed);                                                        \
    }                                                                                              \
    int eqr_##NAME##_single_step(const MIXER::Shape* s, char* packed, const ReadOut* read,         \
                                 int64_t rows, const int64_t* slots, float* z, const float* e,     \
                                 const float* noise, float* residual, uint8_t* tokens,             \
                                 char* workspace, int64_t threads) {                               \
        return step<MIXER>(*s, packed, *read, rows, slots, z, e, noise, residual, tokens,          \
                           workspace, threads);                                                    \
    }

EQR_SINGLE(units, Units)
EQR_SINGLE(grid, Grid)
}
