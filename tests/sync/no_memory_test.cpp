#include "each_runtime.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/run.hpp>
#include <weft/runtime/time.hpp>
#include <weft/sync/to_thread.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <new>

// What is left behind where memory runs out: this program lets one of its own requests fail.

using namespace std::chrono_literals;

TEST_SUITE_BEGIN("sync.no_memory");

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) // they have their own

namespace {

thread_local int requests_until_failure = 0; // 0: none fails

} // namespace

void* operator new(std::size_t size) {
    if (requests_until_failure == 0 || --requests_until_failure != 0)
        if (void* const place = std::malloc(size)) return place;
    throw std::bad_alloc();
}
void operator delete(void* place) noexcept { std::free(place); }
void operator delete(void* place, std::size_t) noexcept { std::free(place); }

TEST_CASE("C24: deadlines for which there was no memory at first count from the next call on") {
    bool came_through = false;
    int request = 0;
    while (!came_through) {
        ++request;
        weft::run({.workers = 1}, [&] {
            bool refused = false;
            bool const finished = weft::move_on_after(1ms, [&] {
                weft::move_on_after(10h, [&] {
                    requests_until_failure = request;
                    try {
                        weft::lowlevel::checkpoint_if_cancelled();
                    } catch (std::bad_alloc const&) {
                        refused = true;
                    }
                    came_through = requests_until_failure > 0;
                    requests_until_failure = 0;
                    weft::sleep(10h);
                });
            });
            CHECK_FALSE(finished);
            CHECK(refused != came_through);
        });
    }
    CHECK(request > 1);
}

TEST_CASE("T2, T9: a call for which there is no memory runs not at all and leaves no thread, no token") {
    bool came_through = false;
    int request = 0;
    while (!came_through) {
        ++request;
        bool refused = false;
        weft::run({.workers = 1}, [&] {
            weft::capacity_limiter tokens(1);
            bool ran = false;
            requests_until_failure = request;
            try {
                weft::to_thread::run_sync({.limiter = &tokens}, [&] { ran = true; });
            } catch (std::bad_alloc const&) {
                refused = true;
            }
            came_through = requests_until_failure > 0;
            requests_until_failure = 0;
            CHECK(ran != refused);
            CHECK(tokens.borrowed_tokens() == 0);
        }); // joins each thread of the pool
        CHECK(refused != came_through);
    }
    CHECK(request > 5);
}

#endif
