#include <weft/streams/conformance.hpp>

#include "direction_guard.hpp"
#include "sockets.hpp"
#include "support/run_test.hpp"

#include <weft/streams/buffered.hpp>
#include <weft/streams/memory.hpp>
#include <weft/streams/memory_network.hpp>
#include <weft/streams/pipe.hpp>
#include <weft/streams/stapled.hpp>

#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <utility>

TEST_SUITE_BEGIN("streams.conformance");

namespace {

using weft::byte_stream_ends;
using weft::test::run_test;

template <class T, class Make> void check_objects(Make make, std::vector<T> items) {
    run_test([&] { weft::check_object_stream<T>([&] { return make(); }, items); });
}

// Two pipes of objects make two byte streams.
byte_stream_ends stapled_ends(double size) {
    auto there = weft::create_memory_object_stream<weft::bytes>(size);
    auto back = weft::create_memory_object_stream<weft::bytes>(size);
    return {weft::stapled_byte_stream(std::move(there.send), std::move(back.receive)),
            weft::stapled_byte_stream(std::move(back.send), std::move(there.receive))};
}

// Two pipes of the kernel do. Nothing breaks them both ways: without a writer a pipe is at its end.
byte_stream_ends piped_ends() {
    auto there = weft::create_pipe();
    auto back = weft::create_pipe();
    return {weft::stapled_byte_stream(std::move(there.send), std::move(back.receive)),
            weft::stapled_byte_stream(std::move(back.send), std::move(there.receive))};
}

} // namespace

TEST_CASE("X1-X6, R2-R4: memory object streams conform, with and without a buffer") {
    for (double const size : {0., 3., 100.})
        check_objects<std::string>(
            [size] {
                auto pipe = weft::create_memory_object_stream<std::string>(size);
                return weft::object_stream_ends<std::string>{
                    std::make_unique<weft::memory_object_send_stream<std::string>>(
                        std::move(pipe.send)),
                    std::make_unique<weft::memory_object_receive_stream<std::string>>(
                        std::move(pipe.receive))};
            },
            {"one", "", "three"});
}

TEST_CASE("X1-X6, R2-R4: stapled object streams conform") {
    check_objects<int>(
        [] {
            auto pipe = weft::create_memory_object_stream<int>(0);
            auto other = weft::create_memory_object_stream<int>(0);
            using both = weft::stapled_object_stream<int>;
            return weft::object_stream_ends<int>{
                std::make_unique<both>(std::move(pipe.send), std::move(other.receive)),
                std::make_unique<both>(std::move(other.send), std::move(pipe.receive))};
        },
        {1, 2, 3});
}

TEST_CASE("X1-X6, R2-R4: sockets conform") {
    weft::test::run_with_sockets([] {
        weft::check_byte_stream([] {
            auto pair = weft::test::connect_pair();
            auto there = std::make_unique<weft::socket_stream>(std::move(pair.there));
            auto const reset = [&leaving = *there] { weft::test::close_with_reset(leaving); };
            return byte_stream_ends{std::move(pair.here), std::move(there), reset};
        });
    });
}

TEST_CASE("X1-X6, R2-R4: pipes conform") {
    weft::test::run_with_sockets([] { weft::check_byte_stream(piped_ends); });
}

TEST_CASE("X1-X6, R2-R4: stapled byte streams conform, over objects without a buffer") {
    run_test([] {
        weft::check_byte_stream([] { return stapled_ends(0); }, {.one_task_a_direction = false});
    });
}

TEST_CASE("X1-X6, R2-R4: stapled byte streams conform, over objects with a buffer") {
    run_test([] {
        weft::check_byte_stream([] { return stapled_ends(1000); },
                                {.one_task_a_direction = false, .send_waits = false});
    });
}

TEST_CASE("X8: one task a direction, told before anything else, whichever way a call ends") {
    run_test([] {
        weft::memory_network network;
        auto [here, there] = network.make_pair();
        weft::test::check_direction_guard(here, there);
        auto [inner, other] = network.make_pair();
        weft::buffered_byte_stream buffered(std::move(inner));
        weft::test::check_direction_guard(buffered, other);
    });
    weft::test::run_with_sockets([] {
        auto sockets = weft::test::connect_pair();
        weft::test::check_direction_guard(sockets.here, sockets.there);
        byte_stream_ends pipes = piped_ends();
        weft::test::check_direction_guard(pipes.here, pipes.there);
    });
}
