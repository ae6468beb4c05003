// Cycles of the `grid` operator with a single state, in bfloat16. A row's result depends on the row
// alone; a weight's gradient also on the number of threads, by which sums are split.
#include "calls.h"
#include "grid.h"

using namespace eqr;

namespace {

// As the weights are.
struct GridGradients {
    float *near, *out;
};

template <typename Worker>
std::vector<Worker> crew(Arena& arena, const GridShape& s, const Places& places,
                         const GridLayers& layers, long threads) {
    std::vector<Worker> workers;
    for (long t = 0; t < threads; ++t) workers.emplace_back(arena, s, places, layers);
    return workers;
}

// Values of the input of one block.
long input_size(const GridShape& s) { return Places(s).all * s.hidden; }

}  // namespace

extern "C" {

// Bytes that a call with so many threads works in, at an address that is a multiple of 64.
int64_t eqr_grid_workspace(const GridShape* s, int64_t threads, int64_t backward) noexcept {
    Arena arena{nullptr};
    const Places places(*s);
    const GridLayers layers(arena, *s);
    if (backward)
        crew<GridBackward>(arena, *s, places, layers, threads);
    else
        crew<GridForward>(arena, *s, places, layers, threads),
            arena.take<bf16>(threads * 2 * input_size(*s));
    return taken(arena);
}

// Values of the inputs that forward keeps for a row.
int64_t eqr_grid_kept(const GridShape* s) noexcept {
    return s->updates * s->blocks * input_size(*s);
}

// As eqr_units_forward, with cells for candidates.
int eqr_grid_forward(const GridShape* s, const GridWeights* weights, int64_t rows, const bf16* z,
                     const bf16* e, const uint8_t* kinds, const bf16* noise, int64_t draws,
                     int64_t first, bf16* end, bf16* inputs, char* workspace, int64_t threads) {
    return guarded([&] {
        Arena arena{workspace};
        const Places places(*s);
        const GridLayers layers(arena, *s);
        layers.fill(*s, *weights);
        auto workers = crew<GridForward>(arena, *s, places, layers, threads);
        const long cells = s->rows * s->columns, size = cells * s->hidden;
        const long kept = eqr_grid_kept(s), input = input_size(*s);
        bf16* scratch = arena.take<bf16>(threads * 2 * input);
        share_out(Shares::ready, s->amx, threads, rows, [&](long t, long row) {
            const Draws draw{noise, draws, first + row, size};
            const Embedding embedding = embedding_of(e, kinds, row, cells, s->hidden);
            bf16* to = inputs ? inputs + row * kept : scratch + t * 2 * input;
            workers[t].run(z + row * size, embedding, draw, end + row * size, to, !inputs);
        });
    });
}

// As eqr_units_backward.
int eqr_grid_backward(const GridShape* s, const GridWeights* weights, int64_t rows,
                      const bf16* d_end, const uint8_t* kinds, const bf16* inputs, bf16* d_z,
                      float* d_table, const GridGradients* d, char* workspace, int64_t threads) {
    return guarded([&] {
        Arena arena{workspace};
        const Places places(*s);
        const GridLayers layers(arena, *s);
        layers.fill(*s, *weights);
        auto workers = crew<GridBackward>(arena, *s, places, layers, threads);
        for (const GridBackward& worker : workers) worker.clear();
        const long c = s->hidden, h = s->inner, cells = s->rows * s->columns, size = cells * c;
        const long kept = eqr_grid_kept(s), near = NEIGHBOURS * c;
        share_out(Shares::even, s->amx, threads, rows, [&](long t, long row) {
            workers[t].run(d_end + row * size, kinds + row * cells, inputs + row * kept,
                           d_z ? d_z + row * size : nullptr);
        });
        for (long b = 0; b < s->blocks; ++b) {
            auto part = [=](const GridBackward& w) { return w.d_near + b * near * h; };
            gather(d->near + b * near * h, workers, part, near, h);
        }
        // These are not transposed: of one long row, gather's transpose is the row itself.
        gather(d->out, workers, [](const GridBackward& w) { return w.d_out; }, 1, s->blocks * c * h);
        gather(d_table, workers, [](const GridBackward& w) { return w.d_table; }, 1,
               s->embeddings * c);
    });
}
}
