// A proxy: every connection is passed on to another server, octet by octet, in both directions, and
// each end for itself.
//
//   weft-example-tcp_proxy                     tries itself out
//   weft-example-tcp_proxy PORT HOST PORT      until it is interrupted

#include <weft/weft.hpp>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>

using namespace std::chrono_literals;

namespace {

void pass_on(weft::byte_receive_stream& from, weft::byte_stream& to) {
    std::array<std::byte, 16384> chunk;
    while (std::size_t const count = from.receive_some(chunk))
        to.send(std::span(chunk).first(count));
    to.send_eof();
}

void relay(weft::socket_stream client, weft::any_connectable& target) {
    try {
        weft::any_byte_stream server = target.connect();
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { pass_on(client, server); });
            pass_on(server, client);
        });
    } catch (weft::connection_failed const& failure) {
        std::fprintf(stderr, "%s\n", failure.what());
    } catch (weft::exception_group const& failures) {
        failures.handle([](weft::broken_resource_error const&) {}); // one of the two is gone
    }
}

void serve(weft::multi_listener<weft::socket_stream>& listener, weft::any_connectable target) {
    weft::serve(
        listener, [&](weft::socket_stream client) { relay(std::move(client), target); },
        {.drain = 1s});
}

void serve_until_interrupted(std::uint16_t port, std::string host, std::uint16_t target) {
    auto listener = weft::create_tcp_listener({.local_host = "127.0.0.1", .local_port = port});
    auto signals = weft::open_signal_receiver({SIGINT, SIGTERM});
    std::fprintf(stderr, "ready %u\n", unsigned(listener.extra(weft::socket_attribute::local_port)));
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] { serve(listener, weft::as_connectable(host, target)); });
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

std::uint16_t port_from(char const* text) {
    int const number = std::atoi(text);
    if (number < 0 || number > 65535) throw std::invalid_argument("no port: " + std::string(text));
    return std::uint16_t(number);
}

} // namespace

int main(int argc, char** argv) try {
    if (argc == 1)
        weft::run([] { weft::fail_after(20s, try_out); });
    else if (argc == 4)
        weft::run([&] { serve_until_interrupted(port_from(argv[1]), argv[2], port_from(argv[3])); });
    else
        return std::fprintf(stderr, "usage: %s [PORT HOST PORT]\n", argv[0]), 2;
} catch (std::exception const& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
}
