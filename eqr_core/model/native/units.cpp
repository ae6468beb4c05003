// Cycles of the `units` operator with a single state and one block, in bfloat16. A row's result
// depends on the row alone; a weight's gradient also on the number of threads, by which sums are split.
#include "backward.h"
#include "calls.h"

using namespace eqr;

namespace {

// As the weights are.
struct Gradients {
    float *own, *out, *pooled;
};

template <typename Worker>
std::vector<Worker> crew(Arena& arena, const Shape& shape, const Layers& layers, long threads) {
    std::vector<Worker> workers;
    for (long t = 0; t < threads; ++t) workers.emplace_back(arena, shape, layers);
    return workers;
}

}  // namespace

extern "C" {

// Bytes that a call with so many threads works in, at an address that is a multiple of 64.
int64_t eqr_units_workspace(const Shape* s, int64_t threads, int64_t backward) noexcept {
    Arena arena{nullptr};
    const Layers layers(arena, *s);
    if (backward)
        crew<Backward>(arena, *s, layers, threads);
    else
        crew<Forward>(arena, *s, layers, threads), arena.take<bf16>(threads * s->padded * s->hidden);
    return taken(arena);
}

// Values of the inputs that forward keeps for a row.
int64_t eqr_units_kept(const Shape* s) noexcept { return s->updates * s->padded * s->hidden; }

// z, end [rows, candidates, C]; inputs [rows, updates, padded, C], or null to keep nothing.
// e [rows, candidates, C], or a table [embeddings, C] with kinds [rows, candidates].
// noise [draws, candidates, C] or null: row b takes draw (first + b - i) mod draws in update i.
int eqr_units_forward(const Shape* s, const Weights* weights, int64_t rows, const bf16* z,
                      const bf16* e, const uint8_t* kinds, const bf16* noise, int64_t draws,
                      int64_t first, bf16* end, bf16* inputs, char* workspace, int64_t threads) {
    return guarded([&] {
        Arena arena{workspace};
        const Layers layers(arena, *s);
        layers.fill(*weights);
        auto workers = crew<Forward>(arena, *s, layers, threads);
        const long size = s->candidates * s->hidden, input = s->padded * s->hidden;
        bf16* scratch = arena.take<bf16>(threads * input);
        share_out(Shares::ready, s->amx, threads, rows, [&](long t, long row) {
            const Draws draw{noise, draws, first + row, size};
            const Embedding embedding = embedding_of(e, kinds, row, s->candidates, s->hidden);
            bf16* kept = inputs ? inputs + row * s->updates * input : scratch + t * input;
            workers[t].run(z + row * size, embedding, draw, end + row * size, kept, inputs ? input : 0);
        });
    });
}

// From the gradient of `end` and what forward kept to those of z (unless null), of the table of
// embeddings and of the weights.
int eqr_units_backward(const Shape* s, const Weights* weights, int64_t rows, const bf16* d_end,
                       const uint8_t* kinds, const bf16* inputs, bf16* d_z, float* d_table,
                       const Gradients* d, char* workspace, int64_t threads) {
    return guarded([&] {
        Arena arena{workspace};
        const Layers layers(arena, *s);
        layers.fill(*weights);
        auto workers = crew<Backward>(arena, *s, layers, threads);
        for (const Backward& worker : workers) worker.clear();
        const long c = s->hidden, h = s->inner, size = s->candidates * c, input = s->padded * c;
        share_out(Shares::even, s->amx, threads, rows, [&](long t, long row) {
            workers[t].run(d_end + row * size, kinds + row * s->candidates,
                           inputs + row * s->updates * input, input, d_z ? d_z + row * size : nullptr);
        });
        gather(d->own, workers, [](const Backward& b) { return b.d_own; }, c, h);
        for (long k = 0; k < s->kinds; ++k) {
            auto part = [=](const Backward& b) { return b.d_pooled + k * 2 * c * h; };
            gather(d->pooled + k * 2 * c * h, workers, part, 2 * c, h);
        }
        // These are not transposed: of one long row, gather's transpose is the row itself.
        gather(d->out, workers, [](const Backward& b) { return b.d_out; }, 1, c * h);
        gather(d_table, workers, [](const Backward& b) { return b.d_table; }, 1, s->embeddings * c);
    });
}
}
