// A proxy: every connection is passed on to another server, octet by octet, in both directions, and
// each end for itself.
//
//   weft-example-tcp_proxy                     tries itself out
//   weft-example-tcp_proxy PORT HOST PORT      until it is interrupted

#include <weft/weft.hpp>

#include <array>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>

#include <sys/socket.h>

using namespace std::chrono_literals;

namespace {

// Closed after this it is reset: what was cut short must not look like all of it.
void reset_when_closed(weft::byte_stream& connection) {
    ::linger const at_once{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(connection.extra(weft::socket_attribute::raw_socket), SOL_SOCKET, SO_LINGER, &at_once,
                 sizeof at_once);
}

void pass_on(weft::byte_receive_stream& from, weft::byte_stream& to) {
    try {
        std::array<std::byte, 16384> chunk;
        while (std::size_t const count = from.receive_some(chunk))
            to.send(std::span(chunk).first(count));
        to.send_eof();
    } catch (...) { // also when the proxy ends
        reset_when_closed(to);
        throw;
    }
}

void pass_on_both_ways(weft::byte_stream& client, weft::byte_stream& server) {
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] { pass_on(client, server); });
        pass_on(server, client);
    });
}

void relay(weft::socket_stream client, weft::any_connectable& target) {
    try {
        weft::any_byte_stream server = target.connect();
        pass_on_both_ways(client, server);
    } catch (weft::connection_failed const& failure) {
        std::fprintf(stderr, "%s\n", failure.what());
    } catch (std::invalid_argument const& failure) { // the host is no name
        std::fprintf(stderr, "%s\n", failure.what());
    } catch (weft::exception_group const& failures) {
        failures.handle([](weft::broken_resource_error const&) {}, // one of the two is gone
                        [](std::system_error const& failure) { // or the system is short of something
                            std::fprintf(stderr, "%s\n", failure.what());
                        });
    }
}

void serve(weft::multi_listener<weft::socket_stream>& listener, weft::any_connectable target) {
    weft::serve(
        listener, [&](weft::socket_stream client) { relay(std::move(client), target); },
        {.drain = 1s});
}

void serve_until_interrupted(std::uint16_t port, weft::any_connectable const& target) {
    auto listener = weft::create_tcp_listener({.local_host = "127.0.0.1", .local_port = port});
    auto signals = weft::open_signal_receiver({SIGINT, SIGTERM});
    std::fprintf(stderr, "ready %u\n", unsigned(listener.extra(weft::socket_attribute::local_port)));
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] { serve(listener, target); });
        signals.receive();
        group.cancel("interrupted");
    });
}

void expect(bool holds, char const* what) {
    if (!holds) throw std::runtime_error(what);
}

// What the server hears first, it says last; so both directions end one after the other.
void answer_at_the_end(weft::socket_stream client) {
    std::string all;
    for (weft::bytes const& chunk : client)
        all += chunk;
    client.send(std::string(all.rbegin(), all.rend()));
}

// One end is reset in the middle: the other one reads what came before, and no end in good order.
void try_reset() {
    auto arrived = weft::create_memory_object_stream<weft::socket_stream>();
    auto server = weft::create_tcp_listener({.local_host = "127.0.0.1"});
    auto proxy = weft::create_tcp_listener({.local_host = "127.0.0.1"});
    std::uint16_t const port = server.extra(weft::socket_attribute::local_port);
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] { serve(proxy, weft::as_connectable("127.0.0.1", port)); });
        group.start_soon([&] {
            server.serve([&](weft::socket_stream accepted) { arrived.send.send(std::move(accepted)); });
        });
        for (bool const by_the_client : {true, false}) {
            weft::socket_stream client =
                weft::connect_tcp("127.0.0.1", proxy.extra(weft::socket_attribute::local_port));
            weft::socket_stream accepted = arrived.receive.receive();
            weft::socket_stream& reset = by_the_client ? client : accepted;
            weft::socket_stream& other = by_the_client ? accepted : client;
            reset.send("partial");
            expect(weft::buffered_byte_receive_stream(other).receive_exactly(7) == "partial", "what came before");
            reset_when_closed(reset);
            reset.close();
            bool told = false;
            try {
                other.receive();
            } catch (weft::end_of_stream const&) {
            } catch (weft::broken_resource_error const&) {
                told = true;
            }
            expect(told, "a reset is passed on as one");
        }
        group.cancel("enough");
    });
}

void try_out() {
    auto server = weft::create_tcp_listener({.local_host = "127.0.0.1"});
    auto proxy = weft::create_tcp_listener({.local_host = "127.0.0.1"});
    std::uint16_t const port = server.extra(weft::socket_attribute::local_port);
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] { server.serve(answer_at_the_end); });
        group.start_soon([&] { serve(proxy, weft::as_connectable("127.0.0.1", port)); });
        weft::socket_stream client =
            weft::connect_tcp("127.0.0.1", proxy.extra(weft::socket_attribute::local_port));
        std::string const question = std::string(300'000, 'a') + "z";
        client.send(question);
        client.send_eof();
        std::string answer;
        for (weft::bytes const& chunk : client)
            answer += chunk;
        expect(answer.size() == question.size() && answer.starts_with("za"), "all of it came back");
        group.cancel("enough");
    });
}

std::optional<std::uint16_t> port_in(std::string_view text) {
    std::uint16_t port = 0;
    auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return port;
}

int refuse(char const* argument, char const* why) {
    std::fprintf(stderr, "'%s' %s\n", argument, why);
    return 2;
}

} // namespace

int main(int argc, char** argv) try {
    if (argc == 1) {
        weft::run([] { weft::fail_after(5min, try_out); });
        weft::run([] { weft::fail_after(5min, try_reset); });
        return 0;
    }
    if (argc != 4) return std::fprintf(stderr, "usage: %s [PORT HOST PORT]\n", argv[0]), 2;
    auto const port = port_in(argv[1]);
    auto const target = port_in(argv[3]);
    if (!port) return refuse(argv[1], "is no port");
    if (argv[2][0] == '\0') return refuse(argv[2], "is no host");
    if (!target || *target == 0) return refuse(argv[3], "is no port to connect to");
    weft::run([&] { serve_until_interrupted(*port, weft::as_connectable(argv[2], *target)); });
} catch (std::exception const& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
}
