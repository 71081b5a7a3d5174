#include <weft/streams/process.hpp>

#include "processes.hpp"
#include "sockets.hpp"
#include "support/forked.hpp"

#include <weft/streams/memory.hpp>
#include <weft/streams/udp.hpp>
#include <weft/streams/unix_socket.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <string>
#include <utility>

TEST_SUITE_BEGIN("streams.fork");

using weft::test::check;
using weft::test::failures_in_fork;
using weft::test::is_refused;

TEST_CASE("in a child of fork() sockets and memory streams are refused, and do not hang") {
    weft::test::run_with_sockets([] {
        auto listener = weft::test::listen();
        auto& accepting =
            dynamic_cast<weft::socket_listener<weft::socket_stream>&>(*listener.listeners().front());
        auto [here, there] = weft::test::connect_pair();
        auto udp = weft::create_udp_socket({.local_host = "127.0.0.1"});
        auto [to, from] = weft::create_memory_object_stream<int>();
        int const failures = failures_in_fork([&] {
            std::array<std::byte, 10> room;
            return is_refused([&] { here.receive_some(room); }) + is_refused([&] { here.send("text"); }) +
                   is_refused([&] { here.send_eof(); }) + is_refused([&] { accepting.accept(); }) +
                   is_refused([&] { weft::test::connect_to(listener); }) +
                   is_refused([] { weft::test::listen(); }) +
                   is_refused([] { weft::create_udp_socket({.local_host = "127.0.0.1"}); }) +
                   is_refused([&] { udp.receive(); }) +
                   is_refused([] { weft::connect_unix("/tmp/nobody is here"); }) +
                   is_refused([&] { to.send(1); }) + is_refused([&] { from.receive(); });
        });
        check(failures == 0, std::to_string(failures) + " calls were not refused");
        here.send("text"); // here all is as before
        check(there.receive() == "text", "it came");
    });
}

TEST_CASE("SP15: in a child of fork() processes are refused, and do not hang; the parent's go on") {
    weft::test::run_with_processes([] {
        auto process = weft::open_process({"cat"});
        int const failures = failures_in_fork([&] {
            int failed = is_refused([] { weft::run_process("true"); }) +
                         is_refused([] { weft::open_process("true"); }) +
                         is_refused([&] { process.wait(); }) +
                         is_refused([&] { process.stdin_stream()->send("text"); });
            { auto const gone = std::move(process); }
            return failed;
        });
        check(failures == 0, std::to_string(failures) + " calls were not refused");
        process.stdin_stream()->send("text");
        process.stdin_stream()->close();
        check(process.stdout_stream()->receive() == "text" && process.wait() == 0, "here all is as before");
    });
}

TEST_SUITE_END();
