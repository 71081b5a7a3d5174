#include <weft/streams/conformance.hpp>

#include "direction_guard.hpp"
#include "processes.hpp"
#include "sockets.hpp"
#include "support/run_test.hpp"

#include <weft/streams/buffered.hpp>
#include <weft/streams/memory.hpp>
#include <weft/streams/memory_network.hpp>
#include <weft/streams/pipe.hpp>
#include <weft/streams/process.hpp>
#include <weft/streams/stapled.hpp>
#include <weft/streams/text.hpp>

#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

TEST_SUITE_BEGIN("streams.conformance");

namespace {

using weft::byte_stream_ends;
using weft::test::run_test;

template <class T, class Make>
void check_objects(Make make, std::vector<T> items,
                   weft::object_stream_traits traits = {.one_task_a_direction = false}) {
    run_test([&] { weft::check_object_stream<T>([&] { return make(); }, items, traits); });
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

// Two networks do, where who receives has a buffer.
byte_stream_ends buffered_ends(weft::memory_network& network) {
    auto [send_here, receive_there] = network.make_pair();
    auto [send_there, receive_here] = network.make_pair();
    auto sending = std::make_unique<weft::memory_network_stream>(std::move(send_here));
    auto receiving = std::make_unique<weft::memory_network_stream>(std::move(receive_here));
    auto const break_here = [&to = *sending, &from = *receiving] {
        to.reset();
        from.reset();
    };
    return {weft::stapled_byte_stream(std::move(sending),
                                      weft::buffered_byte_receive_stream(std::move(receiving))),
            weft::stapled_byte_stream(std::move(send_there),
                                      weft::buffered_byte_receive_stream(std::move(receive_there))),
            break_here};
}

void close_all(std::vector<weft::process>& processes) {
    for (weft::process& each : processes)
        each.close();
    processes.clear();
}

// Two processes do that pass on what they read. Those of the ends before have come to their end.
byte_stream_ends ends_of(std::vector<weft::process>& cats) {
    close_all(cats);
    for (int process = 0; process < 2; ++process)
        cats.push_back(weft::open_process({"cat"}, {.stderr_ = weft::stdio::devnull}));
    return {weft::stapled_byte_stream(*cats[0].stdin_stream(), *cats[1].stdout_stream()),
            weft::stapled_byte_stream(*cats[1].stdin_stream(), *cats[0].stdout_stream())};
}

// Text streams are no object streams, as where a text begins gets lost on the way. Over objects it does not.
class texts_of_sender final : public weft::object_send_stream<std::string> {
public:
    explicit texts_of_sender(weft::text_send_stream to) : to_(std::move(to)) {}
    void send(std::string text) override { to_.send(text); }
    void close() override { to_.close(); }

private:
    weft::text_send_stream to_;
};

class texts_of_receiver final : public weft::object_receive_stream<std::string> {
public:
    explicit texts_of_receiver(weft::text_receive_stream from) : from_(std::move(from)) {}
    std::string receive() override { return from_.receive(); }
    void close() override { from_.close(); }

private:
    weft::text_receive_stream from_;
};

class texts_of_both final : public weft::object_stream<std::string> {
public:
    explicit texts_of_both(weft::text_stream of) : of_(std::move(of)) {}
    std::string receive() override { return of_.receive(); }
    void send(std::string text) override { of_.send(text); }
    void send_eof() override { of_.send_eof(); }
    void close() override { of_.close(); }

private:
    weft::text_stream of_;
};

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

TEST_CASE("X1-X6, R2-R4, TX3-TX5: text streams conform") {
    for (char const* const encoding : {"utf-8", "utf-16-le"})
        check_objects<std::string>(
            [encoding] {
                auto pipe = weft::create_memory_object_stream<weft::bytes>(0);
                return weft::object_stream_ends<std::string>{
                    std::make_unique<texts_of_sender>(
                        weft::text_send_stream(std::move(pipe.send), encoding)),
                    std::make_unique<texts_of_receiver>(
                        weft::text_receive_stream(std::move(pipe.receive), encoding))};
            },
            {"one", "zw\u00f6lf", "\u4e09"}, {.one_task_a_direction = true});
}

TEST_CASE("X1-X6, R2-R4, TX3-TX5: text streams of two directions conform") {
    check_objects<std::string>(
        [] {
            auto [here, there, break_here] = stapled_ends(0);
            return weft::object_stream_ends<std::string>{
                std::make_unique<texts_of_both>(weft::text_stream(std::move(here))),
                std::make_unique<texts_of_both>(weft::text_stream(std::move(there)))};
        },
        {"one", "two", "three"}, {.one_task_a_direction = true});
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

TEST_CASE("X1-X6, R2-R4: the pipes of processes conform") {
    weft::test::run_with_processes([] {
        std::vector<weft::process> cats;
        weft::check_byte_stream([&] { return ends_of(cats); });
        close_all(cats);
    });
}

TEST_CASE("X1-X6, R2-R4, BF1: buffered byte receive streams conform") {
    run_test({.workers = {1, 2}, .seeds = {0, 1}}, [] {
        weft::memory_network network;
        weft::check_byte_stream([&] { return buffered_ends(network); });
    });
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
