// Outer steps of the `units` operator with a single state and one block, in float32, in place. A
// row's result depends on the row alone.
#include "single.h"
#include "threads.h"

using namespace eqr;

namespace {

template <typename Use>
void with_factors(const Shape& s, Use use) {
#ifdef __AMX_BF16__
    if (s.amx) return use(Tiled<3>());
#endif
    use(Plain());
}

template <typename F>
std::vector<Single<F>> crew(Arena& arena, const Shape& s, const Packed<F>& weights, long threads) {
    std::vector<Single<F>> workers;
    for (long t = 0; t < threads; ++t) workers.emplace_back(arena, s, weights);
    return workers;
}

long taken(const Arena& arena) { return arena.at - static_cast<char*>(nullptr); }

}  // namespace

extern "C" {

// What rounds the results of a step: two with equal names give the same bits.
const char* eqr_single_name(int64_t amx) { return amx ? "native-bf16x3" : "native-float32"; }

// Bytes that the packed weights take, and that a call with so many threads works in. Both start at
// a multiple of 64.
int64_t eqr_single_packed(const Shape* s) noexcept {
    Arena arena{nullptr};
    with_factors(*s, [&](auto f) { Packed<decltype(f)>(arena, *s); });
    return taken(arena);
}

int64_t eqr_single_workspace(const Shape* s, int64_t threads) noexcept {
    Arena arena{nullptr};
    with_factors(*s, [&](auto f) {
        Arena nowhere{nullptr};
        const Packed<decltype(f)> weights(nowhere, *s);
        crew(arena, *s, weights, threads);
    });
    return taken(arena);
}

int eqr_single_pack(const Shape* s, const Weights* weights, char* packed) {
    return guarded([&] {
        Arena arena{packed};
        with_factors(*s, [&](auto f) { Packed<decltype(f)>(arena, *s).fill(*s, *weights); });
    });
}

// Row i of the call is row slots[i] of z and e [., candidates, C]; noise [rows, updates,
// candidates, C] or null, residual [rows] and tokens [rows, cells] have a row for each of the call.
int eqr_single_step(const Shape* s, char* packed, const ReadOut* read, int64_t rows,
                    const int64_t* slots, float* z, const float* e, const float* noise,
                    float* residual, uint8_t* tokens, char* workspace, int64_t threads) {
    const long size = s->candidates * s->hidden, cells = s->candidates / read->values;
    auto step = [&](auto f) {
        Arena held{packed}, arena{workspace};
        const Packed<decltype(f)> weights(held, *s);
        auto workers = crew(arena, *s, weights, threads);
        share_out(s->amx, threads, rows, [&](long t, long row) {
            const float* draws = noise ? noise + row * s->updates * size : nullptr;
            residual[row] = workers[t].run(z + slots[row] * size, e + slots[row] * size, draws,
                                           *read, tokens + row * cells);
        });
    };
    return guarded([&] { with_factors(*s, step); });
}
}
