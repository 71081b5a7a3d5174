#include "io/scratch.hpp"
#include "io/src/process_pool.hpp"
#include "io/worker_processes.hpp"
#include "support/child_process.hpp"
#include "support/failing_memory.hpp"
#include "support/run_test.hpp"

#include <weft/io/file.hpp>
#include <weft/io/path.hpp>
#include <weft/io/temp.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/run.hpp>
#include <weft/runtime/time.hpp>
#include <weft/sync/to_thread.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

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

// The pool uses its only thread again.
int in_the_thread(int request) {
    return weft::to_thread::run_sync(
        [request] { return std::exchange(requests_until_failure, request); });
}

// In a run of its own, refused each of the thread's requests in turn; between them `look`.
template <class Call, class Look> void refuse_the_thread(Call call, Look look) {
    int refusals = 0;
    for (int request = 1, left = 0; left == 0; ++request) {
        weft::run({.workers = 1}, [&] {
            in_the_thread(request);
            try {
                call();
            } catch (std::bad_alloc const&) {
                ++refusals;
            }
            left = in_the_thread(0);
        });
        look();
    }
    CHECK(refusals > 0);
}

void fill(weft::path const& directory, int files) {
    std::filesystem::path const where = directory.as_posix();
    std::filesystem::create_directory(where / "a directory with a long name");
    for (int i = 0; i < files; ++i)
        std::ofstream(where / ("file " + std::to_string(i))); // short: to remove it takes no memory
}

enum class outcome { answered, refused, otherwise, all_tried };

outcome call_a_worker(int request) {
    auto how = outcome::otherwise;
    weft::run({.workers = 1}, [&] {
        weft::cancel_scope().cancel(); // the first one of a process makes what they all need
        requests_until_failure = request;
        try {
            if (weft::to_process::run_sync(weft::test::square, 3) == 9) how = outcome::answered;
        } catch (std::bad_alloc const&) {
            how = outcome::refused;
        } catch (std::exception const& other) {
            std::printf("request %d: %s\n", request, other.what());
        }
        if (std::exchange(requests_until_failure, 0) != 0) how = outcome::all_tried;
    });
    return how;
}

// Each in a process of its own: much is asked for once in a process only.
weft::test::child_program const refused_calls("calls in worker processes without memory", [] {
    int counts[4] = {};
    for (int request = 1; counts[int(outcome::all_tried)] == 0; ++request) {
        pid_t const child = ::fork(); // no threads yet
        if (child == 0) {
            ::alarm(20); // nobody else ends it, and it keeps the pipe that is read
            auto const how = call_a_worker(request);
            std::fflush(stdout);
            ::_exit(int(how));
        }
        int status = -1;
        ::waitpid(child, &status, 0);
        ++counts[WIFEXITED(status) ? WEXITSTATUS(status) : int(outcome::otherwise)];
    }
    if (counts[int(outcome::refused)] > 0 && counts[int(outcome::otherwise)] == 0)
        std::puts("refused as std::bad_alloc, or answered");
});

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

TEST_CASE("P4: a call in a worker process that has no memory throws that itself, not in a group") {
    auto const end = weft::test::run_child("calls in worker processes without memory");
    INFO(end.output);
    CHECK(end.says("refused as std::bad_alloc, or answered"));
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

TEST_CASE("NX10: a temporary directory whose thread has no memory is removed by its destructor") {
    scratch const place;
    refuse_the_thread(
        [&] {
            weft::temporary_directory directory({.directory = place / ""});
            fill(directory.name(), 3);
            directory.close();
        },
        [&] { CHECK(std::filesystem::is_empty(place.where())); });
}

TEST_CASE("NX10: a temporary directory that there is no memory to remove stays, and the process goes on") {
    scratch const place;
    bool all_gone = false; // when it was refused last
    int stayed = 0;
    for (int request = 1, left = 0; left == 0; ++request) {
        std::filesystem::path where;
        weft::run({.workers = 1}, [&] {
            weft::to_thread::run_sync([] {}); // there is a thread
            {
                weft::temporary_directory directory({.directory = place / ""});
                fill(directory.name(), 100); // more than a destructor removes by itself
                where = directory.name().as_posix();
                requests_until_failure = request;
            }
            left = std::exchange(requests_until_failure, 0);
        });
        bool const gone = std::filesystem::remove_all(where) == 0;
        if (left != 0) CHECK(gone);
        if (left == 0) stayed += !gone;
        if (left == 0) all_gone = gone;
    }
    CHECK(stayed > 0);
    CHECK(all_gone); // without the thread
}

TEST_CASE("a temporary directory is moved without memory") {
    scratch const place;
    weft::run({.workers = 1}, [&] {
        weft::temporary_directory first({.prefix = std::string(60, 'n'), .directory = place / ""});
        requests_until_failure = 1;
        weft::temporary_directory second(std::move(first));
        CHECK(std::exchange(requests_until_failure, 0) == 1);
        CHECK(std::filesystem::exists(second.name().as_posix()));
    });
}

TEST_CASE("AF3: what was read of a pipe when memory ran out is there for the next call") {
    std::string const text(400'000, 'x'); // several times what is read at once, without the thread
    int refusals = 0;
    for (int request = -1, left = -1; left == -1; --request) {
        weft::run({.workers = 1}, [&] {
            int ends[2];
            check(::pipe2(ends, O_CLOEXEC) == 0 && ::fcntl(ends[1], F_SETPIPE_SZ, 1 << 19) > 0, "a pipe");
            weft::file in = weft::wrap_file(ends[0]);
            weft::file out = weft::wrap_file(ends[1]);
            out.write(text);
            out.close();
            in_the_thread(request);
            std::string read;
            try {
                read = in.read();
            } catch (std::bad_alloc const&) {
                ++refusals;
            }
            left = in_the_thread(0);
            read += in.read();
            bool const whole = read == text;
            CHECK(whole);
        });
    }
    CHECK(refusals > 1);
}

TEST_CASE("NX10: what was just made does not stay where there is no memory to give it") {
    scratch const place;
    auto const look = [&] { CHECK(std::filesystem::is_empty(place.where())); };
    std::string const long_name(60, 'n'); // each copy has to ask for memory
    weft::temporary_options const how{.prefix = long_name, .directory = place / ""};
    refuse_the_thread([&] { std::filesystem::remove(weft::mkdtemp(how).as_posix()); }, look);
    refuse_the_thread([&] { std::filesystem::remove(weft::mkstemp(how).name.as_posix()); }, look);
    refuse_the_thread(
        [&] { weft::named_temporary_file({.prefix = long_name, .directory = place / ""}); }, look);
}

TEST_SUITE_END();
