// Sharing rows out among threads.
#pragma once

#include <system_error>
#include <thread>
#include <vector>

#include "tiles.h"

namespace eqr {

// work(t, row) for every row: an even run of rows for each t < threads.
template <typename Work>
void share_out(long threads, long rows, Work work) {
    auto part = [&](long t) {
#ifdef __AMX_BF16__
        Tiles tiles;
#endif
        for (long row = rows * t / threads; row < rows * (t + 1) / threads; ++row) work(t, row);
    };
    std::vector<std::thread> others;
    long started = 1;
    try {
        for (; started < threads; ++started) others.emplace_back(part, started);
    } catch (const std::system_error&) {
        // The system gives no more threads: this one does the rest.
    }
    part(0);
    for (long t = started; t < threads; ++t) part(t);
    for (auto& other : others) other.join();
}

}  // namespace eqr
