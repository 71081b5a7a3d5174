// A memcached: what one client stores, all others find. Both protocols on one port.
//
//   weft-example-memcached          tries itself out
//   weft-example-memcached PORT     until it is interrupted

#include "protocol.hpp"

#include <weft/weft.hpp>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

using namespace std::chrono_literals;

namespace {

void attend(weft::socket_stream connection, memcached::store& items) {
    try {
        std::string const first = connection.receive(1);
        weft::buffered_byte_stream client(std::move(connection));
        client.feed_data(first);
        bool const binary = static_cast<unsigned char>(first[0]) == memcached::binary_request;
        (binary ? memcached::speak_binary : memcached::speak_text)(client, items);
        client.send_eof();
    } catch (weft::end_of_stream const&) {         // the client wanted nothing
    } catch (weft::incomplete_read const&) {       // or has ended
    } catch (weft::delimiter_not_found const&) {   // or does not speak the protocol
    } catch (weft::broken_resource_error const&) { // or is gone
    }
}

void serve(weft::multi_listener<weft::socket_stream>& listener, memcached::store& items) {
    weft::serve(listener, [&](weft::socket_stream client) { attend(std::move(client), items); },
                {.drain = 0s, .on_stragglers = [](auto const&) {}});
}

void serve_until_interrupted(std::uint16_t port) {
    auto listener = weft::create_tcp_listener({.local_host = "127.0.0.1", .local_port = port});
    auto signals = weft::open_signal_receiver({SIGINT, SIGTERM});
    memcached::store items;
    std::fprintf(stderr, "ready %u\n",
                 unsigned(listener.extra(weft::socket_attribute::local_port)));
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] { serve(listener, items); });
        signals.receive();
        group.cancel("interrupted");
    });
}

void expect_answer(weft::buffered_byte_stream& server, std::string_view question,
                   std::string_view expected) {
    server.send(question);
    std::string const got = server.receive_exactly(expected.size());
    if (got != expected) throw std::runtime_error("to '" + std::string(question) + "': " + got);
}

// A client that says all it has to say at once, and of what it is sent keeps the sizes.
class measured_client final : public weft::byte_stream {
public:
    explicit measured_client(std::string says) : says_(std::move(says)) {}

    std::size_t receive_some(weft::buffer target) override {
        std::size_t const count = std::min(target.size(), says_.size() - said_);
        std::memcpy(target.data(), says_.data() + said_, count);
        said_ += count;
        return count;
    }
    void send(weft::bytes_view data) override {
        longest = std::max(longest, data.size());
        all += data.size();
    }
    void send_eof() override {}
    void close() override {}

    std::size_t longest = 0;
    std::size_t all = 0;

private:
    std::string says_;
    std::size_t said_ = 0;
};

void try_many_long_answers() {
    constexpr std::size_t length = 1'000'000, questions = 100;
    memcached::store items;
    items.put("k", {std::string(length, 'v')}, memcached::when::always);
    std::string line = "get";
    for (std::size_t each = 0; each < questions; ++each)
        line += " k";
    measured_client client(line + "\r\nquit\r\n");
    weft::buffered_byte_stream connection(client);
    memcached::speak_text(connection, items);
    if (client.all < length * questions) throw std::runtime_error("not all is answered");
    if (client.longest > length + 100'000) throw std::runtime_error("all is answered at once");
}

void try_out() {
    try_many_long_answers();
    using namespace std::string_view_literals;
    auto listener = weft::create_tcp_listener({.local_host = "127.0.0.1"});
    std::uint16_t const port = listener.extra(weft::socket_attribute::local_port);
    memcached::store items;
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] { serve(listener, items); });
        weft::buffered_byte_stream text(weft::connect_tcp("127.0.0.1", port));
        expect_answer(text, "set key 7 0 4\r\n\r\n\r\n\r\n", "STORED\r\n");
        expect_answer(text, "gets key none\r\n", "VALUE key 7 4 1\r\n\r\n\r\n\r\nEND\r\n");
        expect_answer(text, "cas key 7 0 1 2\r\n9\r\n", "EXISTS\r\n");
        expect_answer(text, "cas key 7 0 1 1\r\n9\r\n", "STORED\r\n");
        expect_answer(text, "incr key 1\r\ndecr key 11\r\n", "10\r\n0\r\n");
        expect_answer(text, "nonsense\r\n", "ERROR\r\n");
        for (char const* const length : {"x", "-1", "18446744073709551615"})
            expect_answer(text, "set key 0 0 " + std::string(length) + "\r\n",
                          "CLIENT_ERROR bad command line format\r\n");
        weft::buffered_byte_stream binary(weft::connect_tcp("127.0.0.1", port));
        expect_answer(binary, // get
                      "\x80\0\0\x03\0\0\0\0\0\0\0\x03\0\0\0\x2a\0\0\0\0\0\0\0\0key"sv,
                      "\x81\0\0\0\x04\0\0\0\0\0\0\x05\0\0\0\x2a\0\0\0\0\0\0\0\x04\0\0\0\x07"
                      "0"sv);
        expect_answer(binary, // an operation that there is not
                      "\x80\xf0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"sv,
                      "\x81\xf0\0\0\0\0\0\x81\0\0\0\x0f\0\0\0\0\0\0\0\0\0\0\0\0Unknown command"sv);
        binary.send(std::string(24, 'x')); // no request at all
        text.send("quit\r\n");
        std::byte octet[1];
        if (text.receive_some(octet) + binary.receive_some(octet) != 0)
            throw std::runtime_error("there is more to read than the answers");
        group.cancel("enough");
    });
}

} // namespace

int main(int argc, char** argv) try {
    std::uint16_t port = 0;
    if (argc > 1) {
        char const* const end = argv[1] + std::strlen(argv[1]);
        auto const [last, error] = std::from_chars(argv[1], end, port);
        if (argc > 2 || error != std::errc() || last != end)
            return std::fprintf(stderr, "usage: %s [PORT]\n", argv[0]), 2;
    }
    if (argc == 1)
        weft::run([] { weft::fail_after(5min, try_out); });
    else
        weft::run([&] { serve_until_interrupted(port); });
} catch (std::exception const& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
}
