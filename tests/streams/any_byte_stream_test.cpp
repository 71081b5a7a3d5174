// With AddressSanitizer gcc 12 takes a virtual base for an array that is too short.
#if defined(__SANITIZE_ADDRESS__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Warray-bounds"
#endif

#include <weft/streams/any_byte_stream.hpp>

#include "support/run_test.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/streams/memory.hpp>
#include <weft/streams/memory_network.hpp>
#include <weft/streams/stapled.hpp>
#include <weft/streams/text.hpp>

#include <doctest/doctest.h>

#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>

TEST_SUITE_BEGIN("streams.any_byte_stream");

namespace {

using weft::test::check;
using weft::test::check_throws;
using weft::test::run_test;

static_assert(!std::is_constructible_v<weft::any_byte_receive_stream, weft::text_receive_stream&>);
static_assert(!std::is_constructible_v<weft::any_byte_send_stream, weft::text_send_stream>);
static_assert(!std::is_constructible_v<weft::any_byte_stream, weft::text_stream>);
static_assert(!std::is_copy_constructible_v<weft::any_byte_stream>);
static_assert(std::is_move_constructible_v<weft::any_byte_stream>);

class loop final : public weft::byte_stream {
public:
    explicit loop(bool& alive) : alive_(&alive) { alive = true; }
    loop(loop&& other) noexcept : alive_(std::exchange(other.alive_, nullptr)) {}
    ~loop() override {
        if (alive_ != nullptr) *alive_ = false;
    }
    using byte_send_stream::send;
    std::size_t receive_some(weft::buffer) override { return 0; }
    void send(weft::bytes_view) override {}
    void send_eof() override {}
    void close() override { ++closed; }
    int closed = 0;

private:
    bool* alive_;
};

} // namespace

TEST_CASE("X9: an lvalue is borrowed: close() reaches it, destruction does not") {
    run_test({.workers = {1}}, [] {
        bool alive = false;
        loop stream(alive);
        { weft::any_byte_stream holder(stream); }
        check(alive && stream.closed == 0, "only borrowed");
        weft::any_byte_stream holder(stream);
        holder.close();
        check(alive && stream.closed == 1, "closed");
    });
}

TEST_CASE("X9: an rvalue and a unique_ptr are owned") {
    run_test({.workers = {1}}, [] {
        bool alive = false;
        {
            weft::any_byte_stream holder{loop(alive)};
            check(alive, "it moved in");
            weft::any_byte_stream moved(std::move(holder));
            check(alive, "it is not destroyed by moving");
            check_throws<weft::closed_resource_error>([&] { holder.receive(); }, "moved from");
            holder.close();
        }
        check(!alive, "destroyed with its holder");
        { weft::any_byte_receive_stream const holder(std::make_unique<loop>(alive)); }
        check(!alive, "destroyed with its holder");
        check_throws<std::invalid_argument>([] { weft::any_byte_stream{std::unique_ptr<loop>()}; },
                                            "nothing to hold");
    });
}

TEST_CASE("X9: an object stream of octets is a byte stream, and the other way round") {
    run_test({.workers = {1}}, [] {
        auto pipe = weft::create_memory_object_stream<weft::bytes>(5);
        weft::any_byte_receive_stream receiving(pipe.receive);
        weft::any_unreliable_byte_receive_stream chunks(receiving);
        pipe.send.send("shuttle");
        check(receiving.receive(4) == "shut" && chunks.receive() == "tle", "by length, by chunk");
        weft::memory_network network;
        auto [here, there] = network.make_pair();
        weft::any_unreliable_byte_stream both(here);
        both.send("chunk");
        check(there.receive() == "chunk", "sent");
        check(here.extra(weft::socket_attribute::local_port) ==
                  both.extra(weft::socket_attribute::local_port),
              "attributes pass");
    });
}

TEST_CASE("X6: of an object stream, too, one task receives octets at a time, and none are lost") {
    run_test([] {
        auto pipe = weft::create_memory_object_stream<weft::bytes>(5);
        weft::any_byte_receive_stream receiving(pipe.receive);
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { check(receiving.receive(1) == "a", "the first"); });
            weft::wait_all_tasks_blocked();
            check_throws<weft::busy_resource_error>([&] { receiving.receive(1); }, "the second");
            pipe.send.send("abc");
            pipe.send.send("xyz");
        });
        check(receiving.receive() == "bc" && receiving.receive() == "xyz", "all of it");
    });
}

TEST_CASE("M1: receiving the rest of an object is a cancellation point, takes nothing then, and lets others run") {
    run_test({.workers = {1}}, [] {
        auto pipe = weft::create_memory_object_stream<weft::bytes>(1);
        weft::any_byte_receive_stream receiving(pipe.receive);
        pipe.send.send("abc");
        check(receiving.receive(1) == "a", "the rest stays");
        check(!weft::move_on_at(weft::time_point::min(), [&] { receiving.receive(1); }), "cancelled");
        check(receiving.receive(2) == "bc", "nothing is lost");
        constexpr std::size_t many = 100'000; // calls; some hundred budgets
        pipe.send.send(weft::bytes(many, 'x'));
        bool had_a_turn = false;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { had_a_turn = true; });
            for (std::size_t count = 1; count != many && !had_a_turn; ++count)
                receiving.receive(1);
            check(had_a_turn, "the other one");
        });
    });
}

TEST_CASE("X3: where there are no octets no object is sent") {
    run_test({.workers = {1}}, [] {
        auto pipe = weft::create_memory_object_stream<weft::bytes>(5);
        weft::any_byte_send_stream sending(pipe.send);
        weft::text_send_stream text(pipe.send);
        weft::bytes_view const parts[] = {"", "one", "", ""};
        sending.send("");
        text.send("");
        sending.send(std::span<weft::bytes_view const>());
        sending.send(parts);
        check(pipe.receive.receive() == "one", "the octets");
        check(pipe.receive.statistics().current_buffer_used == 0, "and nothing else");
        check(!weft::move_on_at(weft::time_point::min(), [&] { sending.send(""); }),
              "a cancellation point all the same");
    });
}

TEST_CASE("R4, X3: to send no octets to objects is an error, too, once it is closed") {
    run_test({.workers = {1}}, [] {
        auto pipe = weft::create_memory_object_stream<weft::bytes>(1);
        weft::any_byte_send_stream sending(pipe.send);
        weft::any_byte_stream both(weft::stapled_object_stream<weft::bytes>(pipe.send, pipe.receive));
        auto const expect_closed = [](weft::byte_send_stream& stream) {
            stream.send("");
            stream.close();
            check_throws<weft::closed_resource_error>([&] { stream.send(""); }, "no octets");
            check_throws<weft::closed_resource_error>(
                [&] { stream.send(std::span<weft::bytes_view const>()); }, "no parts");
            check_throws<weft::closed_resource_error>([&] { stream.send("x"); }, "some");
        };
        expect_closed(sending);
        expect_closed(both);
    });
}
