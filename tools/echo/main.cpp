#include "connections.hpp"

#include <weft/io/readiness.hpp>
#include <weft/runtime/run.hpp>
#include <weft/streams/tcp.hpp>

#include <csignal>
#include <cstdio>
#include <exception>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <system_error>
#include <unistd.h>

// A server as a user of weft would write it: a listener that gives each connection to a function.

namespace {

using echo::options;

// Every connection is a descriptor, and the usual limit of 1024 is for programs that use select().
void allow_many_descriptors() {
    ::rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
}

// Before the workers are: they inherit the mask, so that the signals stay for the descriptor.
weft::unique_fd take_over_signals() {
    sigset_t ending;
    ::sigemptyset(&ending);
    ::sigaddset(&ending, SIGINT);
    ::sigaddset(&ending, SIGTERM);
    ::pthread_sigmask(SIG_BLOCK, &ending, nullptr);
    weft::unique_fd signals(::signalfd(-1, &ending, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!signals) throw std::system_error(errno, std::system_category(), "signalfd");
    return signals;
}

void wait_for_the_end(int signals, double seconds) {
    if (seconds == 0) return weft::wait_readable(signals);
    weft::move_on_after(std::chrono::duration_cast<weft::duration>(
                            std::chrono::duration<double>(seconds)),
                        [&] { weft::wait_readable(signals); });
}

void give_account() {
    weft::run_statistics const all = weft::get_run_statistics();
    std::printf("%6s %12s %12s %12s %12s %12s %12s\n", "worker", "switches", "spawned", "steals",
                "sleeps", "polls", "events");
    for (std::size_t number = 0; number < all.workers.size(); ++number) {
        weft::worker_statistics const& one = all.workers[number];
        std::printf("%6zu", number);
        for (std::uint64_t const value :
             {one.switches, one.spawned, one.steals, one.sleeps, one.polls, one.events})
            std::printf(" %12llu", static_cast<unsigned long long>(value));
        std::printf("\n");
    }
    std::printf("stacks guarded by: %s\n", all.stack_guards.c_str());
}

void serve(options const& asked, int signals) {
    auto listener = weft::create_tcp_listener({.local_host = asked.host, .local_port = asked.port});
    std::fprintf(stderr, "ready %d %u\n", int(::getpid()),
                 unsigned(listener.extra(weft::socket_attribute::local_port)));
    weft::with_task_group([&](weft::task_group& server) {
        server.start_soon([&] {
            listener.serve([how = asked.serves](weft::socket_stream connection) {
                echo::handle(how, std::move(connection));
            });
        });
        wait_for_the_end(signals, asked.seconds);
        server.cancel("the server was told to end");
    });
    if (!asked.quiet) give_account();
}

} // namespace

int main(int argc, char** argv) try {
    options const asked = echo::parse_options(argc, argv);
    allow_many_descriptors();
    weft::unique_fd const signals = take_over_signals();
    weft::run({.workers = asked.workers}, serve, asked, signals.get());
} catch (std::exception const& failure) {
    std::fprintf(stderr, "weft-echo: %s\n", failure.what());
    return 1;
}
