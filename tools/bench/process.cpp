#include "lines.hpp"

#include <weft/streams/process.hpp>
#include <weft/sync/combinators.hpp>

#include <cstring>
#include <memory>
#include <ranges>

namespace bench {

namespace {

constexpr std::size_t resident = std::size_t(2)
                                 << 30; // what a fork() would have to copy the tables of
constexpr std::size_t at_once = 4;

} // namespace

// Short processes one after the other, and a few at once, started by a process with 2 GiB in use.
void processes_2gib(settings const& with) {
    std::size_t const total = with.count(1000);
    auto const ballast = std::make_unique_for_overwrite<char[]>(resident);
    std::memset(ballast.get(), 1, resident);
    auto const run_true = [](std::size_t) {
        weft::run_process({"/bin/true"},
                          {.stdout_ = weft::stdio::devnull, .stderr_ = weft::stdio::devnull});
    };
    repeat(with, "processes_2gib_one_by_one", "us", [&] {
        double const start = now();
        for (std::size_t i = 0; i < total; ++i)
            run_true(i);
        return (now() - start) * 1e6 / double(total);
    });
    repeat(with, "processes_2gib_" + std::to_string(at_once), "us", [&] {
        double const start = now();
        weft::for_each_concurrent(std::views::iota(std::size_t(0), total), at_once, run_true);
        return (now() - start) * 1e6 / double(total);
    });
}

} // namespace bench
