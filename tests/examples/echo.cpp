// README's first program: what a client says comes back. Only the port is one that is free.

#include <weft/weft.hpp>

#include <array>
#include <cstdio>
#include <span>
#include <stdexcept>
#include <string>

using namespace std::chrono_literals;

void echo(weft::socket_stream stream) try {
    std::array<char, 4096> space;
    while (std::size_t const count = stream.receive_some(weft::as_buffer(space)))
        stream.send(std::span(space).first(count));
} catch (weft::broken_resource_error const&) {
    // This client is gone; what an echo throws would end the whole server.
}

namespace {

void expect(bool holds, char const* what) {
    if (!holds) throw std::runtime_error(what);
}

// The connection is reset: what was received is left unread.
void leave_in_the_middle(std::uint16_t port) {
    auto client = weft::connect_tcp("127.0.0.1", port);
    client.send(std::string(100'000, 'x'));
    client.receive();
}

void try_out(std::uint16_t port) {
    auto first = weft::connect_tcp("127.0.0.1", port);
    leave_in_the_middle(port);
    auto second = weft::connect_tcp("127.0.0.1", port);
    second.send("hello");
    first.send("and hello");
    expect(first.receive() == "and hello" && second.receive() == "hello", "to each what it said");

    std::string const much(10'000'000, 'y'); // more than the way there and back has room for
    std::string came;
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] {
            first.send(much);
            first.send_eof();
        });
        for (std::string const& part : first)
            came += part;
    });
    expect(came == much, "all of it, and then the end");
}

} // namespace

int main() try {
    weft::run([] {
        auto listener = weft::create_tcp_listener({.local_host = "127.0.0.1"});
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { listener.serve(echo); });
            weft::fail_after(5min, [&] { try_out(listener.extra(weft::socket_attribute::local_port)); });
            group.cancel("enough");
        });
    });
} catch (std::exception const& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
}
