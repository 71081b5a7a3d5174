#include <weft/io/signals.hpp>

#include "signals.hpp"

#include <weft/io/readiness.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/run.hpp>
#include <weft/runtime/task_group.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

// Receivers, waits for descriptors, and children of fork() that do not call exec.

TEST_SUITE_BEGIN("io.signals_fork");

namespace {

using weft::test::check;
using weft::test::counting;
using weft::test::handled;
using weft::test::run_with_signals;
using weft::test::send;

// Calls it in a thread of its own, again and again.
class repeating {
public:
    explicit repeating(std::function<void()> body)
        : thread_([this, body] {
              while (!done_)
                  body();
          }) {}
    ~repeating() {
        done_ = true;
        thread_.join();
    }

private:
    std::atomic<bool> done_ = false;
    std::thread thread_;
};

// Forks that often, until `body` hangs or is false in a child; 1: it was.
int failed_children(
    int times, std::function<bool()> const& body,
    std::function<void(pid_t)> const& meanwhile = [](pid_t) {}) {
    int failed = 0;
    for (int round = 0; round < times && failed == 0; ++round) {
        pid_t const child = ::fork();
        if (child == 0) {
            ::alarm(10);
            ::_exit(body() ? 0 : 1);
        }
        meanwhile(child);
        int status = -1;
        while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
        }
        failed += status != 0;
    }
    return failed;
}

} // namespace

TEST_CASE("SG4: a forked child does not send itself what came to its parent") {
    counting const before(SIGUSR1);
    std::optional<weft::signal_receiver> receiver(weft::open_signal_receiver({SIGUSR1}));
    auto const child_is_sent_nothing = [&] {
        send(SIGUSR1);
        CHECK(failed_children(1, [&] {
                  receiver.reset();
                  int const sent = handled;
                  send(SIGUSR1);
                  return sent == 0 && handled == 1; // the previous handler is there again
              }) == 0);
    };
    child_is_sent_nothing(); // there is no run
    weft::run({.workers = 1}, [&] {
        CHECK(receiver->receive() == SIGUSR1);
        child_is_sent_nothing();
        CHECK(receiver->receive() == SIGUSR1);
    });
}

TEST_CASE("SG4: a forked child that does not receive a signal of its own sends it on") {
    counting const before(SIGUSR1);
    weft::run({.workers = 1}, [] {
        std::optional<weft::signal_receiver> receiver(weft::open_signal_receiver({SIGUSR1}));
        int ends[2];
        check(::pipe(ends) == 0, "a pipe");
        auto const wait_and_leave = [&] {
            char sent = 0;
            while (::read(ends[0], &sent, 1) < 0) { // interrupted
            }
            receiver.reset();
            return handled == 1;
        };
        auto const send_at_once = [&](pid_t child) {
            ::kill(child, SIGUSR1);
            check(::write(ends[1], "s", 1) == 1, "sent");
        };
        CHECK(failed_children(50, wait_and_leave, send_at_once) == 0);
        ::close(ends[0]);
        ::close(ends[1]);
    });
}

TEST_CASE("a forked child that lets a receiver go does not make its parent deaf") {
    counting const before(SIGUSR1);
    run_with_signals([] {
        auto receiver =
            std::make_unique<weft::signal_receiver>(weft::open_signal_receiver({SIGUSR1}));
        auto const receive_one = [&] {
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([&] { check(receiver->receive() == SIGUSR1, "it came"); });
                weft::wait_all_tasks_blocked();
                send(SIGUSR1);
            });
        };
        receive_one(); // the poller knows it
        pid_t const child = ::fork();
        if (child == 0) {
            receiver.reset();
            ::_exit(0);
        }
        int status = -1;
        ::waitpid(child, &status, 0);
        check(status == 0, "it ended");
        weft::fail_after(std::chrono::seconds(10), receive_one);
    });
}

TEST_CASE("KW3: a forked child that says it closes a descriptor does not make its parent deaf") {
    int ends[2];
    check(::pipe(ends) == 0, "a pipe");
    weft::run({.workers = 1}, [&] {
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                weft::fail_after(std::chrono::seconds(10), [&] { weft::wait_readable(ends[0]); });
            });
            weft::wait_all_tasks_blocked(); // a poller knows it
            CHECK(failed_children(1, [&] {
                      weft::notify_closing(ends[0]);
                      return true;
                  }) == 0);
            check(::write(ends[1], "x", 1) == 1, "something to read");
        });
    });
    ::close(ends[0]);
    ::close(ends[1]);
}

TEST_CASE("a fork while another thread opens a receiver does not keep the child from letting its own go") {
    counting const before(SIGUSR1);
    weft::run({.workers = 1}, [] {
        std::optional<weft::signal_receiver> receiver(weft::open_signal_receiver({SIGUSR1}));
        repeating const other([] { weft::open_signal_receiver({SIGUSR2}); });
        CHECK(failed_children(100, [&] {
                  receiver.reset();
                  send(SIGUSR1);
                  return handled == 1; // by the previous handler
              }) == 0);
    });
}

TEST_CASE("a fork while a signal is being handled does not keep the child from letting its receivers go") {
    counting const before(SIGUSR1);
    weft::run({.workers = 1}, [] {
        std::optional<weft::signal_receiver> receiver(weft::open_signal_receiver({SIGUSR1}));
        repeating const sender([] { send(SIGUSR1); });
        CHECK(failed_children(50, [&] {
                  receiver.reset();
                  return handled == 0;
              }) == 0);
    });
}

TEST_CASE("a fork without a run while a signal is being handled does not keep the child from opening receivers") {
    counting const before(SIGUSR1);
    std::vector<weft::signal_receiver> receivers; // many: a handler has something to do
    for (int i = 0; i < 200; ++i)
        receivers.push_back(weft::open_signal_receiver({SIGUSR1}));
    repeating const sender([] { send(SIGUSR1); });
    CHECK(failed_children(50, [] {
              auto const opened = weft::open_signal_receiver({SIGUSR2});
              return true;
          }) == 0);
}

TEST_CASE("SG1: a forked child that uses an inherited receiver neither takes its parent's signals nor its wake-ups") {
    counting const before(SIGUSR1);
    auto receiver = weft::open_signal_receiver({SIGUSR1, SIGUSR2});
    send(SIGUSR1); // the parent's own
    pid_t const child = ::fork();
    if (child == 0) {
        ::alarm(60);
        send(SIGUSR2);
        weft::run([&] {
            if (receiver.receive() != SIGUSR2) ::_exit(1);
            receiver.receive(); // until it is killed
        });
        ::_exit(2);
    }
    weft::run({.workers = 1}, [&] {
        CHECK(receiver.receive() == SIGUSR1); // its own
        std::vector<int> received;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                while (received.size() < 200)
                    received.push_back(receiver.receive());
            });
            for (int sent = 1; sent <= 200; ++sent) {
                weft::wait_all_tasks_blocked();
                send(SIGUSR1);
                weft::fail_after(std::chrono::seconds(20), [&] {
                    while (received.size() < std::size_t(sent))
                        weft::lowlevel::checkpoint();
                });
            }
        });
    });
    ::kill(child, SIGKILL);
    int status = -1;
    ::waitpid(child, &status, 0);
    CHECK(WIFSIGNALED(status));
}

// ThreadSanitizer lets no child of several threads begin any; from AddressSanitizer's allocator it may have
// inherited a lock that another thread held.
#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
TEST_CASE("a child forked without a run, while another thread opens and closes, can begin one") {
    repeating const other([] { weft::open_signal_receiver({SIGUSR2}); });
    CHECK(failed_children(200, [] {
              weft::run({.workers = 1}, [] {
                  auto own = weft::open_signal_receiver({SIGUSR1});
                  weft::with_task_group([&](weft::task_group& group) {
                      group.start_soon([&] { own.receive(); });
                      weft::wait_all_tasks_blocked(); // a poller knows it
                      send(SIGUSR1);
                  });
              });
              return true;
          }) == 0);
}

TEST_CASE("KW3: a child forked without a run, while another thread says it closes a descriptor, can begin one") {
    repeating const other([] { weft::notify_closing(1 << 20); });
    CHECK(failed_children(200, [] {
              int ends[2];
              if (::pipe(ends) != 0 || ::write(ends[1], "x", 1) != 1) return false;
              weft::run({.workers = 1}, [&] { weft::wait_readable(ends[0]); });
              return true;
          }) == 0);
}
#endif

TEST_SUITE_END();
