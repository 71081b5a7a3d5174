#include <weft/io/readiness.hpp>

#include "io/src/io_state.hpp"
#include "support/child_process.hpp"
#include "support/run_test.hpp"

#include <weft/io/descriptor.hpp>
#include <weft/io/error.hpp>
#include <weft/io/path.hpp>
#include <weft/io/resolver.hpp>
#include <weft/runtime/blocking_region.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/run.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/time.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <latch>
#include <memory>
#include <semaphore>
#include <string>
#include <system_error>
#include <thread>

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

TEST_SUITE_BEGIN("io.readiness");

namespace {

using weft::test::check;
using weft::test::check_throws;
using weft::test::run_test;

void run_with_descriptors(std::function<void()> const& body, unsigned times = 1) {
    run_test({.seeds = {}, .times = times}, body);
}

struct two_ends {
    two_ends() {
        int fds[2];
        check(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0,
              "fds");
        here.reset(fds[0]);
        there.reset(fds[1]);
    }
    void send() const { check(::send(here.get(), "x", 1, 0) == 1, "sent"); }
    void receive() const {
        char received;
        check(::recv(there.get(), &received, 1, 0) == 1, "received");
    }
    // What `there` sends, until it could not send more; and `here` takes all of it.
    void fill() const {
        std::string const much(100'000, 'x');
        while (::send(there.get(), much.data(), much.size(), MSG_NOSIGNAL) > 0) {
        }
    }
    void drain() const {
        std::string space(100'000, ' ');
        while (::recv(here.get(), space.data(), space.size(), 0) > 0) {
        }
    }
    weft::unique_fd here;
    weft::unique_fd there;
};

// How many epolls of this process watch it.
unsigned registrations_of(int fd) {
    unsigned count = 0;
    for (auto const& each : std::filesystem::directory_iterator("/proc/self/fdinfo")) {
        std::ifstream info(each.path());
        std::string word;
        while (info >> word)
            if (int number = -1; word == "tfd:" && info >> number) count += number == fd;
    }
    return count;
}

// Waits until there is something, or it is told that the number is given up: nothing else ends it,
// though the numbers go from one of these to the next.
void wait_for_one(bool give_up) {
    two_ends pair;
    int const fd = pair.there.get();
    std::atomic<bool> closed = false;
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] {
            try {
                weft::wait_readable(fd);
            } catch (weft::closed_resource_error const&) {
                closed = true;
                return;
            }
            pair.receive(); // does not block: it would be an error
        });
        weft::lowlevel::checkpoint();
        if (!give_up) return pair.send();
        while (!closed) { // it may not have come so far
            weft::notify_closing(fd);
            weft::lowlevel::checkpoint();
        }
        pair.there.reset();
    });
    check(closed == give_up, "as it was told");
}

void wait_for_many() {
    weft::with_task_group([](weft::task_group& group) {
        for (int each = 0; each < 6; ++each)
            group.start_soon([each] {
                for (int round = 0; round < 100; ++round)
                    wait_for_one((round + each) % 3 == 0);
            });
    });
}

// What the layer keeps for the process is used.
void use_what_is_kept() {
    weft::run({.workers = 2}, [] {
        two_ends const pair;
        weft::wait_writable(pair.there.get());
        pair.send();
        weft::wait_readable(pair.there.get());
        weft::getaddrinfo("localhost", "80"); // by its limiter, in a thread
        try {
            weft::getaddrinfo("127.0.0.1", "65536");
        } catch (std::system_error const& refused) {
            std::printf("%s: %s\n", refused.code().category().name(), refused.what());
        }
        std::printf("here is '%s'\n", weft::path().as_posix().c_str());
    });
    std::fflush(stdout);
}

// Serves until the process ends, and in its end.
class static_server {
public:
    void start() {
        pair_ = std::make_unique<two_ends>();
        std::latch waits(1);
        thread_ = std::thread([&] { weft::run({.workers = 1}, [&] { serve(waits); }); });
        waits.wait();
    }
    ~static_server() {
        if (!pair_) return;
        use_what_is_kept();
        pair_->send();
        thread_.join();
        std::puts("and all of it at the end");
        std::fflush(stdout);
    }

private:
    void serve(std::latch& waits) {
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([this] { weft::wait_readable(pair_->there.get()); });
            weft::wait_all_tasks_blocked();
            waits.count_down();
        });
    }

    std::unique_ptr<two_ends> pair_;
    std::thread thread_;
} server;

weft::test::child_program const used_in_destructor("readiness in a static destructor", [] {
    server.start();
    use_what_is_kept();
});

// As container runtimes do that are older than the call.
weft::test::child_program const refused("epoll_pwait2 refused", [] {
    ::sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(::seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_epoll_pwait2, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    ::sock_fprog const program{static_cast<unsigned short>(std::size(rules)), rules};
    check(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no new privileges");
    check(::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0, "the filter");
    weft::run({.workers = 1}, [] {
        std::clock_t const before = std::clock();
        weft::sleep(std::chrono::seconds(1));
        double const used = double(std::clock() - before) / CLOCKS_PER_SEC;
        check(used < 0.1, "of processor time: " + std::to_string(used));
    });
});

} // namespace

TEST_CASE("where epoll_pwait2 is forbidden, a sleep sleeps") {
    auto const end = weft::test::run_child("epoll_pwait2 refused");
    INFO(end.output);
    CHECK(end.exit_code == 0);
}

TEST_CASE("E1: a static object's destructor may wait and look up, whatever is gone before it") {
    auto const end = weft::test::run_child("readiness in a static destructor");
    INFO(end.output);
    CHECK(end.exit_code == 0);
    CHECK(end.says("and all of it at the end"));
}

TEST_CASE("KW1: what is ready is found at once, what is not is waited for, again and again") {
    run_with_descriptors([] {
        two_ends const pair;
        weft::wait_writable(pair.here.get());
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                for (int round = 0; round < 50; ++round) {
                    weft::wait_readable(pair.there.get());
                    weft::wait_readable(pair.there.get()); // level-triggered
                    pair.receive();
                    pair.send();
                    weft::wait_readable(pair.there.get());
                    pair.receive();
                }
            });
            for (int round = 0; round < 50; ++round) {
                weft::wait_all_tasks_blocked();
                pair.send();
            }
        });
    });
}

TEST_CASE("KW1: the end and errors count as readable") {
    run_with_descriptors([] {
        two_ends pair;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { weft::wait_readable(pair.there.get()); });
            weft::wait_all_tasks_blocked();
            pair.here.reset();
        });
        weft::wait_readable(pair.there.get());
        weft::wait_writable(pair.there.get());
    });
}

TEST_CASE("KW2: one waiter for each direction") {
    run_with_descriptors([] {
        two_ends const pair;
        pair.fill();
        std::atomic<int> woken = 0;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                weft::wait_readable(pair.there.get());
                ++woken;
            });
            group.start_soon([&] {
                weft::wait_writable(pair.there.get());
                ++woken;
            });
            weft::wait_all_tasks_blocked();
            check_throws<weft::busy_resource_error>([&] { weft::wait_readable(pair.there.get()); },
                                                    "a second reader");
            check_throws<weft::busy_resource_error>([&] { weft::wait_writable(pair.there.get()); },
                                                    "a second writer");
            check(woken == 0, "both wait");
            pair.send();
            pair.drain();
        });
        check(woken == 2, "both were woken");
    });
}

TEST_CASE("KW3: notify_closing() wakes both, and the number may be used again") {
    run_with_descriptors(
        [] {
            two_ends pair;
            int const fd = pair.there.get();
            pair.fill();
            std::atomic<int> told = 0;
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([&] {
                    check_throws<weft::closed_resource_error>([&] { weft::wait_readable(fd); },
                                                              "the reader");
                    ++told;
                });
                group.start_soon([&] {
                    check_throws<weft::closed_resource_error>([&] { weft::wait_writable(fd); },
                                                              "the writer");
                    ++told;
                });
                weft::wait_all_tasks_blocked();
                weft::notify_closing(fd);
                pair.there.reset();
                two_ends const other; // most likely with that number
                weft::with_task_group([&](weft::task_group& inner) {
                    inner.start_soon([&] { weft::wait_readable(other.there.get()); });
                    weft::wait_all_tasks_blocked();
                    other.send();
                });
            });
            check(told == 2, "told");
            weft::notify_closing(fd); // nobody waits
        },
        10);
}

TEST_CASE(
    "KW6: numbers that change their owners wake nobody who waits for another meaning of them") {
    run_with_descriptors(wait_for_many);
}

TEST_CASE("KW6, KW2: several runs wait beside one another, also for one descriptor") {
    std::thread first([] { weft::run({.workers = 2}, wait_for_many); });
    std::thread second([] { weft::run({.workers = 2}, wait_for_many); });
    two_ends const pair;
    std::atomic<int> woken = 0;
    auto const wait_together = [&] {
        weft::run({.workers = 1}, [&] { weft::wait_readable(pair.there.get()), ++woken; });
    };
    std::thread third(wait_together);
    std::thread fourth(wait_together);
    pair.send();
    for (std::thread* const each : {&first, &second, &third, &fourth})
        each->join();
    CHECK(woken == 2);
}

TEST_CASE("KW4: a descriptor that is not open is EBADF, a regular file is always ready") {
    run_with_descriptors([] {
        bool bad = false;
        try {
            weft::wait_readable(9999);
        } catch (std::system_error const& failure) {
            bad = failure.code().value() == EBADF;
        }
        check(bad, "EBADF");
        weft::unique_fd const file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
        weft::wait_readable(file.get());
    });
}

TEST_CASE("KW4: the error of a descriptor that is not open names the call and the number") {
    run_with_descriptors([] {
        auto const expect = [](std::string const& text, auto call, int fd) {
            std::string said = "nothing";
            try {
                call(fd);
            } catch (std::system_error const& failure) {
                said = failure.code().value() == EBADF ? failure.what() : "another code";
            }
            check(said.starts_with(text), said);
        };
        expect("wait_readable: the descriptor -1: ", weft::wait_readable, -1);
        expect("wait_writable: the descriptor -1: ", weft::wait_writable, -1);
        expect("wait_readable: the descriptor 9999: ", weft::wait_socket_readable, 9999);
        expect("wait_writable: the descriptor 9999: ", weft::wait_socket_writable, 9999);
        weft::notify_closing(-1); // nobody waits
    });
}

TEST_CASE("TI6: wait_all_tasks_blocked() waits for what an event that has come sets off") {
    for (unsigned const workers : {1u, 2u, 4u})
        weft::run({.workers = workers}, [] {
            two_ends pair;
            std::atomic<int> taken = 0;
            constexpr int rounds = 3000;
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([&] {
                    for (int round = 0; round < rounds; ++round) {
                        weft::wait_readable(pair.there.get());
                        pair.receive();
                        ++taken;
                    }
                });
                int missed = 0;
                for (int round = 1; round <= rounds; ++round) {
                    weft::wait_all_tasks_blocked();
                    pair.send();
                    weft::wait_all_tasks_blocked();
                    missed += taken != round;
                    while (taken != round)
                        weft::lowlevel::checkpoint();
                }
                CHECK(missed == 0);
            });
        });
}

TEST_CASE("KW1: a fiber that keeps its worker busy does not keep others from their descriptors") {
    for (int time = 0; time < 20; ++time)
        weft::run({.workers = 2}, [] {
            two_ends pair;
            std::atomic<bool> over = false;
            std::thread peer([&] { // answers from outside: no worker notices its writes by itself
                for (int count = 0; count < 50; ++count) {
                    ::pollfd look{pair.here.get(), POLLIN, 0};
                    check(::poll(&look, 1, 20'000) == 1, "a request");
                    char request;
                    check(::recv(pair.here.get(), &request, 1, 0) == 1, "taken");
                    pair.send();
                }
            });
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([&] {
                    weft::wait_writable(pair.there.get()); // now the descriptor is registered
                    for (int count = 0; count < 50; ++count) {
                        check(::send(pair.there.get(), "y", 1, 0) == 1, "sent");
                        weft::wait_readable(pair.there.get());
                        pair.receive();
                    }
                    over = true;
                });
                group.start_soon([&] {
                    auto const until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
                    while (!over && std::chrono::steady_clock::now() < until) {} // never yields
                    check(over, "all were served meanwhile");
                });
            });
            peer.join();
        });
}

TEST_CASE("KW1: while a task blocks its thread in a blocking_region, another thread waits for descriptors") {
    run_test({.workers = {1}, .seeds = {}, .times = 10}, [] {
        for (bool const before : {false, true}) {
            two_ends const pair;
            std::binary_semaphore received(0);
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([&] {
                    weft::wait_readable(pair.there.get());
                    pair.receive();
                    received.release();
                });
                weft::wait_all_tasks_blocked();
                if (before) pair.send();
                weft::blocking_region const region;
                if (!before) pair.send();
                received.acquire(); // nothing but the other task ends it
            });
        }
    });
}

TEST_CASE("KW5: a cancelled wait leaves nothing behind") {
    run_with_descriptors(
        [] {
            two_ends const pair;
            auto const before = weft::detail::open_io_states();
            for (int round = 0; round < 3; ++round) {
                weft::cancel_scope scope;
                weft::with_task_group([&](weft::task_group& group) {
                    group.start_soon(
                        [&] { scope.run([&] { weft::wait_readable(pair.there.get()); }); });
                    weft::wait_all_tasks_blocked();
                    check(registrations_of(pair.there.get()) == 1, "registered while it waits");
                    scope.cancel();
                });
                check(scope.cancelled_caught(), "cancelled");
                check(registrations_of(pair.there.get()) == 0, "and not afterwards");
                check(weft::detail::open_io_states() == before, "nor is anything kept of it");
            }
            pair.send();
            weft::wait_readable(pair.there.get());
        },
        10);
}

TEST_SUITE_END();
