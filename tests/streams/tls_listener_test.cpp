#include <weft/streams/tls_listener.hpp>

#include "sockets.hpp"
#include "support/child_process.hpp"
#include "tls_pair.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/streams/connectable.hpp>
#include <weft/sync/event.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <exception>
#include <memory>
#include <string>

TEST_SUITE_BEGIN("streams.tls_listener");

namespace {

using namespace std::chrono_literals;
using namespace weft::test;
using weft::memory_network;
using weft::memory_network_stream;
using weft::tls_listener;
using weft::tls_stream;

void echo(tls_stream stream) {
    for (weft::bytes const& chunk : stream)
        stream.send(chunk);
    stream.close();
}

tls_stream connect(memory_network& network, weft::tls_context const& context) {
    return tls_stream::wrap(network.connect(443), {.hostname = "localhost", .context = context});
}

void check_echo(tls_stream stream) {
    stream.send("hello");
    check(stream.receive() == "hello", "the echo");
    stream.close();
}

} // namespace

TEST_CASE("TL15: those who shake hands are served, each in a task of its own") {
    run_test([] {
        memory_network network({.most_delay = 1ms, .largest_piece = 2000});
        tls_listener listener(network.listen(443), trusted_server());
        auto const context = trusting_client();
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { listener.serve(echo); });
            weft::with_task_group([&](weft::task_group& clients) {
                for (int number = 0; number < 5; ++number)
                    clients.start_soon([&] { check_echo(connect(network, context)); });
            });
            group.cancel();
        });
    });
}

namespace {

// How handshakes failed.
struct failures {
    std::atomic<int> timeouts = 0;
    std::atomic<int> errors = 0;
    std::atomic<int> broken = 0;
    std::atomic<int> others = 0;

    void count(std::exception_ptr const& failure) {
        try {
            std::rethrow_exception(failure);
        } catch (weft::timeout_error const&) {
            ++timeouts;
        } catch (weft::tls_error const&) {
            ++errors;
        } catch (weft::broken_resource_error const&) {
            ++broken;
        } catch (std::exception const&) {
            ++others;
        }
    }
};

} // namespace

TEST_CASE("TL15: bad clients do no harm: plain text, a reset") {
    run_test([] {
        memory_network network;
        tls_listener listener(network.listen(443), trusted_server());
        failures seen;
        weft::event has_met_the_reset; // no client hears of that
        listener.handle_handshake_error(
            [&](std::exception_ptr failure, weft::any_byte_stream& raw) {
                seen.count(failure);
                if (seen.broken != 0) has_met_the_reset.set();
                raw.close();
            });
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { listener.serve(echo, &group); });
            auto plain = network.connect(443);
            plain.send("GET / HTTP/1.0\r\n\r\n");
            network.connect(443).reset();
            check_echo(connect(network, trusting_client()));
            for (weft::bytes const& chunk : plain)
                check(chunk.starts_with("\x15"), "an alert");
            check_echo(connect(network, trusting_client()));
            has_met_the_reset.wait();
            group.cancel();
        });
        check(seen.errors == 1 && seen.broken == 1, "each in its own way");
        check(seen.timeouts == 0 && seen.others == 0, "and no other");
    });
}

// In virtual time: on a busy machine an honest client may need longer than that.
TEST_CASE("TL15: a client that says nothing is sent away when its time is up") {
    explore(4, [] {
        memory_network network;
        tls_listener listener(network.listen(443), trusted_server(), true, 50ms);
        failures seen;
        listener.handle_handshake_error(
            [&](std::exception_ptr failure, weft::any_byte_stream& raw) {
                seen.count(failure);
                raw.close();
            });
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { listener.serve(echo, &group); });
            auto silent = network.connect(443);
            check_echo(connect(network, trusting_client()));
            weft::time_point const before = weft::current_time();
            check_throws<weft::end_of_stream>([&] { silent.receive(); }, "it took too long");
            check(weft::current_time() - before <= 50ms, "but not longer than it may");
            check_echo(connect(network, trusting_client()));
            group.cancel();
        });
        check(seen.timeouts == 1, "one was too slow");
        check(seen.errors == 0 && seen.broken == 0 && seen.others == 0, "and that is all");
    });
}

TEST_CASE("TL15: what cannot even begin to shake hands is an error of that connection only") {
    run_test([] {
        memory_network network;
        weft::tls_context context = trusted_server();
        weft::tls_context const taken = std::move(context);
        tls_listener listener(network.listen(443), context); // which is nothing any more
        std::atomic<int> errors = 0;
        listener.handle_handshake_error(
            [&](std::exception_ptr failure, weft::any_byte_stream& raw) {
                check_throws<weft::tls_error>([&] { std::rethrow_exception(failure); }, "why");
                raw.send("no TLS here");
                raw.close();
                ++errors;
            });
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { listener.serve(echo); });
            for (int time = 0; time < 2; ++time)
                check(network.connect(443).receive() == "no TLS here", "told by the handler");
            group.cancel();
        });
        check(errors == 2, "the server went on");
    });
}

TEST_CASE("TL15: by default an error closes the connection, and the server goes on") {
    run_test({.workers = {2}, .seeds = {0}}, [] {
        memory_network network;
        tls_listener listener(network.listen(443), trusted_server());
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { listener.serve(echo); });
            auto plain = network.connect(443);
            plain.send("neither TLS nor anything");
            for (weft::bytes const& chunk : plain)
                check(chunk.starts_with("\x15"), "an alert");
            check_echo(connect(network, trusting_client()));
            group.cancel();
        });
    });
}

namespace {

child_program const failed_handshake("a TLS handshake that fails", [] {
    weft::run({.workers = 1}, [] {
        memory_network network;
        tls_listener listener(network.listen(443), trusted_server());
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { listener.serve(echo); });
            auto plain = network.connect(443);
            plain.send("neither TLS nor anything");
            weft::wait_all_tasks_blocked();
            group.cancel();
        });
    });
});

child_program const cancelled_handshake("a TLS handshake that is cancelled", [] {
    weft::run({.workers = 1}, [] {
        memory_network network;
        tls_listener listener(network.listen(443), trusted_server());
        weft::with_task_group([&](weft::task_group& group) {
            auto silent = network.connect(443);
            group.start_soon([&] { listener.serve(echo); });
            weft::wait_all_tasks_blocked();
            group.cancel();
        });
    });
});

} // namespace

TEST_CASE("TL15: by default an error is a line on standard error, a cancellation is none") {
    child_end const failed = run_child("a TLS handshake that fails");
    CAPTURE(failed.output);
    CHECK(failed.exit_code == 0);
    CHECK(failed.says("weft: the TLS handshake with 127.0.0.1:"));
    CHECK(failed.says(" failed: TLS: wrong version number\n"));
    child_end const cancelled = run_child("a TLS handshake that is cancelled");
    CAPTURE(cancelled.output);
    CHECK(cancelled.exit_code == 0);
    CHECK_FALSE(cancelled.says("weft:"));
}

TEST_CASE("TL15: an error handler that throws ends the server") {
    run_test({.workers = {2}, .seeds = {0}}, [] {
        memory_network network;
        tls_listener listener(network.listen(443), trusted_server());
        listener.handle_handshake_error([](std::exception_ptr failure, weft::any_byte_stream&) {
            std::rethrow_exception(failure);
        });
        bool ended = false;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                try {
                    listener.serve(echo);
                } catch (weft::exception_group const& failures) {
                    ended = failures.contains<weft::tls_error>();
                }
            });
            network.connect(443).send("neither TLS nor anything");
        });
        check(ended, "with its error");
    });
}

TEST_CASE("TL17: cancelled while somebody shakes hands, the connection is closed") {
    run_test([] {
        memory_network network;
        tls_listener listener(network.listen(443), trusted_server());
        std::atomic<bool> called = false;
        listener.handle_handshake_error(
            [&](std::exception_ptr, weft::any_byte_stream&) { called = true; });
        weft::with_task_group([&](weft::task_group& group) {
            auto silent = network.connect(443);
            group.start_soon(
                [&] { check_throws<weft::end_of_stream>([&] { silent.receive(); }, "closed"); });
            weft::cancel_scope scope;
            group.start_soon([&] { scope.run([&] { listener.serve(echo); }); });
            weft::wait_all_tasks_blocked();
            scope.cancel();
            weft::wait_all_tasks_blocked();
        });
        check(!called, "cancellation is no handshake error");
    });
}

TEST_CASE("X10, TL15: a handshake that outlives its listener fails with the handler that the listener had") {
    run_test([] {
        memory_network network;
        auto listener = std::make_unique<tls_listener>(network.listen(443), trusted_server());
        std::atomic<std::size_t> told = 0;
        listener->handle_handshake_error(
            [&, mark = std::string(100, 'm')](std::exception_ptr, weft::any_byte_stream&) { told = mark.size(); });
        weft::with_task_group([&](weft::task_group& connections) {
            auto bad = network.connect(443);
            weft::with_task_group([&](weft::task_group& accepting) {
                accepting.start_soon([&] { listener->serve(echo, &connections); });
                weft::wait_all_tasks_blocked();
                accepting.cancel();
            });
            listener.reset();
            bad.send("neither TLS nor anything");
        });
        check(told == 100, "the error was handled");
    });
}

TEST_CASE("TL16: close() closes what is under it; attributes are its own") {
    run_test([] {
        memory_network network;
        auto inner = network.listen(443);
        tls_listener listener(inner, trusted_server(), false);
        check(!listener.extra(weft::tls_attribute::standard_compatible), "as given");
        check_throws<weft::typed_attribute_lookup_error>(
            [&] { listener.extra(weft::socket_attribute::local_port); }, "the inner one's");
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                check_throws<weft::exception_group>([&] { listener.serve(echo); }, "closed");
            });
            weft::wait_all_tasks_blocked();
            listener.close();
        });
        check_throws<weft::closed_resource_error>([&] { inner.accept(); }, "closed");
    });
}

TEST_CASE("TL2, KC9: connect_tls() to a server of sockets; a failure leaves nothing open") {
    run_with_sockets([] {
        auto sockets = weft::create_tcp_listener({.local_host = "127.0.0.1"});
        std::uint16_t const port = port_of(sockets);
        tls_listener listener(std::move(sockets), trusted_server());
        listener.handle_handshake_error([](std::exception_ptr, weft::any_byte_stream&) {});
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { listener.serve(echo); });
            check_echo(weft::connect_tls("127.0.0.1", port, {.context = trusting_client()}));
            check_echo(weft::connect_tls(
                "127.0.0.1", port, {.context = trusting_client(), .tls_hostname = "localhost"}));
            check_throws<weft::tls_error>([&] { weft::connect_tls("127.0.0.1", port); },
                                          "a stranger");
            check_throws<weft::tls_error>(
                [&] {
                    weft::connect_tls("127.0.0.1", port,
                                      {.context = trusting_client(), .tls_hostname = "else.where"});
                },
                "another");
            group.cancel();
        });
    });
}

TEST_CASE("NX8: TLS over a host and a port verifies the host, however they are given") {
    run_with_sockets([] {
        auto sockets = weft::create_tcp_listener({.local_host = "127.0.0.1"});
        weft::port_number const port = port_of(sockets);
        tls_listener listener(std::move(sockets), trusted_server());
        listener.handle_handshake_error([](std::exception_ptr, weft::any_byte_stream&) {});
        weft::tls_options const options{.context = trusting_client()};
        weft::tcp_connectable const tcp("127.0.0.1", port);
        weft::any_connectable places[] = {weft::as_connectable("127.0.0.1", port, options),
                                          weft::as_connectable(std::pair("127.0.0.1", port), options),
                                          weft::as_connectable(tcp, options),
                                          weft::tls_connectable(tcp, options),
                                          weft::tls_connectable(weft::as_connectable(tcp), options)};
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { listener.serve(echo); });
            for (weft::any_connectable& each : places) {
                weft::any_byte_stream stream = each.connect();
                stream.send("hello");
                check(stream.receive() == "hello", "the echo");
                stream.close();
            }
            weft::tls_connectable elsewhere(tcp, {.hostname = "elsewhere.example", .context = options.context});
            check_throws<weft::tls_error>([&] { elsewhere.connect(); }, "a name that is given counts");
            group.cancel();
        });
    });
}

TEST_CASE("TL15, TL18: many clients on several workers, one context for all") {
    run_test({.workers = {4}, .seeds = {}, .times = 5}, [] {
        memory_network network({.largest_piece = 3000});
        tls_listener listener(network.listen(443), trusted_server());
        auto const context = trusting_client();
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { listener.serve(echo); });
            weft::with_task_group([&](weft::task_group& clients) {
                for (int number = 0; number < 30; ++number)
                    clients.start_soon([&] { check_echo(connect(network, context)); });
            });
            group.cancel();
        });
    });
}

TEST_CASE("TL15: serve() lets those who have shaken hands finish, and no more come in") {
    run_test([] {
        memory_network network;
        tls_listener listener(network.listen(443), trusted_server());
        auto const context = trusting_client();
        weft::cancel_scope scope;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { scope.run([&] { weft::serve(listener, echo); }); });
            tls_stream stream = connect(network, context);
            stream.send("before");
            check(stream.receive() == "before", "it is served");
            scope.cancel();
            weft::wait_all_tasks_blocked();
            check_echo(std::move(stream));
        });
    });
}

namespace {

// A connection that cannot be closed well.
class bad_to_close final : public weft::byte_stream {
public:
    explicit bad_to_close(memory_network_stream of) : of_(std::move(of)) {}
    using byte_send_stream::send;
    std::size_t receive_some(weft::buffer target) override { return of_.receive_some(target); }
    void send(weft::bytes_view data) override { of_.send(data); }
    void send_eof() override { of_.send_eof(); }
    void close() override {
        of_.close();
        throw weft::broken_resource_error("closed, but not well");
    }

private:
    memory_network_stream of_;
};

class bad_listener final : public weft::listener<bad_to_close> {
public:
    explicit bad_listener(weft::memory_network_listener of) : of_(std::move(of)) {}
    void close() override { of_.close(); }

protected:
    void serve_connections(weft::connection_handler<bad_to_close> const& handler,
                           weft::task_group& group) override {
        of_.serve_with(handler.after<memory_network_stream>(
                           [](memory_network_stream stream, auto const& next) {
                               next(bad_to_close(std::move(stream)));
                           }),
                       &group);
    }

private:
    weft::memory_network_listener of_;
};

} // namespace

TEST_CASE("TL15: a bad client whose connection cannot be closed well does no harm") {
    run_test([] {
        memory_network network;
        tls_listener listener(bad_listener(network.listen(443)), trusted_server());
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon(
                [&] { listener.serve([](tls_stream stream) { stream.send(stream.receive()); }); });
            network.connect(443).close();
            weft::wait_all_tasks_blocked();
            tls_stream good = connect(network, trusting_client());
            good.send("hello");
            check(good.receive() == "hello", "the server goes on");
            group.cancel();
        });
    });
}

TEST_CASE("TL15: TLS in TLS: a bad client that cuts off the outer one does no harm") {
    run_test([] {
        memory_network network;
        tls_listener outer(network.listen(443), trusted_server());
        tls_listener listener(outer, trusted_server());
        auto const context = trusting_client();
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { listener.serve(echo); });
            auto raw = network.connect(443);
            tls_stream bad = tls_stream::wrap(raw, {.hostname = "localhost", .context = context});
            raw.close();
            weft::wait_all_tasks_blocked();
            check_echo(tls_stream::wrap(connect(network, context),
                                        {.hostname = "localhost", .context = context}));
            group.cancel();
        });
    });
}

TEST_CASE("TL17: what closing throws does not take the place of the cancellation") {
    run_test([] {
        memory_network network;
        tls_listener listener(bad_listener(network.listen(443)), trusted_server());
        weft::cancel_scope scope;
        weft::with_task_group([&](weft::task_group& group) {
            auto silent = network.connect(443);
            group.start_soon([&] {
                scope.run([&] { listener.serve(echo); });
                check(scope.cancelled_caught(), "nothing but the cancellation");
            });
            weft::wait_all_tasks_blocked();
            scope.cancel();
            check_throws<weft::end_of_stream>([&] { silent.receive(); }, "closed");
        });
    });
}

TEST_CASE("R4: a tls_listener that was moved from is closed, and closes without harm") {
    run_test([] {
        memory_network network;
        tls_listener listener(network.listen(443), trusted_server());
        tls_listener moved(std::move(listener));
        check_throws<weft::exception_group>([&] { listener.serve(echo); }, "closed");
        weft::with_task_group([&](weft::task_group& group) {
            check_throws<weft::closed_resource_error>([&] { listener.serve(echo, &group); }, "too");
            listener.close();
            group.start_soon([&] { moved.serve(echo); });
            check_echo(connect(network, trusting_client()));
            group.cancel();
        });
    });
}

// In virtual time: those who shake hands have 30 seconds, and handlers to drain 10.
TEST_CASE("TL15: who has not shaken hands when serve() begins to drain is let go, whoever is served stays") {
    explore(4, [] {
        memory_network network;
        tls_listener listener(network.listen(443), trusted_server());
        std::atomic<bool> called = false;
        listener.handle_handshake_error(
            [&](std::exception_ptr, weft::any_byte_stream&) { called = true; });
        auto const context = trusting_client();
        weft::with_task_group([&](weft::task_group& group) {
            auto const server = group.create_task([&] { weft::serve(listener, echo); });
            tls_stream served = connect(network, context);
            served.send("before");
            check(served.receive() == "before", "it is served");
            auto silent = network.connect(443);
            weft::wait_all_tasks_blocked();
            weft::time_point const before = weft::current_time();
            server.cancel();
            check_throws<weft::end_of_stream>([&] { silent.receive(); }, "let go");
            check(weft::current_time() == before, "at once");
            check(!server.done(), "it drains");
            check_echo(std::move(served));
            check_throws<weft::task_cancelled>([&] { server.wait(); }, "and ends");
            check(weft::current_time() == before, "without waiting");
        });
        check(!called, "that is no handshake error");
    });
}
