#include <weft/streams/listener.hpp>

#include "sockets.hpp"
#include "support/child_process.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/inspect.hpp>
#include <weft/runtime/lowlevel.hpp>
#include <weft/streams/memory_network.hpp>
#include <weft/sync/event.hpp>

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

TEST_SUITE_BEGIN("streams.listener");

namespace {

using namespace std::chrono_literals;
using weft::socket_stream;
using weft::test::check;
using weft::test::check_throws;
using weft::test::connect_to;
using weft::test::echo_over_tcp;
using weft::test::listen;
using weft::test::port_of;
using weft::test::run_with_sockets;

// Lowers the limit of open descriptors to those that are open, and a few.
class few_descriptors {
public:
    explicit few_descriptors(int spare) {
        ::getrlimit(RLIMIT_NOFILE, &before_);
        int const next = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
        ::close(next);
        ::rlimit const low{::rlim_t(next + spare), before_.rlim_max};
        ::setrlimit(RLIMIT_NOFILE, &low);
    }
    ~few_descriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }
    few_descriptors(few_descriptors const&) = delete;
    few_descriptors& operator=(few_descriptors const&) = delete;

private:
    ::rlimit before_{};
};

constexpr int crowd_size = 300;
constexpr int room_in_crowd = 12;

// As a process of its own: all connect, and only then each says something, waits for the answer and
// goes. The number of those that were answered.
int be_a_crowd(::sockaddr_in const& server) {
    std::array<weft::unique_fd, crowd_size> all;
    for (weft::unique_fd& each : all) {
        each.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        if (::connect(each.get(), reinterpret_cast<::sockaddr const*>(&server), sizeof server) != 0)
            return 0;
    }
    int answered = 0;
    for (weft::unique_fd& each : all) {
        char octet = 'x';
        answered += ::send(each.get(), &octet, 1, MSG_NOSIGNAL) == 1 &&
                    ::recv(each.get(), &octet, 1, 0) == 1;
        each.reset();
    }
    return answered;
}

weft::unique_fd listen_before_the_run(::sockaddr_in& at) {
    weft::unique_fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ::socklen_t length = sizeof at;
    auto* const address = reinterpret_cast<::sockaddr*>(&at);
    if (::bind(fd.get(), address, length) != 0 || ::listen(fd.get(), crowd_size) != 0 ||
        ::getsockname(fd.get(), address, &length) != 0)
        std::printf("cannot listen\n");
    return fd;
}

// In its task's name, demangled.
struct handler_that_stays {
    void operator()(socket_stream stream) const {
        handled.set();
        stream.receive();
    }
    weft::event& handled;
};

weft::test::child_program const impatient_server("a server that does not wait for its handlers", [] {
    weft::run({.workers = 1}, [] {
        auto listener = listen();
        weft::event handled;
        std::optional<socket_stream> client; // it stays until the server has ended
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { weft::serve(listener, handler_that_stays{handled}, {.drain = 0s}); });
            client.emplace(connect_to(listener));
            handled.wait();
            group.cancel();
        });
    });
});

weft::test::child_program const crowd_server("a crowd and few descriptors", [] {
    ::sockaddr_in at{};
    weft::unique_fd listening = listen_before_the_run(at);
    ::pid_t const crowd = ::fork(); // no threads yet
    if (crowd == 0) ::_exit(be_a_crowd(at) == crowd_size ? 0 : 1);
    std::atomic<int> served = 0;
    weft::run([&] {
        auto listener = weft::socket_listener<socket_stream>::from_socket(listening);
        weft::event all_served;
        weft::sleep(1ms); // everything that is opened once is open now
        few_descriptors const limit(room_in_crowd);
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                weft::serve(listener, [&](socket_stream stream) {
                    echo_over_tcp(std::move(stream));
                    if (++served == crowd_size) all_served.set();
                });
            });
            all_served.wait();
            group.cancel();
        });
    });
    int status = 0;
    ::waitpid(crowd, &status, 0);
    std::printf("served %d, the crowd ends with %d\n", served.load(), status);
});

} // namespace

TEST_CASE("a listener that is moved onto itself goes on listening") {
    run_with_sockets([] {
        auto all = listen();
        auto& one = dynamic_cast<weft::socket_listener<socket_stream>&>(*all.listeners().front());
        auto& same = one;
        one = std::move(same);
        check(port_of(one) != 0, "it is open");
    });
}

TEST_CASE("X10: serve() handles each connection in a task of its own, until it is cancelled") {
    run_with_sockets([] {
        auto listener = listen();
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { listener.serve(echo_over_tcp); });
            std::vector<socket_stream> clients;
            for (int number = 0; number < 5; ++number)
                clients.push_back(connect_to(listener));
            for (socket_stream& client : clients)
                client.send("hello");
            for (socket_stream& client : clients)
                check(client.receive() == "hello", "answered");
            group.cancel();
        });
    });
}

TEST_CASE(
    "X10: with its own group a handler that fails ends serve(), with a given one that group") {
    run_with_sockets([] {
        auto listener = listen();
        auto const fail = [](socket_stream) { throw std::runtime_error("no"); };
        for (bool const own : {true, false}) {
            bool failed = false;
            try {
                weft::with_task_group([&](weft::task_group& group) {
                    group.start_soon([&] { listener.serve(fail, own ? nullptr : &group); });
                    connect_to(listener);
                    weft::sleep_forever();
                });
            } catch (weft::exception_group const& group) {
                failed = group.contains<std::runtime_error>();
            }
            check(failed, "the failure came out");
        }
    });
}

TEST_CASE("X11: the handler owns its stream: moved away it stays open, else it is closed at its end") {
    run_with_sockets([] {
        auto listener = listen();
        std::optional<socket_stream> kept;
        weft::event keeps;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                listener.serve([&](socket_stream stream) {
                    if (keeps.is_set()) return;
                    kept.emplace(std::move(stream));
                    keeps.set();
                });
            });
            auto first = connect_to(listener);
            keeps.wait();
            auto second = connect_to(listener);
            check_throws<weft::end_of_stream>([&] { second.receive(); }, "closed with the handler");
            kept->send("still open");
            check(first.receive() == "still open", "kept beyond the handler");
            group.cancel();
        });
    });
}

TEST_CASE("KL12: closing the listener ends serve() with closed_resource_error") {
    run_with_sockets([] {
        auto listener = listen();
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                bool closed = false;
                try {
                    listener.serve(echo_over_tcp);
                } catch (weft::exception_group const& failures) {
                    closed = failures.contains<weft::closed_resource_error>();
                }
                check(closed, "closed");
            });
            weft::wait_all_tasks_blocked();
            listener.close();
        });
    });
}

TEST_CASE("X10: a server goes on whatever its peers do: reset, half-close, stall, go away") {
    run_with_sockets([] {
        auto listener = listen();
        std::atomic<int> broken = 0;
        std::string const much(20'000'000, 'x');
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                listener.serve([&](socket_stream stream) {
                    try {
                        weft::bytes const first = stream.receive();
                        stream.send(first == "much" ? much : first);
                        echo_over_tcp(std::move(stream));
                    } catch (weft::broken_resource_error const&) {
                        ++broken;
                    } catch (weft::end_of_stream const&) { // said nothing
                    }
                });
            });
            auto const is_served = [&] {
                auto client = connect_to(listener);
                client.send("hello");
                client.send("world");
                client.send_eof(); // half-closed
                std::string answer;
                for (weft::bytes const& chunk : client)
                    answer += chunk;
                return answer == "helloworld";
            };
            auto silent = connect_to(listener);
            auto stalled = connect_to(listener);
            stalled.send("much"); // and takes none of it
            auto resetting = connect_to(listener);
            resetting.send("much");
            resetting.receive(1);
            weft::test::close_with_reset(resetting);
            auto leaving = connect_to(listener);
            leaving.send("much");
            leaving.receive(1);
            leaving.close(); // with octets unread
            connect_to(listener).close();
            for (int again = 0; again < 5; ++again)
                check(is_served(), "the others are served");
            while (broken < 2) // whose peers are gone
                weft::lowlevel::checkpoint();
            weft::test::close_with_reset(stalled);
            while (broken < 3)
                weft::lowlevel::checkpoint();
            check(is_served(), "still");
            group.cancel(); // one is silent to the end
        });
        check(broken == 3, "those who broke off, and nobody else");
    });
}

TEST_CASE("X12: without descriptors left serve() waits, and goes on when there are some") {
    weft::test::run_test({.workers = {1, 2}, .seeds = {}}, [] {
        auto listener = listen();
        weft::with_task_group([&](weft::task_group& group) {
            auto server = group.create_task([&] { weft::serve(listener, echo_over_tcp); });
            auto first = connect_to(listener); // everything that is opened once is open now
            first.send("x");
            check(first.receive() == "x", "before");
            // UBSan looks at each type of object once, through a pipe: a timeout's now.
            weft::move_on_after(1ms, [&] { first.receive(); });
            std::uint16_t const port = port_of(listener);
            std::optional<socket_stream> second;
            weft::wait_all_tasks_blocked(); // accept4() takes a number even if there is nobody
            {
                // One for the client's end of the second connection, none for the server's, and none
                // for UBSan's pipe: nothing happens in here for the first time.
                few_descriptors const limit(1);
                second.emplace(weft::connect_tcp("127.0.0.1", port));
                second->send("late");
                check(!weft::move_on_after(150ms, [&] { second->receive(); }), "it has to wait");
                check(!server.done(), "the server lives");
            }
            check(second->receive() == "late", "served after all");
            server.cancel();
        });
    });
}

TEST_CASE("X12: a crowd is served with descriptors for a few, one after another") {
#if defined(__SANITIZE_ADDRESS__)
    MESSAGE("not with UBSan: it looks at objects through a pipe, for which there is no descriptor");
    return;
#endif
    auto const end = weft::test::run_child("a crowd and few descriptors");
    INFO(end.output);
    CHECK(end.exit_code == 0);
    CHECK(end.says("served 300, the crowd ends with 0"));
    CHECK(end.cpu_seconds < 5 * weft::test::slowdown); // it does not spin while it waits
}

TEST_CASE("ST3: a multi_listener takes others apart, serves all and ends with the first failure") {
    run_with_sockets([] {
        using several = weft::multi_listener<socket_stream>;
        std::vector<std::unique_ptr<weft::listener<socket_stream>>> parts;
        parts.push_back(std::make_unique<several>(listen()));
        parts.push_back(std::make_unique<several>(listen()));
        several all(std::move(parts));
        check(all.listeners().size() == 2, "taken apart");
        check(port_of(all) == port_of(*all.listeners().back()), "the last one's attributes");
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                check_throws<weft::exception_group>([&] { all.serve(echo_over_tcp); }, "a failure");
            });
            for (auto const& each : all.listeners()) {
                auto client = connect_to(*each);
                client.send("x");
                check(client.receive() == "x", "served");
            }
            all.listeners().front()->close();
        });
        several({}).serve(echo_over_tcp); // nothing to do
    });
}

TEST_CASE("serve() lets handlers drain when it is cancelled, and accepts no more") {
    run_with_sockets([] {
        auto listener = listen();
        weft::event handled;
        std::atomic<bool> finished = false;
        weft::with_task_group([&](weft::task_group& group) {
            auto server = group.create_task([&] {
                weft::serve(listener, [&](socket_stream stream) {
                    handled.set();
                    stream.send(stream.receive());
                    finished = true;
                });
            });
            auto client = connect_to(listener);
            handled.wait();
            server.cancel();
            weft::wait_all_tasks_blocked();
            check(!server.done(), "it drains");
            auto late = connect_to(listener); // by the kernel alone
            client.send("bye");
            check(client.receive() == "bye", "the handler was let be");
            check_throws<weft::task_cancelled>([&] { server.wait(); }, "cancelled in the end");
        });
        check(finished, "to its end");
    });
}

TEST_CASE("serve() names the handlers that do not end in time, and cancels them") {
    run_with_sockets([] {
        auto listener = listen();
        weft::event handled;
        std::vector<weft::task_info> left;
        std::atomic<bool> cut_off = false;
        weft::with_task_group([&](weft::task_group& group) {
            auto server = group.create_task([&] {
                weft::serve(
                    listener,
                    [&](socket_stream stream) {
                        handled.set();
                        try {
                            stream.receive();
                        } catch (weft::cancelled const&) {
                            cut_off = true;
                            throw;
                        }
                    },
                    {.drain = 5ms, .on_stragglers = [&](std::vector<weft::task_info> tasks) {
                         left = std::move(tasks);
                     }});
            });
            auto client = connect_to(listener);
            handled.wait();
            weft::wait_all_tasks_blocked(); // the handler is in receive()
            server.cancel();
            check_throws<weft::task_cancelled>([&] { server.wait(); }, "cancelled");
            check_throws<weft::end_of_stream>([&] { client.receive(); }, "hung up");
        });
        check(cut_off, "cancelled");
        check(left.size() == 1 && left.front().waiting_on == "socket receive", "named");
    });
}

TEST_CASE("serve() names the handlers that it cancels on standard error, if nobody else is to be told") {
    auto const end = weft::test::run_child("a server that does not wait for its handlers");
    INFO(end.output);
    CHECK(end.exit_code == 0);
    CHECK(end.says("weft: serve() cancels 1 connections that did not end in time\n  task "));
    CHECK(end.says("handler_that_stays', waiting in socket receive\n"));
}

TEST_CASE("serve() names each connection that it cancels, those whose handler has not begun as well") {
    weft::test::run_test({.times = 20}, [] {
        weft::memory_network network;
        auto listener = network.listen();
        auto const port = listener.extra(weft::socket_attribute::local_port);
        std::atomic<int> cut_off = 0;
        std::optional<std::size_t> named;
        std::vector<weft::memory_network_stream> clients;
        weft::cancel_scope stop;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                auto const handle = [&](weft::memory_network_stream stream) {
                    try {
                        stream.receive();
                    } catch (weft::cancelled const&) {
                        ++cut_off;
                        throw;
                    }
                };
                stop.run([&] {
                    weft::serve(listener, handle, {.drain = 0s, .on_stragglers = [&](auto const& tasks) {
                                                       named = tasks.size();
                                                   }});
                });
            });
            weft::wait_all_tasks_blocked();
            for (int client = 0; client < 3; ++client)
                clients.push_back(network.connect(port));
            stop.cancel();
        });
        check(named.value_or(0) == std::size_t(cut_off), "as many as were cut off");
        check(!named || *named > 0, "none is not told of");
    });
}

TEST_CASE("a connection's task is called like its handler, so that dumps and serve() name that") {
    run_with_sockets([] {
        auto listener = listen();
        weft::event handled;
        std::string names;
        std::optional<socket_stream> client; // it stays until the server has ended
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                weft::serve(listener, handler_that_stays{handled},
                            {.drain = 0s, .on_stragglers = [&](std::vector<weft::task_info> tasks) {
                                 for (weft::task_info const& task : tasks)
                                     names += task.name;
                             }});
            });
            client.emplace(connect_to(listener));
            handled.wait();
            group.cancel();
        });
        check(names.find("handler_that_stays") != std::string::npos, "the handler");
        check(names.find("connection_handler") == std::string::npos, "and not what is around it");
    });
}

TEST_CASE("serve() ends when a handler fails, taking the others along") {
    run_with_sockets([] {
        auto listener = listen();
        bool failed = false;
        try {
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([&] {
                    weft::serve(listener, [](socket_stream stream) {
                        if (stream.receive() == "fail") throw std::runtime_error("no");
                        stream.receive();
                    });
                });
                auto patient = connect_to(listener);
                patient.send("wait");
                auto fatal = connect_to(listener);
                fatal.send("fail");
                weft::sleep_forever();
            });
        } catch (weft::exception_group const& group) {
            failed = group.contains<std::runtime_error>();
        }
        check(failed, "the failure came out");
    });
}

TEST_CASE("X11: serve() names no stragglers where there is no connection, whatever the time to drain") {
    run_with_sockets([] {
        for (weft::duration const drain : {weft::duration(0), weft::duration(-1)}) {
            auto listener = listen();
            std::atomic<bool> named = false;
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([&] {
                    weft::serve(listener, echo_over_tcp,
                                {.drain = drain, .on_stragglers = [&](auto) { named = true; }});
                });
                weft::wait_all_tasks_blocked();
                group.cancel();
            });
            check(!named, "nobody was there");
        }
    });
}

TEST_SUITE_END();
