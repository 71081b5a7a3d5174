// With AddressSanitizer gcc 12 takes a virtual base for an array that is too short.
#if defined(__SANITIZE_ADDRESS__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Warray-bounds"
#endif

#include <weft/streams/conformance.hpp>

#include "support/run_test.hpp"

#include <weft/streams/buffered.hpp>
#include <weft/streams/memory_network.hpp>
#include <weft/streams/socket.hpp>
#include <weft/streams/stapled.hpp>
#include <weft/streams/text.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <memory>
#include <utility>

TEST_SUITE_BEGIN("streams.conformance_memory");

namespace {

using namespace std::chrono_literals;
using weft::byte_stream_ends;
using weft::test::run_test;

byte_stream_ends ends_in(weft::memory_network& network) {
    auto [here, there] = network.make_pair();
    auto breaking = std::make_unique<weft::memory_network_stream>(std::move(here));
    auto const break_here = [&broken = *breaking] { broken.reset(); };
    return {std::move(breaking), std::move(there), break_here};
}

template <class Wrapper> void check_tells_port(Wrapper const& wrapper, std::uint16_t port) {
    weft::test::check(wrapper.extra(weft::socket_attribute::local_port) == port,
                      "the port of the stream that is wrapped");
}

} // namespace

TEST_CASE("X1-X6, R2-R4: the network in memory conforms") {
    run_test([] {
        weft::memory_network network;
        weft::check_byte_stream([&] { return ends_in(network); });
    });
}

TEST_CASE("X1-X6, R2-R4: the network in memory conforms, with delays and in pieces") {
    weft::test::explore(4, [] {
        weft::memory_network network({.seed = 7, .most_delay = 3ms, .largest_piece = 50'000});
        weft::check_byte_stream([&] { return ends_in(network); });
    });
}

TEST_CASE("X1-X6, R2-R4: buffered byte streams conform") {
    run_test([] {
        weft::memory_network network;
        weft::check_byte_stream([&] {
            auto [here, there, break_here] = ends_in(network);
            return byte_stream_ends{weft::buffered_byte_stream(std::move(here)),
                                    weft::buffered_byte_stream(std::move(there)), break_here};
        });
    });
}

TEST_CASE("X1-X6, R2-R4: holders of holders of streams conform") {
    run_test([] {
        weft::memory_network network;
        weft::check_byte_stream([&] {
            auto [here, there, break_here] = ends_in(network);
            return byte_stream_ends{std::make_unique<weft::any_byte_stream>(std::move(here)),
                                    std::make_unique<weft::any_byte_stream>(std::move(there)),
                                    break_here};
        });
    });
}

TEST_CASE("X7: whatever wraps a stream has its attributes") {
    run_test([] {
        weft::memory_network network;
        auto [stream, other] = network.make_pair();
        std::uint16_t const port = stream.extra(weft::socket_attribute::local_port);
        weft::test::check(port != other.extra(weft::socket_attribute::local_port), "one of its own");
        check_tells_port(weft::any_byte_stream(stream), port);
        check_tells_port(weft::any_byte_receive_stream(stream), port);
        check_tells_port(weft::any_byte_send_stream(stream), port);
        check_tells_port(weft::buffered_byte_stream(stream), port);
        check_tells_port(weft::buffered_byte_receive_stream(stream), port);
        check_tells_port(weft::stapled_byte_stream(stream, stream), port);
        check_tells_port(weft::text_stream(stream), port);
        check_tells_port(weft::text_receive_stream(stream), port);
        check_tells_port(weft::text_send_stream(stream), port);
        weft::close_forcefully(stream);
    });
}
