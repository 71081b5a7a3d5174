#include <weft/runtime/detail/patience.hpp>

#include <doctest/doctest.h>

#include <cstdint>

using weft::detail::yielding_look;

namespace {

// Looks that take so long (ns) and find so much.
struct timed_look {
    int looks = 0;
    std::int64_t began = 0;

    bool at(yielding_look& by, std::int64_t time, std::int64_t found) {
        return by.look_for([&] {
            ++looks;
            began = yielding_look::now();
            while (yielding_look::now() < began + time) {}
            return found;
        });
    }
};

constexpr std::int64_t ms = 1'000'000;

// After its first look: the next one comes no earlier than that (and the test may be kept from looking sooner).
void check_pause(yielding_look& look, timed_look& by, std::int64_t at_least) {
    std::int64_t const first = by.began;
    while (by.looks == 1)
        by.at(look, 0, 1);
    CHECK(by.looks == 2);
    CHECK(by.began >= first + at_least);
}

} // namespace

TEST_SUITE("runtime.patience") {
    TEST_CASE("a look that takes no longer than its find is worth is made again at once") {
        yielding_look look;
        timed_look by;
        for (int time = 1; time <= 20; ++time) {
            CHECK(by.at(look, ms, 1'000'000'000)); // small tasks, for which others may have the CPU for minutes
            CHECK(by.looks == time);
        }
    }

    TEST_CASE("after a look in vain the CPU is kept for a hundred times as long") {
        yielding_look look;
        timed_look by;
        CHECK_FALSE(by.at(look, 2 * ms, 0));
        check_pause(look, by, 202 * ms);
    }

    TEST_CASE("after a look that took longer than its find is worth the CPU is kept for a while") {
        yielding_look look;
        timed_look by;
        CHECK(by.at(look, 2 * ms, 1));
        check_pause(look, by, 62 * ms);
    }
}
