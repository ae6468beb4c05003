// Sharing rows out among threads, and what may go wrong in a call.
#pragma once

#include <exception>
#include <optional>
#include <thread>
#include <vector>

#include "tiles.h"

namespace eqr {

// 0 once call() is done, 1 where memory or threads have run out: no exception may reach C.
template <typename Call>
int guarded(Call call) noexcept {
    try {
        call();
        return 0;
    } catch (const std::exception&) {
        return 1;
    }
}

// work(t, row) for every row: an even run of rows for each t < threads. work throws nothing. Tiles
// are touched with `amx` only: a process that may not use them is killed for configuring them.
template <typename Work>
void share_out(bool amx, long threads, long rows, Work work) {
    auto part = [&](long t) {
#ifdef __AMX_BF16__
        std::optional<Tiles> tiles;
        if (amx) tiles.emplace();
#endif
        for (long row = rows * t / threads; row < rows * (t + 1) / threads; ++row) work(t, row);
    };
    std::vector<std::thread> others;
    long started = 1;
    try {
        others.reserve(threads);
        for (; started < threads; ++started) others.emplace_back(part, started);
    } catch (const std::exception&) {
        // The system gives no more threads: this one does the rest.
    }
    part(0);
    for (long t = started; t < threads; ++t) part(t);
    for (auto& other : others) other.join();
}

}  // namespace eqr
