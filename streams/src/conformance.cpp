#include "conformance_checks.hpp"

#include <atomic>
#include <chrono>
#include <exception>

namespace weft {

namespace detail {

namespace {

// For a check: a transfer of 20 MB under sanitizers on a slow machine is far from it, and so are the
// delays of a network in memory.
constexpr std::chrono::minutes time_limit(1);

std::string refusal(std::string const& promise) {
    return "the stream does not keep this: " + promise;
}

// What a check threw, as a conformance_failure that says which check it was.
[[noreturn]] void refuse_for(std::exception_ptr const& failure, std::string const& promise) {
    try {
        std::rethrow_exception(failure);
    } catch (conformance_failure const&) {
        throw;
    } catch (exception_group const& several) {
        if (several.contains<conformance_failure>()) throw conformance_failure(several.what());
        refuse_stream(promise, several);
    } catch (std::exception const& other) {
        refuse_stream(promise, other);
    }
}

} // namespace

void refuse_stream(std::string const& promise) { throw conformance_failure(refusal(promise)); }

void refuse_stream(std::string const& promise, std::exception const& instead) {
    std::throw_with_nested(
        conformance_failure(refusal(promise) + "; it threw: " + instead.what()));
}

void expect_of_stream(bool kept, char const* promise) {
    if (!kept) refuse_stream(promise);
}

void expect_closed_or_broken(std::function<void()> const& call, char const* promise) {
    try {
        call();
    } catch (broken_resource_error const&) {
        return;
    } catch (closed_resource_error const&) {
        return;
    }
    refuse_stream(promise);
}

// What waits in a stream for ever may not be cancelled either, so the stream is closed under it, too.
void check_promise(std::string const& promise, std::function<void()> const& check,
                   std::function<void()> const& close_all) {
    std::atomic<bool> is_late = false;
    std::exception_ptr failure;
    cancel_scope watching;
    auto const close = [&] { cancel_scope({.shield = true}).run(close_all); };
    with_task_group([&](task_group& group) {
        group.start_soon([&] {
            watching.run([&] {
                try {
                    sleep(time_limit);
                    is_late = true;
                    group.cancel();
                } catch (cancelled const&) {
                    if (!watching.cancel_called()) close(); // by whoever runs the suite
                    throw;
                }
                close();
            });
        });
        try {
            check();
        } catch (std::exception const&) { // thrown below, by itself
            failure = std::current_exception();
        }
        watching.cancel();
    });
    if (is_late) refuse_stream(promise + "; it was not over within a minute");
    if (failure) refuse_for(failure, promise);
}

void close_at_last(resource& stream) {
    try {
        close_forcefully(stream);
    } catch (std::exception const&) { // what does not close either is of no interest any more
    }
}

namespace {

using byte_stream_check = void(byte_stream_ends&);
using maker = std::function<byte_stream_ends()>;

void check_ends(char const* promise, byte_stream_check& check, maker const& make) {
    byte_stream_ends ends = make();
    check_promise(
        promise, [&] { check(ends); },
        [&] {
            close_at_last(ends.here);
            close_at_last(ends.there);
        });
}

void check_one_end(maker const& make, byte_stream_traits traits) {
    check_ends("misuse is refused", check_misuse, make);
    check_ends("octets arrive in order", check_small, make);
    check_ends("much arrives, also in both directions at once", check_much, make);
    check_ends("many parts arrive as if they were one", check_gathered, make);
    check_ends("close() is the end for the other side", check_end_by_close, make);
    if (traits.half_close) {
        check_ends("send_eof() ends one direction", check_half_close, make);
        check_ends("what is closed refuses send_eof()", check_eof_of_closed, make);
    }
    check_ends("what is closed stays closed", check_closed, make);
    check_ends("close() wakes whoever receives", check_close_wakes, make);
    check_ends("close_forcefully() wakes whoever receives", check_close_forcefully_wakes, make);
    check_ends("sending to somebody who is gone breaks", check_peer_gone, make);
    check_ends("a call that is cancelled before it begins does nothing", check_cancelled_before,
               make);
    check_ends("receive() is cancelled while it waits", check_cancelled_receive, make);
    check_ends("a receive() that is cancelled takes nothing", check_cancelled_with_data, make);
    if (traits.one_task_a_direction)
        check_ends("a second receiver is turned away", check_one_receiver, make);
    if (!traits.send_waits) return;
    check_ends("send() is cancelled while it waits", check_cancelled_send, make);
    check_ends("close() wakes whoever sends", check_close_wakes_sender, make);
    if (traits.one_task_a_direction)
        check_ends("a second sender is turned away", check_one_sender, make);
}

} // namespace

} // namespace detail

void check_byte_stream(std::function<byte_stream_ends()> const& make, byte_stream_traits traits) {
    detail::check_one_end(make, traits);
    auto const swapped = [&make] {
        byte_stream_ends ends = make();
        return byte_stream_ends{std::move(ends.there), std::move(ends.here), {}};
    };
    detail::check_one_end(swapped, traits);
    detail::check_ends("what is broken stays broken", detail::check_broken, make);
    if (!traits.half_close)
        detail::check_ends("a stream without half-close refuses send_eof()",
                           detail::check_no_half_close, make);
}

} // namespace weft
