// Sharing rows out among threads, and what may go wrong in a call.
#pragma once

#include <atomic>
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

// Who computes a row. even: a run of rows for each thread, so that sums that threads keep are the
// same each time. ready: whichever thread is ready takes the next one, so that a thread that the
// system stops holds up its one row alone.
enum class Shares { even, ready };

// work(t, row) for every row, on threads numbered t < threads. work throws nothing. Tiles are
// touched with `amx` only: a process that may not use them is killed for configuring them.
template <typename Work>
void share_out(Shares shares, bool amx, long threads, long rows, Work work) {
    std::atomic<long> next = 0;
    auto part = [&](long t) {
#ifdef __AMX_BF16__
        std::optional<Tiles> tiles;
        if (amx) tiles.emplace();
#endif
        if (shares == Shares::ready)
            for (long row; (row = next++) < rows;) work(t, row);
        else
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
