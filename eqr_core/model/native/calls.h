// What the C functions of the mixers share.
#pragma once

#include "shape.h"
#include "threads.h"

namespace eqr {

inline int64_t taken(const Arena& arena) { return arena.at - static_cast<char*>(nullptr); }

// The noise of a row's updates: draw (first - update) mod count of `size` values each, if any.
struct Draws {
    const bf16* noise;  // or null
    long count, first, size;

    const bf16* operator()(long update) const {
        if (!noise) return nullptr;
        return noise + ((first - update) % count + count) % count * size;
    }
};

// Of a row of `places`: from e [rows, places, width], or with kinds [rows, places] from the table e.
inline Embedding embedding_of(const bf16* e, const uint8_t* kinds, long row, long places,
                              long width) {
    if (kinds) return {e, kinds + row * places};
    return {e + row * places * width, nullptr};
}

// to [outputs, inputs] = the sum of every worker's [inputs, outputs] at `part`.
template <typename Worker, typename Part>
void gather(float* to, const std::vector<Worker>& workers, Part part, long inputs, long outputs) {
    for (long i = 0; i < inputs; ++i)
        for (long j = 0; j < outputs; ++j) {
            float sum = 0;
            for (const Worker& worker : workers) sum += part(worker)[i * outputs + j];
            to[j * inputs + i] = sum;
        }
}

}  // namespace eqr
