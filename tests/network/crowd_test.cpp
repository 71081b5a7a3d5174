#include "faults.hpp"
#include "support/child_process.hpp"
#include "support/open_descriptors.hpp"

#include <weft/io/error.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/run.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/streams/error.hpp>
#include <weft/streams/listener.hpp>
#include <weft/streams/tcp.hpp>
#include <weft/sync/event.hpp>
#include <weft/sync/latch.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <system_error>

#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

TEST_SUITE_BEGIN("network.crowd");

namespace {

using namespace std::chrono_literals;

constexpr int crowd_size = 10'000; // a process for each half
constexpr int limit = 1'024;

void set_descriptor_limit(::rlim_t count) {
    ::rlimit all{};
    ::getrlimit(RLIMIT_NOFILE, &all);
    all.rlim_cur = count;
    ::setrlimit(RLIMIT_NOFILE, &all);
}

[[maybe_unused]] bool may_have_descriptors(::rlim_t count) {
    ::rlimit all{};
    ::getrlimit(RLIMIT_NOFILE, &all);
    return all.rlim_max >= count;
}

void close_with_reset(weft::socket_stream& stream) { // no port waits for a minute
    ::linger const at_once{1, 0};
    ::setsockopt(stream.extra(weft::socket_attribute::raw_socket), SOL_SOCKET, SO_LINGER, &at_once,
                 sizeof at_once);
    stream.close();
}

// Connects and is answered; where the server's queue was full, at a later attempt.
void be_one_of_many(std::uint16_t port) {
    for (;;) {
        try {
            auto stream = weft::connect_tcp("127.0.0.1", port);
            stream.send("x");
            if (stream.receive() != "x") throw std::runtime_error("another answer");
            return close_with_reset(stream);
        } catch (weft::broken_resource_error const&) {
        } catch (weft::end_of_stream const&) {
        }
    }
}

int be_a_crowd(std::uint16_t port) {
    set_descriptor_limit(crowd_size + 100);
    std::atomic<int> answered = 0;
    weft::run({.workers = 1}, [&] {
        weft::with_task_group([&](weft::task_group& group) {
            for (int each = 0; each < crowd_size; ++each)
                group.start_soon([&] { be_one_of_many(port), ++answered; });
        });
    });
    return answered == crowd_size ? 0 : 1;
}

weft::unique_fd listen_before_the_run(std::uint16_t& port) {
    weft::unique_fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ::sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ::socklen_t length = sizeof at;
    auto* const address = reinterpret_cast<::sockaddr*>(&at);
    if (::bind(fd.get(), address, length) != 0 || ::listen(fd.get(), 65536) != 0 ||
        ::getsockname(fd.get(), address, &length) != 0)
        std::printf("cannot listen\n");
    port = ntohs(at.sin_port);
    return fd;
}

void echo(weft::socket_stream stream) {
    try {
        for (weft::bytes const& chunk : stream)
            stream.send(chunk);
    } catch (weft::broken_resource_error const&) { // the way they leave
    }
}

weft::test::child_program const server("20,000 clients", [] {
    std::uint16_t port = 0;
    weft::unique_fd listening = listen_before_the_run(port);
    ::pid_t crowds[2];
    for (::pid_t& each : crowds) {
        each = ::fork(); // no threads yet
        if (each == 0) ::_exit(be_a_crowd(port));
    }
    set_descriptor_limit(limit);
    int failed = 0;
    std::ptrdiff_t left = 0;
    weft::run([&] {
        auto listener = weft::socket_listener<weft::socket_stream>::from_socket(listening);
        weft::with_task_group([&](weft::task_group& group) {
            std::ptrdiff_t const before = weft::test::open_descriptors(); // the first clients are waiting already
            auto serving = group.create_task([&] { weft::serve(listener, echo, {.drain = 10s}); });
            for (::pid_t const each : crowds) {
                int status = 0;
                while (::waitpid(each, &status, WNOHANG) == 0)
                    weft::sleep(10ms);
                failed += status != 0;
            }
            for (left = 1; left > 0; weft::sleep(1ms)) // handlers hear of the last resets
                left = weft::test::open_descriptors() - before;
            serving.cancel();
        });
    });
    std::printf("%d crowds failed, %td descriptors are left\n", failed, left);
});

weft::test::child_program const client("20,000 connections", [] {
    std::uint16_t port = 0;
    weft::unique_fd const listening =
        listen_before_the_run(port); // nobody accepts: no number is used
    set_descriptor_limit(limit);
    int connected = 0, without_descriptor = 0;
    weft::run({.workers = 1}, [&] {
        constexpr int all = 20'000;
        weft::latch tried(all);
        weft::event enough;
        weft::with_task_group([&](weft::task_group& group) {
            for (int each = 0; each < all; ++each)
                group.start_soon([&] {
                    std::optional<weft::socket_stream> stream;
                    try {
                        stream.emplace(weft::connect_tcp("127.0.0.1", port));
                        ++connected;
                    } catch (weft::connection_failed const& failure) {
                        without_descriptor += failure.code() == std::errc::too_many_files_open;
                    }
                    tried.count_down();
                    if (stream) enough.wait(), close_with_reset(*stream);
                });
            tried.wait();
            enough.set();
        });
        weft::connect_tcp("127.0.0.1", port); // and now there is room again
    });
    std::printf("%s, %d tried\n", connected > limit / 2 ? "many connected" : "few connected",
                connected + without_descriptor);
});

} // namespace

#if !defined(__SANITIZE_ADDRESS__) &&                                                              \
    !defined(__SANITIZE_THREAD__) // they need descriptors, and time

TEST_CASE("X12: 20,000 clients at once are served with a limit of 1,024 descriptors") {
    if (!may_have_descriptors(crowd_size + 100)) {
        MESSAGE("no: so many descriptors the clients may not have");
        CHECK(std::getenv("CI") == nullptr);
        return;
    }
    auto const end = weft::test::run_child("20,000 clients");
    INFO(end.output);
    CHECK(end.exit_code == 0);
    CHECK(end.says("0 crowds failed, 0 descriptors are left"));
    MESSAGE("CPU seconds: " << end.cpu_seconds);
}

TEST_CASE("KC5: of 20,000 connections with a limit of 1,024 each that fails says why") {
    auto const end = weft::test::run_child("20,000 connections");
    INFO(end.output);
    CHECK(end.exit_code == 0);
    CHECK(end.says("many connected, 20000 tried"));
}

#endif

TEST_SUITE_END();
