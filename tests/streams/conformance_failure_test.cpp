// With AddressSanitizer gcc 12 takes a virtual base for an array that is too short.
#if defined(__SANITIZE_ADDRESS__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Warray-bounds"
#endif

#include <weft/streams/conformance.hpp>

#include "support/run_test.hpp"

#include <weft/runtime/lowlevel.hpp>
#include <weft/streams/memory.hpp>
#include <weft/streams/memory_network.hpp>
#include <weft/streams/stapled.hpp>
#include <weft/sync/resource_guard.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

TEST_SUITE_BEGIN("streams.conformance_failure");

namespace {

using namespace std::chrono_literals;
using weft::byte_stream_ends;
using weft::bytes;
using weft::bytes_view;
using weft::test::run_sim;
using inner = weft::memory_network_stream;
using parts_view = std::span<bytes_view const>;

// What a stream does wrong; what is not given it does well.
struct byte_faults {
    std::function<std::size_t(inner&, weft::buffer)> receive_some{};
    std::function<bytes(inner&, std::size_t)> receive{};
    std::function<void(inner&, bytes_view)> send{};
    std::function<void(inner&, parts_view)> gather{};
    std::function<void(inner&)> send_eof{};
    std::function<void(inner&)> close{};
};

class flawed_stream final : public weft::byte_stream {
public:
    flawed_stream(std::unique_ptr<inner> of, byte_faults faults)
        : of_(std::move(of)), faults_(std::move(faults)) {}

    std::size_t receive_some(weft::buffer target) override {
        return faults_.receive_some ? faults_.receive_some(*of_, target)
                                    : of_->receive_some(target);
    }
    bytes receive(std::size_t at_most) override {
        return faults_.receive ? faults_.receive(*of_, at_most) : byte_stream::receive(at_most);
    }
    void send(bytes_view data) override {
        faults_.send ? faults_.send(*of_, data) : of_->send(data);
    }
    void send(parts_view parts) override {
        faults_.gather ? faults_.gather(*of_, parts) : byte_stream::send(parts);
    }
    void send_eof() override { faults_.send_eof ? faults_.send_eof(*of_) : of_->send_eof(); }
    void close() override { faults_.close ? faults_.close(*of_) : of_->close(); }

private:
    std::unique_ptr<inner> of_;
    byte_faults faults_;
};

void shielded(std::function<void()> const& call) {
    weft::cancel_scope({.shield = true}).run(call);
}

// What the suite says of one end that is flawed.
std::string complaint(byte_faults const& faults) {
    std::string said;
    run_sim(0, [&] {
        weft::memory_network network;
        auto const make = [&] {
            auto [here, there] = network.make_pair();
            auto flawed = std::make_unique<inner>(std::move(here));
            inner& breaking = *flawed;
            return byte_stream_ends{flawed_stream(std::move(flawed), faults), std::move(there),
                                    [&breaking] { breaking.reset(); }};
        };
        try {
            weft::check_byte_stream(make);
        } catch (weft::conformance_failure const& failure) {
            said = failure.what();
        }
    });
    return said;
}

struct byte_case {
    char const* fault;
    char const* promise;
    byte_faults faults;
};

void check_found(std::vector<byte_case> const& cases) {
    for (byte_case const& each : cases) {
        std::string const said = complaint(each.faults);
        CHECK_MESSAGE(said.find(each.promise) != std::string::npos,
                      std::string(each.fault), ": ", said);
    }
}

// Cancelled by then, it would take nothing: in virtual time this is no waiting.
std::size_t take_what_is_there(inner& of, weft::buffer target) {
    std::size_t count = 0;
    weft::move_on_after(1ms, [&] { count = of.receive_some(target); });
    return count;
}

} // namespace

TEST_CASE("a byte stream without flaws passes") { CHECK(complaint({}) == ""); }

TEST_CASE("X2, X3: octets that are doubled, lost, out of order or too many are found") {
    check_found({
        {"doubled", "in order",
         {.send =
              [](inner& of, bytes_view data) {
                  of.send(data);
                  of.send(data);
              }}},
        {"the last octet lost", "much arrives, also in both directions at once; it was not over",
         {.send = [](inner& of,
                     bytes_view data) { of.send(data.subview(0, data.size() - (data.size() > 20))); }}},
        {"more than asked for", "as many octets as were asked for",
         {.receive =
              [](inner& of, std::size_t at_most) {
                  return of.receive(at_most == 0 || at_most > 1'000'000 ? at_most : at_most + 1);
              }}},
        {"parts after the third", "many parts",
         {.gather =
              [](inner& of, parts_view parts) {
                  for (bytes_view const part : parts.first(std::min<std::size_t>(parts.size(), 3)))
                      of.send(part);
              }}},
        {"many parts backwards", "all parts arrive",
         {.gather =
              [](inner& of, parts_view parts) {
                  std::vector<bytes_view> all(parts.begin(), parts.end());
                  if (all.size() > 1000) std::ranges::reverse(all);
                  of.send(all);
              }}},
    });
}

TEST_CASE("X1, X4, R4: what is closed or broken and does not say so, each time, is found") {
    check_found({
        {"send_eof() after close()", "what is closed refuses send_eof()",
         {.send_eof =
              [](inner& of) {
                  try {
                      of.send_eof();
                  } catch (weft::closed_resource_error const&) {
                  }
              }}},
        {"broken when closed", "what is closed does not receive; it threw: ",
         {.receive_some =
              [](inner& of, weft::buffer target) {
                  try {
                      return of.receive_some(target);
                  } catch (weft::closed_resource_error const&) {
                      throw weft::broken_resource_error("broken");
                  }
              }}},
        {"an error of its own", "send_eof() ends one direction; it threw: not today",
         {.send_eof = [](inner&) { throw std::runtime_error("not today"); }}},
        {"broken as the end", "that it is broken is no end",
         {.receive_some =
              [](inner& of, weft::buffer target) -> std::size_t {
                  try {
                      return of.receive_some(target);
                  } catch (weft::broken_resource_error const&) {
                      return 0;
                  }
              }}},
        {"broken once", "what is broken does not send, each time",
         {.send =
              [told = false](inner& of, bytes_view data) mutable {
                  try {
                      of.send(data);
                  } catch (weft::broken_resource_error const&) {
                      if (!std::exchange(told, true)) throw;
                  }
              }}},
        {"a cancelled close() that does not close", "close_forcefully() wakes",
         {.close =
              [](inner& of) {
                  weft::lowlevel::checkpoint_if_cancelled();
                  of.close();
              }}},
    });
}

TEST_CASE("M1-M4: calls that cancellation does not reach, or that do something though cancelled, are found") {
    check_found({
        {"receive: takes data, then throws", "a receive() that is cancelled takes nothing",
         {.receive_some =
              [](inner& of, weft::buffer target) {
                  std::size_t const count = of.receive_some(target);
                  weft::lowlevel::checkpoint();
                  return count;
              }}},
        {"receive: drops what is there", "a receive() that is cancelled takes nothing",
         {.receive_some =
              [](inner& of, weft::buffer target) {
                  try {
                      weft::lowlevel::checkpoint_if_cancelled();
                  } catch (weft::cancelled const&) {
                      if (!target.empty())
                          shielded([&] { take_what_is_there(of, target.first(1)); });
                      throw;
                  }
                  return of.receive_some(target);
              }}},
        {"receive: is no cancellation point when there is data",
         "receive() is a cancellation point, also when there is data",
         {.receive_some =
              [](inner& of, weft::buffer target) {
                  std::size_t count = 0;
                  if (!target.empty()) shielded([&] { count = take_what_is_there(of, target); });
                  return count != 0 ? count : of.receive_some(target);
              }}},
        {"send: sends, then throws", "a send() that is cancelled before it begins sends nothing",
         {.send =
              [](inner& of, bytes_view data) {
                  shielded([&] { of.send(data); });
                  weft::lowlevel::checkpoint_if_cancelled();
              }}},
        {"send: waits on", "send() is cancelled while it waits; it was not over within a minute",
         {.send =
              [](inner& of, bytes_view data) {
                  weft::lowlevel::checkpoint_if_cancelled();
                  shielded([&] { of.send(data); });
              }}},
    });
}

TEST_CASE("C8: the suite is cancelled also while a stream waits that cannot be") {
    run_sim(0, [] {
        weft::memory_network network;
        auto const waits_on = [](inner& of, weft::buffer target) {
            std::size_t count = 0;
            weft::lowlevel::checkpoint_if_cancelled();
            shielded([&] { count = of.receive_some(target); });
            return count;
        };
        bool is_closed = false;
        auto const make = [&] {
            auto [here, there] = network.make_pair();
            byte_faults const faults{.receive_some = waits_on, .close = [&](inner& of) {
                                         is_closed = true;
                                         of.close();
                                     }};
            auto flawed = std::make_unique<inner>(std::move(here));
            return byte_stream_ends{flawed_stream(std::move(flawed), faults), std::move(there)};
        };
        weft::cancel_scope scope;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                weft::test::check(!scope.run([&] { weft::check_byte_stream(make); }), "cut short");
            });
            weft::sleep(30s);
            scope.cancel();
        });
        weft::test::check(is_closed, "else it would wait for ever");
    });
}

namespace {

using text = std::string;

// The same for objects.
struct object_faults {
    std::function<void(weft::memory_object_send_stream<text>&, text)> send{};
    std::function<text(weft::memory_object_receive_stream<text>&)> receive{};
    std::function<void(weft::memory_object_send_stream<text>&)> close{};
};

struct flawed_sender final : weft::object_send_stream<text> {
    flawed_sender(weft::memory_object_send_stream<text> of, object_faults faults)
        : of_(std::move(of)), faults_(std::move(faults)) {}
    void send(text item) override {
        faults_.send ? faults_.send(of_, std::move(item)) : of_.send(std::move(item));
    }
    void close() override { faults_.close ? faults_.close(of_) : of_.close(); }

    weft::memory_object_send_stream<text> of_;
    object_faults faults_;
};

struct flawed_receiver final : weft::object_receive_stream<text> {
    flawed_receiver(weft::memory_object_receive_stream<text> of, object_faults faults)
        : of_(std::move(of)), faults_(std::move(faults)) {}
    text receive() override { return faults_.receive ? faults_.receive(of_) : of_.receive(); }
    void close() override { of_.close(); }

    weft::memory_object_receive_stream<text> of_;
    object_faults faults_;
};

// Of two directions.
struct flawed_both final : weft::object_stream<text> {
    using inner = weft::stapled_object_stream<text>;
    using eof_fault = std::function<void(inner&)>;

    flawed_both(inner of, eof_fault fault) : of_(std::move(of)), fault_(std::move(fault)) {}
    void send(text item) override { of_.send(std::move(item)); }
    text receive() override { return of_.receive(); }
    void send_eof() override { fault_ ? fault_(of_) : of_.send_eof(); }
    void close() override { of_.close(); }

    inner of_;
    eof_fault fault_;
};

using text_ends = weft::object_stream_ends<text>;

std::string complaint(std::function<text_ends()> const& make, weft::object_stream_traits traits) {
    std::string said;
    run_sim(0, [&] {
        try {
            weft::check_object_stream<text>(make, {"one", "two", "three"}, traits);
        } catch (weft::conformance_failure const& failure) {
            said = failure.what();
        }
    });
    return said;
}

std::string complaint(object_faults const& faults, double size,
                      weft::object_stream_traits traits = {.one_task_a_direction = false}) {
    auto const make = [&] {
        auto pipe = weft::create_memory_object_stream<text>(size);
        return text_ends{std::make_unique<flawed_sender>(std::move(pipe.send), faults),
                         std::make_unique<flawed_receiver>(std::move(pipe.receive), faults)};
    };
    return complaint(make, traits);
}

std::string complaint(flawed_both::eof_fault const& fault) {
    auto const make = [&] {
        auto there = weft::create_memory_object_stream<text>(0);
        auto back = weft::create_memory_object_stream<text>(0);
        flawed_both::inner here(std::move(there.send), std::move(back.receive));
        flawed_both::inner other(std::move(back.send), std::move(there.receive));
        return text_ends{std::make_unique<flawed_both>(std::move(here), fault),
                         std::make_unique<flawed_both>(std::move(other), fault)};
    };
    return complaint(make, {});
}

bool says(std::string const& said, char const* promise) {
    return said.find(promise) != std::string::npos;
}

// One task at a time, the second one is turned away.
std::function<text(weft::memory_object_receive_stream<text>&)> guarded_receive() {
    auto const guard = std::make_shared<weft::resource_guard>("receiving from");
    return [guard](auto& from) {
        auto const inside = guard->enter();
        return from.receive();
    };
}

} // namespace

TEST_CASE("M1-M4, MS3, MS4: object streams with flaws are found, whatever their buffer") {
    struct {
        char const* fault;
        char const* promise;
        object_faults faults;
    } const cases[] = {
        {"send: delivers, then throws", "a send() that is cancelled sends nothing",
         {.send =
              [](auto& to, text item) {
                  to.send(std::move(item));
                  weft::lowlevel::checkpoint();
              }}},
        {"send: waits on", "send() is cancelled while it waits; it was not over within a minute",
         {.send =
              [](auto& to, text item) {
                  weft::lowlevel::checkpoint_if_cancelled();
                  shielded([&] { to.send(std::move(item)); });
              }}},
        {"receive: takes one, then throws", "a receive() that is cancelled takes nothing",
         {.receive =
              [](auto& from) {
                  text item = from.receive();
                  weft::lowlevel::checkpoint();
                  return item;
              }}},
        {"the end as broken", "there is the end, each time; it threw: broken",
         {.receive = [](auto& from) -> text {
             try {
                 return from.receive();
             } catch (weft::end_of_stream const&) {
                 throw weft::broken_resource_error("broken");
             }
         }}},
        {"a cancelled close() that does not close", "streams still work; it was not over",
         {.close =
              [](auto& to) {
                  weft::lowlevel::checkpoint_if_cancelled();
                  to.close();
              }}},
        {"close() does not wake a send()", "close() wakes whoever sends; it was not over",
         {.send =
              [](auto& to, text item) {
                  auto clone = to.clone();
                  clone.send(std::move(item));
              }}},
        {"a send() that waits is told that it is closed, not the other side",
         "close() of who receives breaks a send() that waits; it threw: ",
         {.send =
              [](auto& to, text item) {
                  weft::lowlevel::checkpoint_if_cancelled();
                  if (to.try_send(item)) return;
                  try {
                      to.send(std::move(item));
                  } catch (weft::broken_resource_error const&) {
                      throw weft::closed_resource_error();
                  }
              }}},
    };
    for (double const size : {0., 5.}) {
        CHECK(complaint(object_faults(), size) == "");
        for (auto const& each : cases) {
            std::string const said = complaint(each.faults, size);
            CHECK_MESSAGE(says(said, each.promise), std::string(each.fault), ": ", said);
        }
    }
}

TEST_CASE("X4: object streams of two directions whose send_eof() has flaws are found") {
    using inner = flawed_both::inner;
    struct {
        char const* fault;
        char const* promise;
        flawed_both::eof_fault send_eof;
    } const cases[] = {
        {"does nothing", "send_eof() ends one direction; it was not over", [](inner&) {}},
        {"ends both directions", "send_eof() ends one direction; it threw",
         [](inner& of) { of.close(); }},
        {"is not idempotent", "send_eof() ends one direction; it threw: ",
         [](inner& of) {
             of.send_eof();
             of.send("");
         }},
        {"works on what is closed", "what is closed refuses send_eof()",
         [](inner& of) {
             try {
                 of.send_eof();
             } catch (weft::closed_resource_error const&) {
             }
         }},
    };
    CHECK(complaint(flawed_both::eof_fault()) == "");
    for (auto const& each : cases) {
        std::string const said = complaint(each.send_eof);
        CHECK_MESSAGE(says(said, each.promise), std::string(each.fault), ": ", said);
    }
}

TEST_CASE("X6: whether one task or many use an object stream at a time is found, if it is said otherwise") {
    CHECK(says(complaint({.receive = guarded_receive()}, 0), "any number of tasks send and receive"));
    weft::object_stream_traits const one{.one_task_a_direction = true};
    CHECK(says(complaint(object_faults(), 0, one), "a second receiver is turned away; it was not over"));
    CHECK(says(complaint({.receive = guarded_receive()}, 0, one), "a second sender is turned away"));
    CHECK(complaint({.receive = guarded_receive()}, 0, {}) == ""); // nothing is said
}
