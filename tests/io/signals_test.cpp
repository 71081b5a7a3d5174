#include <weft/io/signals.hpp>

#include "signals.hpp"
#include "support/child_process.hpp"
#include "support/traced_child.hpp"

#include <weft/io/error.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/run.hpp>
#include <weft/runtime/task_group.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <unistd.h>

TEST_SUITE_BEGIN("io.signals");

namespace {

using weft::test::check;
using weft::test::check_throws;
using weft::test::count_signal;
using weft::test::counting;
using weft::test::handled;
using weft::test::run_child;
using weft::test::run_with_signals;
using weft::test::send;

weft::test::child_program const twice("second ctrl-c", [] {
    weft::run([] {
        send(SIGINT);
        if (weft::wait_for_shutdown_signal() != SIGINT) std::_Exit(9);
        send(SIGINT);
        weft::sleep_forever(); // a shutdown that takes too long
    });
});

weft::test::child_program const unreceived("unreceived", [] {
    weft::run([] {
        auto signals = weft::open_signal_receiver({SIGTERM});
        send(SIGTERM);
    });
});

// Whoever did not get round to receiving it leaves last, in the middle of an orderly shutdown.
weft::test::child_program const received_by_one("received by one", [] {
    weft::run([] {
        auto const busy = weft::open_signal_receiver({SIGHUP, SIGTERM});
        weft::with_task_group([](weft::task_group& group) {
            group.start_soon([] {
                if (weft::wait_for_shutdown_signal() != SIGTERM) std::_Exit(9);
            });
            weft::wait_all_tasks_blocked();
            send(SIGTERM);
        });
    });
    std::puts("orderly end");
});

// To be traced.
constexpr int signals_to_trace = 5;

weft::test::child_program const receives("receives signals", [] {
    weft::run({.workers = 1}, [] {
        auto first = weft::open_signal_receiver({SIGUSR1});
        auto second = weft::open_signal_receiver({SIGUSR1, SIGUSR2});
        for (int round = 0; round < signals_to_trace; ++round) {
            send(SIGUSR1);
            if (first.receive() != SIGUSR1 || second.receive() != SIGUSR1) std::_Exit(9);
        }
    });
    std::puts("all received");
});

} // namespace

TEST_CASE("SG1, SG2: signals arrive in order, and have no other effect") {
    counting const before(SIGUSR1);
    run_with_signals(
        [] {
            weft::signal_receiver signals = weft::open_signal_receiver({SIGUSR1, SIGUSR2, SIGUSR1});
            for (int const number : {SIGUSR2, SIGUSR1, SIGUSR2}) {
                send(number);
                check(signals.receive() == number, "that one");
            }
            send(SIGUSR2);
            send(SIGUSR1);
            send(SIGUSR2); // again, before it is received
            std::vector<int> received;
            for (int const number : signals) {
                received.push_back(number);
                if (received.size() == 2) break;
            }
            check(received == std::vector<int>{SIGUSR2, SIGUSR1}, "SG2: once each, in order");
            check(handled == 0, "the previous handler was not called");
        },
        20);
}

TEST_CASE("SG1: a waiting task is woken, from any thread") {
#if defined(__SANITIZE_THREAD__)
    // It keeps a signal back for the fiber that ran when it came, which may then wait for it for ever, and
    // forgets those of a thread that ends. A signal to oneself it lets through.
    bool const only_to_oneself = true;
#else
    bool const only_to_oneself = false;
#endif
    run_with_signals(
        [=] {
            weft::signal_receiver signals = weft::open_signal_receiver({SIGUSR1});
            for (int round = 0; round < 50; ++round) {
                weft::with_task_group([&](weft::task_group& group) {
                    group.start_soon([&] { check(signals.receive() == SIGUSR1, "it came"); });
                    if (round % 2 == 0) weft::wait_all_tasks_blocked();
                    if (only_to_oneself || round % 3 == 0)
                        send(SIGUSR1);
                    else if (round % 3 == 1)
                        ::kill(::getpid(), SIGUSR1);
                    else
                        std::thread([] { send(SIGUSR1); }).join();
                });
            }
        },
        5);
}

TEST_CASE("SG3: cancelling a receive() loses no signal") {
    run_with_signals(
        [] {
            weft::signal_receiver signals = weft::open_signal_receiver({SIGUSR1});
            for (int round = 0; round < 100; ++round) {
                weft::cancel_scope scope;
                std::optional<int> got;
                weft::with_task_group([&](weft::task_group& group) {
                    group.start_soon([&] { scope.run([&] { got = signals.receive(); }); });
                    if (round % 3 == 0) weft::wait_all_tasks_blocked();
                    group.start_soon([] { send(SIGUSR1); });
                    group.start_soon([&] { scope.cancel(); });
                });
                check(got.value_or(0) == SIGUSR1 || signals.receive() == SIGUSR1, "now or later");
            }
        },
        5);
}

TEST_CASE("SG4: the previous handler returns, and gets what was not received") {
    counting const before(SIGUSR1);
    run_with_signals([] {
        handled = 0;
        {
            auto signals = weft::open_signal_receiver({SIGUSR1});
            send(SIGUSR1);
            check(signals.receive() == SIGUSR1 && handled == 0, "received");
        }
        check(handled == 0, "what was received is not sent again");
        {
            auto const signals = weft::open_signal_receiver({SIGUSR1});
            send(SIGUSR1);
        }
        send(SIGUSR1);
        while (handled < 2) // sent to the process
            std::this_thread::yield();
        check(handled == 2, "the one that was not received, and one for the handler");
    });
    CHECK((::signal(SIGUSR1, SIG_DFL) == count_signal));
    CHECK(run_child("unreceived").signal == SIGTERM);
}

TEST_CASE("SG4, SG5: what one of several receivers took is not sent again, whoever leaves last") {
    auto const end = run_child("received by one");
    CHECK(end.signal == 0);
    CHECK(end.says("orderly end"));
}

TEST_CASE("SG4, SG5: what came again after one receiver took it is sent again, once") {
    counting const before(SIGUSR1);
    run_with_signals(
        [] {
            handled = 0;
            {
                auto const busy = weft::open_signal_receiver({SIGUSR1});
                auto signals = weft::open_signal_receiver({SIGUSR1});
                send(SIGUSR1);
                check(signals.receive() == SIGUSR1, "received");
                send(SIGUSR1);
            }
            while (handled < 1) // sent to the process
                std::this_thread::yield();
            std::optional<weft::signal_receiver> after(weft::open_signal_receiver({SIGUSR1}));
            after.reset();
            check(handled == 1, "no second time");
        },
        10);
}

TEST_CASE("SG4, SG5: a signal of which the last receiver does not know is sent again, too") {
    counting const before(SIGUSR1);
    run_with_signals(
        [] {
            handled = 0;
            std::optional<weft::signal_receiver> first(weft::open_signal_receiver({SIGUSR1}));
            send(SIGUSR1);
            std::optional<weft::signal_receiver> last(weft::open_signal_receiver({SIGUSR1}));
            first.reset();
            check(handled == 0, "there is another receiver");
            last.reset();
            while (handled < 1) // sent to the process
                std::this_thread::yield();
        },
        10);
}

// The kernel may have begun our handler in a thread that comes to run it much later. A call is the same.
TEST_CASE("SG4: a signal whose handler begins when the last receiver has left is sent again, once") {
    counting const before(SIGUSR1);
    for (int round = 0; round < 3; ++round) {
        struct ::sigaction ours {};
        {
            auto const signals = weft::open_signal_receiver({SIGUSR1});
            ::sigaction(SIGUSR1, nullptr, &ours);
        }
        ours.sa_handler(SIGUSR1);
        CHECK(handled == round + 1);
    }
}

void (*successor_of)(int) = nullptr;

TEST_CASE("SG4: a handler that calls ours as its predecessor is not sent a signal for ever") {
    counting const before(SIGUSR1);
    std::optional<weft::signal_receiver> signals(weft::open_signal_receiver({SIGUSR1}));
    successor_of = ::signal(SIGUSR1, [](int number) {
        ++handled;
        successor_of(number);
    });
    signals.reset();
    send(SIGUSR1);
    CHECK(handled == 1);
    signals.emplace(weft::open_signal_receiver({SIGUSR1}));
    signals.reset(); // now it was ours that was replaced
    send(SIGUSR1);
    CHECK(handled <= 3); // no way to tell such a call from one that comes late
    send(SIGUSR1);
    CHECK(handled <= 4);
}

TEST_CASE("SG4: a handler that somebody put in the place of ours stays there") {
    run_with_signals([] {
        auto signals =
            std::make_unique<weft::signal_receiver>(weft::open_signal_receiver({SIGUSR1}));
        ::signal(SIGUSR1, count_signal);
        signals.reset();
        check(::signal(SIGUSR1, SIG_DFL) == count_signal, "still there");
    });
}

TEST_CASE("SG5: every receiver is told, also those of other runs; they leave in any order") {
    counting const before(SIGUSR1);
    run_with_signals(
        [] {
            std::optional<weft::signal_receiver> first(weft::open_signal_receiver({SIGUSR1}));
            std::optional<weft::signal_receiver> second(
                weft::open_signal_receiver({SIGUSR1, SIGUSR2}));
            std::thread other([] {
                weft::run({.workers = 1}, [] {
                    auto signals = weft::open_signal_receiver({SIGUSR1});
                    send(SIGUSR1);
                    check(signals.receive() == SIGUSR1, "the other run");
                });
            });
            other.join();
            check(first->receive() == SIGUSR1 && second->receive() == SIGUSR1, "both");
            first.reset();
            send(SIGUSR1);
            check(second->receive() == SIGUSR1 && handled == 0, "the other one still");
            second.reset();
            send(SIGUSR1);
            check(handled == 1, "none is left");
            handled = 0;
        },
        10);
}

TEST_CASE("SG5: what cannot be received is refused, and nothing is changed") {
    run_with_signals([] {
        for (int const number : {0, -1, 65, 1000, SIGKILL, SIGSTOP, SIGSEGV, SIGFPE, 32}) {
            try {
                weft::open_signal_receiver({SIGUSR1, number});
                check(false, "refused");
            } catch (std::invalid_argument const& refused) {
                check(std::string(refused.what()).find_first_of("0123456789SIG") !=
                          std::string::npos,
                      "named");
            }
        }
        check_throws<std::invalid_argument>([] { weft::open_signal_receiver({}); }, "none");
        struct ::sigaction now {};
        ::sigaction(SIGUSR1, nullptr, &now);
        check(now.sa_handler == SIG_DFL, "as before");
    });
}

TEST_CASE("SG6: a handler does nothing but write to the receivers' descriptors") {
#if defined(__SANITIZE_THREAD__)
    return; // handlers are called by its own one, in its own time
#endif
    auto const traced = weft::test::trace_child("receives signals", "");
    if (!traced.was_traced) {
        MESSAGE("not tried: no strace here");
        return;
    }
    using weft::test::has;
    INFO(traced.output);
    CHECK(has(traced.output, "all received"));
    int handled_signals = 0;
    int writes = 0;
    std::string others;
    std::string handling; // the thread that is in a handler
    for (std::string const& line : traced.lines) {
        std::string const thread = line.substr(0, line.find(' '));
        if (has(line, "--- SIGUSR1")) {
            handling = thread;
            ++handled_signals;
        } else if (thread == handling && has(line, "rt_sigreturn(")) {
            handling.clear();
        } else if (thread == handling && !has(line, "resumed>")) {
            if (has(line, " write(") && has(line, R"("\1\0\0\0\0\0\0\0", 8)"))
                ++writes;
            else
                others += line + "\n";
        }
    }
    CHECK(handled_signals == signals_to_trace);
    CHECK(writes == 2 * signals_to_trace);
    CHECK(others == "");
}

TEST_CASE("SG7: a receiver is a scope: however that is left, the previous handler returns") {
    run_with_signals([] {
        auto const handles = [] {
            struct ::sigaction now {};
            ::sigaction(SIGUSR1, nullptr, &now);
            return now.sa_handler != SIG_DFL;
        };
        check_throws<std::out_of_range>(
            [&] {
                auto const signals = weft::open_signal_receiver({SIGUSR1});
                check(handles(), "open");
                throw std::out_of_range("from the block");
            },
            "it passes");
        check(!handles(), "left by an exception");
        weft::cancel_scope scope;
        scope.cancel();
        bool const through = scope.run([&] {
            auto signals = weft::open_signal_receiver({SIGUSR1});
            check(handles(), "open");
            signals.receive();
        });
        check(!through && !handles(), "left by a cancellation");
    });
}

TEST_CASE("one task receives at a time; a receiver that was moved from is closed") {
    run_with_signals([] {
        auto signals = weft::open_signal_receiver({SIGUSR1});
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { signals.receive(); });
            weft::wait_all_tasks_blocked();
            check_throws<weft::busy_resource_error>([&] { signals.receive(); }, "busy");
            group.cancel();
        });
        auto const taken = std::move(signals);
        check_throws<weft::closed_resource_error>([&] { signals.receive(); }, "moved from");
    });
}

TEST_CASE("receivers come and go while signals fly") {
    counting const before(SIGUSR1);
    run_with_signals([] {
        std::atomic<bool> done = false;
        std::thread sender([&] {
            while (!done)
                send(SIGUSR1);
        });
        weft::with_task_group([](weft::task_group& group) {
            for (int task = 0; task < 4; ++task)
                group.start_soon([] {
                    for (int round = 0; round < 50; ++round)
                        check(weft::open_signal_receiver({SIGUSR1}).receive() == SIGUSR1, "it");
                });
        });
        done = true;
        sender.join();
    });
}

TEST_CASE("a second Ctrl-C kills a program that takes its time to shut down") {
    CHECK(run_child("second ctrl-c").signal == SIGINT);
}

TEST_SUITE_END();
