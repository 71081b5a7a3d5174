#include <weft/streams/stapled.hpp>

#include "support/run_test.hpp"

#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/streams/memory.hpp>
#include <weft/streams/memory_network.hpp>
#include <weft/sync/event.hpp>

#include <doctest/doctest.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

TEST_SUITE_BEGIN("streams.stapled");

namespace {

using weft::test::check;
using weft::test::check_throws;
using weft::test::run_test;

constexpr weft::typed_attribute<int> side{"side"};
constexpr weft::typed_attribute<int> sending{"sending"};

// Notes when it is closed, and may fail then.
class part final : public weft::byte_send_stream, public weft::byte_receive_stream {
public:
    part(std::vector<std::string>& log, std::string name, bool fails)
        : log_(log), name_(std::move(name)), fails_(fails) {}
    using byte_send_stream::send;
    void send(weft::bytes_view) override {}
    std::size_t receive_some(weft::buffer) override { return 0; }
    void close() override {
        log_.push_back(name_);
        if (fails_) throw std::runtime_error(name_);
    }
    weft::attribute_map extra_attributes() const override {
        if (name_ == "send") return {{side, [] { return 1; }}, {sending, [] { return 2; }}};
        return {{side, [] { return 3; }}};
    }

private:
    std::vector<std::string>& log_;
    std::string name_;
    bool fails_;
};

// Its close() ends when the object is gone: destroyed by who was woken.
template <class Interface> class closes_until_destroyed : public Interface {
public:
    closes_until_destroyed(weft::event& closing, weft::event& destroyed)
        : closing_(closing), destroyed_(destroyed) {}
    void close() override {
        weft::event& destroyed = destroyed_;
        closing_.set();
        destroyed.wait();
    }

private:
    weft::event& closing_;
    weft::event& destroyed_;
};

struct destroyed_sender final : closes_until_destroyed<weft::byte_send_stream> {
    using closes_until_destroyed::closes_until_destroyed;
    void send(weft::bytes_view) override {}
};

struct destroyed_object_sender final : closes_until_destroyed<weft::object_send_stream<int>> {
    using closes_until_destroyed::closes_until_destroyed;
    void send(int) override {}
};

template <class Interface> class noting : public Interface {
public:
    explicit noting(std::vector<std::string>& log) : log_(log) {}
    ~noting() override { log_.push_back("destroyed"); }
    void close() override { log_.push_back("closed"); }

private:
    std::vector<std::string>& log_;
};

struct noting_receiver final : noting<weft::byte_receive_stream> {
    using noting::noting;
    std::size_t receive_some(weft::buffer) override { return 0; }
};

struct noting_object_receiver final : noting<weft::object_receive_stream<int>> {
    using noting::noting;
    int receive() override { throw weft::end_of_stream(); }
};

template <class Both, class Sender, class Receiver> void destroy_between_the_closes() {
    weft::event closing;
    weft::event destroyed;
    std::vector<std::string> log;
    auto both = std::make_unique<Both>(std::make_unique<Sender>(closing, destroyed),
                                       std::make_unique<Receiver>(log));
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&, closed = both.get()] { closed->close(); });
        closing.wait();
        both.reset();
        destroyed.set();
    });
    check(log == std::vector<std::string>{"closed", "destroyed"}, "closed while it is there");
}

std::string failure_of_closing(weft::resource& stream) {
    try {
        stream.close();
    } catch (std::runtime_error const& failure) {
        return failure.what();
    }
    return "";
}

} // namespace

TEST_CASE(
    "ST1: close() closes the sending one and then the receiving one, also if the first fails") {
    run_test({.workers = {1}}, [] {
        for (bool const send_fails : {false, true})
            for (bool const receive_fails : {false, true}) {
                std::vector<std::string> log;
                part send(log, "send", send_fails);
                part receive(log, "receive", receive_fails);
                weft::stapled_byte_stream both{weft::any_byte_send_stream(send),
                                               weft::any_byte_receive_stream(receive)};
                std::string const failure = failure_of_closing(both);
                check(log == std::vector<std::string>{"send", "receive"}, "both, in order");
                check(failure == (send_fails      ? "send"
                                  : receive_fails ? "receive"
                                                  : ""),
                      "the first failure");
            }
    });
}

TEST_CASE("ST1, M15: who is woken by the first close() may destroy the stream") {
    run_test([] {
        destroy_between_the_closes<weft::stapled_byte_stream, destroyed_sender, noting_receiver>();
        destroy_between_the_closes<weft::stapled_object_stream<int>, destroyed_object_sender,
                                   noting_object_receiver>();
    });
}

TEST_CASE("ST1: a stream that was moved from is closed, and closes without harm") {
    run_test([] {
        std::vector<std::string> log;
        weft::stapled_byte_stream both{std::make_unique<part>(log, "send", false),
                                       std::make_unique<part>(log, "receive", false)};
        auto there = weft::create_memory_object_stream<int>(1);
        weft::stapled_object_stream<int> objects(there.send, there.receive);
        weft::stapled_byte_stream const moved = std::move(both);
        weft::stapled_object_stream<int> const objects_moved = std::move(objects);
        check_throws<weft::closed_resource_error>([&] { both.receive(); }, "octets");
        check_throws<weft::closed_resource_error>([&] { objects.receive(); }, "objects");
        check_throws<weft::closed_resource_error>([&] { both.send_eof(); }, "the end of octets");
        check_throws<weft::closed_resource_error>([&] { objects.send_eof(); }, "of objects");
        both.close();
        objects.close();
        check(log.empty(), "it is another's now");
        there.send.send_nowait(1);
    });
}

TEST_CASE("A4: streams that were moved from have no attributes, so a fallback counts") {
    run_test({.workers = {1}, .seeds = {}}, [] {
        static constexpr weft::typed_attribute<int> unknown{"unknown"};
        auto there = weft::create_memory_object_stream<weft::bytes>(1);
        weft::stapled_byte_stream octets(there.send, there.receive);
        weft::stapled_object_stream<weft::bytes> objects(there.send, there.receive);
        weft::stapled_byte_stream const octets_moved = std::move(octets);
        weft::stapled_object_stream<weft::bytes> const objects_moved = std::move(objects);
        check(octets.extra(unknown, 7) == 7, "octets");
        check(objects.extra(unknown, 7) == 7, "objects");
        check_throws<weft::typed_attribute_lookup_error>([&] { objects.extra(unknown); }, "no fallback");
    });
}

TEST_CASE("ST1, A5: of attributes that both have the receiving one's count") {
    std::vector<std::string> log;
    weft::stapled_byte_stream const both{
        weft::any_byte_send_stream(std::make_unique<part>(log, "send", false)),
        weft::any_byte_receive_stream(std::make_unique<part>(log, "receive", false))};
    CHECK(both.extra(side) == 3);
    CHECK(both.extra(sending) == 2);
}

TEST_CASE("ST1: send_eof() closes the sending one") {
    run_test([] {
        auto there = weft::create_memory_object_stream<int>(1);
        auto back = weft::create_memory_object_stream<int>(1);
        weft::stapled_object_stream<int> both(std::move(there.send), std::move(back.receive));
        both.send_eof();
        check_throws<weft::end_of_stream>([&] { there.receive.receive(); }, "the end");
        back.send.send(5);
        check(both.receive() == 5, "the other direction goes on");
    });
}

TEST_CASE("R4, X4: a stapled stream that is closed refuses send_eof(), and one moved onto another's place does not") {
    run_test([] {
        auto const make = [] {
            auto there = weft::create_memory_object_stream<weft::bytes>(1);
            auto back = weft::create_memory_object_stream<weft::bytes>(1);
            return std::pair(weft::stapled_byte_stream(std::move(there.send), std::move(back.receive)),
                             weft::stapled_object_stream<weft::bytes>(std::move(back.send),
                                                                      std::move(there.receive)));
        };
        auto [octets, objects] = make();
        octets.send_eof();
        octets.send_eof();
        octets.close();
        objects.close();
        check_throws<weft::closed_resource_error>([&] { octets.send_eof(); }, "the end of octets");
        check_throws<weft::closed_resource_error>([&] { objects.send_eof(); }, "of objects");
        std::tie(octets, objects) = make();
        octets.send_eof();
        objects.send_eof();
    });
}

TEST_CASE("ST2: send_nowait() is the sending stream's, if that has one") {
    run_test([] {
        using sender = weft::memory_object_send_stream<int>;
        using both = weft::stapled_object_stream<int>;
        auto there = weft::create_memory_object_stream<int>(1);
        auto back = weft::create_memory_object_stream<int>(1);
        auto const expect_sent = [&](both made) {
            both moved = std::move(made);
            moved.send_nowait(1);
            check_throws<weft::would_block>([&] { moved.send_nowait(2); }, "there is no room");
            check(there.receive.receive() == 1, "it was sent");
        };
        expect_sent(both(there.send.clone(), back.receive));
        expect_sent(both(std::make_unique<sender>(there.send.clone()), back.receive));
        expect_sent(both(there.send, back.receive));
        // Behind its interface it has none.
        std::unique_ptr<weft::object_send_stream<int>> hidden =
            std::make_unique<sender>(there.send.clone());
        both without(std::move(hidden), back.receive);
        check_throws<std::logic_error>([&] { without.send_nowait(3); }, "there is no such thing");
        check_throws<weft::would_block>([&] { there.receive.receive_nowait(); },
                                        "nothing was sent");
    });
}

TEST_CASE("ST3: several listeners as one, and listeners of listeners") {
    run_test([] {
        weft::memory_network network;
        using listeners = std::vector<std::unique_ptr<weft::listener<weft::memory_network_stream>>>;
        using network_listener = weft::memory_network_listener;
        listeners inner;
        inner.push_back(std::make_unique<network_listener>(network.listen(1)));
        inner.push_back(std::make_unique<network_listener>(network.listen(2)));
        listeners outer;
        outer.push_back(
            std::make_unique<weft::multi_listener<weft::memory_network_stream>>(std::move(inner)));
        outer.push_back(std::make_unique<network_listener>(network.listen(3)));
        weft::multi_listener<weft::memory_network_stream> all(std::move(outer));
        check(all.listeners().size() == 3, "taken apart");
        check(all.extra(weft::socket_attribute::local_port) == 3, "the last one's attributes");
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                all.serve([](weft::memory_network_stream stream) { stream.send("hello"); }, &group);
            });
            for (std::uint16_t port : {1, 2, 3})
                check(network.connect(port).receive() == "hello", "each one serves");
            group.cancel();
        });
        all.close();
        check_throws<weft::connection_failed>([&] { network.connect(2); }, "all are closed");
    });
}

TEST_CASE("ST3, R4: a multi_listener that was moved from is closed, and does not serve") {
    run_test([] {
        using several = weft::multi_listener<weft::memory_network_stream>;
        several empty({});
        several const moved(std::move(empty));
        auto const handler = [](weft::memory_network_stream) {};
        empty.close();
        check_throws<weft::exception_group>([&] { empty.serve(handler); }, "closed");
        weft::with_task_group([&](weft::task_group& group) {
            check_throws<weft::closed_resource_error>([&] { empty.serve(handler, &group); }, "too");
        });
    });
}

TEST_CASE("M15, ST3: a multi_listener may be destroyed when it is closed, although none of its tasks has begun") {
    run_test({.workers = {1}}, [] { // so that they have not
        weft::memory_network network;
        std::vector<std::unique_ptr<weft::listener<weft::memory_network_stream>>> listeners;
        for (int port : {1, 2})
            listeners.push_back(std::make_unique<weft::memory_network_listener>(network.listen(port)));
        auto all = std::make_unique<weft::multi_listener<weft::memory_network_stream>>(std::move(listeners));
        weft::with_task_group([&](weft::task_group& group) {
            bool serves = false;
            group.start_soon([&, &served = *all] {
                serves = true;
                check_throws<weft::exception_group>(
                    [&] { served.serve([](weft::memory_network_stream) {}, &group); }, "closed");
            });
            while (!serves)
                weft::lowlevel::checkpoint();
            all->close();
            all.reset();
        });
    });
}

TEST_CASE("ST4: without listeners serve() returns") {
    run_test([] {
        weft::multi_listener<weft::memory_network_stream> none({});
        none.serve([](weft::memory_network_stream) {});
    });
}
