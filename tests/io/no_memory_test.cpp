#include "io/scratch.hpp"
#include "io/src/process_pool.hpp"
#include "support/failing_memory.hpp"
#include "support/run_test.hpp"

#include <weft/io/path.hpp>
#include <weft/io/temp.hpp>
#include <weft/runtime/run.hpp>
#include <weft/runtime/time.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include <sys/socket.h>

// What is left behind where memory runs out: this program lets one of its own requests fail.

TEST_SUITE_BEGIN("io.no_memory");

using weft::test::requests_until_failure;

namespace {

using namespace std::chrono_literals;
using weft::test::check;

// Calls it until it came through; gives how often there was no memory for it.
template <class Call> int count_refusals(Call call) {
    for (int request = 1;; ++request) {
        requests_until_failure = request;
        try {
            call();
            requests_until_failure = 0;
            return request - 1;
        } catch (std::bad_alloc const&) {
            check(requests_until_failure == 0, "ours");
        }
    }
}

std::unique_ptr<weft::detail::pool_worker> make_worker() {
    auto fresh = std::make_unique<weft::detail::pool_worker>();
    int ends[2];
    check(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0, "a connection");
    weft::unique_fd const theirs(ends[1]);
    ::shutdown(theirs.get(), SHUT_RDWR); // it is not fit. The child may have it until it has executed
    fresh->connection = weft::detail::open_descriptor(weft::unique_fd(ends[0]));
    fresh->child = weft::detail::child_process::start(
        {.arguments = {"sleep", "1000"}, .candidates = {"/bin/sleep"}});
    return fresh;
}

} // namespace

TEST_CASE("P7: workers that the pool has no memory to retire stay in it") {
    weft::test::run_sim(0, [] {
        weft::detail::process_pool pool;
        pool.give(make_worker());
        weft::sleep(301s); // of the virtual clock
        pool.give(make_worker());
        std::vector<std::unique_ptr<weft::detail::pool_worker>> retired;
        int const refusals = count_refusals([&] { check(pool.take(retired) == nullptr, "none"); });
        check(refusals > 0 && retired.size() == 2, "both of them");
        for (auto const& each : retired) {
            check(each != nullptr, "a worker");
            each->child->end(0s);
        }
        pool.close();
    });
}

TEST_CASE("NX10: a temporary directory whose close() has no memory is removed by its destructor") {
    scratch const place;
    weft::run({.workers = 1}, [&] {
        weft::temporary_directory({.directory = place / ""}).close(); // there is a thread
        int refusals = 0;
        for (int request = 1, left = 0; left == 0; ++request) {
            {
                weft::temporary_directory directory({.directory = place / ""});
                requests_until_failure = request;
                try {
                    directory.close();
                } catch (std::bad_alloc const&) {
                    ++refusals;
                }
                left = std::exchange(requests_until_failure, 0);
            }
            CHECK(std::filesystem::is_empty(place.where()));
        }
        CHECK(refusals > 0);
    });
}

TEST_SUITE_END();
