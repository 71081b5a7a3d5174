#include "chaos.hpp"

#include <weft/io/error.hpp>
#include <weft/runtime/exception_group.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/time.hpp>
#include <weft/streams/tcp.hpp>

#include <chrono>
#include <span>
#include <sys/socket.h>
#include <utility>
#include <vector>

namespace stress {

namespace {

using std::chrono::microseconds;

constexpr std::byte faithful{'f'}; // the first octet of a connection says how the server treats it
constexpr std::byte abrupt{'a'};

// What clients do to servers is no concern of the server, and the other way round.
template <class Body> void bear_with_the_peer(Body&& body) {
    try {
        body();
    } catch (weft::broken_resource_error const&) {
    } catch (weft::exception_group const& several) {
        several.handle([](weft::broken_resource_error const&) {});
    }
}

void echo(weft::socket_stream& client, random_source& random) {
    std::vector<std::byte> chunk(random.between(1, 70'000));
    bool first = true;
    std::uint64_t patience = ~std::uint64_t(0);
    while (std::size_t const size = client.receive_some(chunk)) {
        if (std::exchange(first, false) && chunk[0] == abrupt) patience = random.below(4);
        if (patience-- == 0) return; // with octets unread: the client is reset
        if (random.one_in(16)) wait_somehow(random);
        client.send(std::span(chunk).first(size));
        progress();
    }
    if (random.one_in(2)) client.send_eof();
}

/// A client's side of one connection, with a stream of octets that both ends can compute.
class conversation {
public:
    conversation(std::uint16_t port, random_source random, std::byte kind)
        : random_(random), kind_(kind), stream_(weft::connect_tcp("127.0.0.1", port)) {
        if (random_.one_in(2)) reset_at_close();
        stream_.send(std::span(&kind, 1));
        require(receive_exactly(1)[0] == kind, "octets come back as they were sent");
    }

    // Both directions at once: the buffers of the kernel are smaller than the message.
    void exchange() {
        std::size_t const size = random_.between(1, random_.one_in(8) ? 1'000'000 : 5'000);
        std::uint64_t const seed = random_();
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { send_pattern(seed, size); });
            check_pattern(seed, size);
        });
        progress();
    }

    void converse() {
        for (std::uint64_t i = random_.below(10); i > 0; --i)
            exchange();
        if (random_.one_in(2)) {
            stream_.send_eof();
            std::byte rest;
            require(stream_.receive_some(std::span(&rest, 1)) == 0, "after the end nothing comes");
        }
    }

    // Somebody else closes it under the receiver.
    void be_closed() {
        bool told = false;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([this] {
                wait_somehow(random_);
                stream_.close();
            });
            try {
                std::byte octet;
                stream_.receive_some(std::span(&octet, 1));
            } catch (weft::closed_resource_error const&) {
                told = true;
            }
        });
        require(told, "who waits for a stream that is closed is told");
        progress();
    }

private:
    void reset_at_close() {
        linger const reset{.l_onoff = 1, .l_linger = 0};
        setsockopt(stream_.extra(weft::socket_attribute::raw_socket), SOL_SOCKET, SO_LINGER, &reset,
                   sizeof reset);
    }

    static std::byte octet_of(std::uint64_t seed, std::size_t place) {
        return std::byte(seed >> (place % 8 * 8)) ^ std::byte(place / 251);
    }

    void send_pattern(std::uint64_t seed, std::size_t size) {
        random_source pieces(seed);
        std::vector<std::byte> piece;
        for (std::size_t sent = 0; sent < size; sent += piece.size()) {
            piece.resize(std::min<std::size_t>(size - sent, pieces.between(1, 100'000)));
            for (std::size_t i = 0; i < piece.size(); ++i)
                piece[i] = octet_of(seed, sent + i);
            stream_.send(piece);
        }
    }

    void check_pattern(std::uint64_t seed, std::size_t size) {
        std::vector<std::byte> chunk(50'000);
        for (std::size_t got = 0; got < size;) {
            std::size_t const some =
                stream_.receive_some(std::span(chunk).first(std::min(chunk.size(), size - got)));
            require(some != 0 || kind_ == abrupt, "a faithful server does not close first");
            if (some == 0) throw weft::broken_resource_error();
            for (std::size_t i = 0; i < some; ++i)
                require(chunk[i] == octet_of(seed, got + i), "octets come back in the order of sending");
            got += some;
        }
    }

    std::vector<std::byte> receive_exactly(std::size_t size) {
        std::vector<std::byte> all(size);
        for (std::size_t got = 0; got < size;) {
            std::size_t const some = stream_.receive_some(std::span(all).subspan(got));
            if (some == 0) throw weft::broken_resource_error();
            got += some;
        }
        return all;
    }

    random_source random_;
    std::byte const kind_;
    weft::socket_stream stream_;
};

void be_client(std::uint16_t port, random_source random) {
    switch (random.below(5)) {
    case 0: // gives up in the middle of anything
        weft::move_on_after(microseconds(random.below(5000)), [&] {
            conversation(port, random.split(), faithful).converse();
        });
        return;
    case 1:
        return conversation(port, random.split(), faithful).be_closed();
    case 2:
        return bear_with_the_peer([&] {
            conversation(port, random.split(), abrupt).converse();
        });
    default:
        conversation(port, random.split(), faithful).converse();
    }
}

} // namespace

void socket_storm(trial& now) {
    auto const clients = now.random.between(1, 100 / slowdown);
    auto const times = now.random.between(1, 10);
    std::atomic<std::int64_t> handlers = 0;
    now.run([&] {
        auto listener = weft::create_tcp_listener({.local_host = "127.0.0.1"});
        auto const port = listener.extra(weft::socket_attribute::local_port);
        weft::with_task_group([&](weft::task_group& server) {
            server.start_soon([&] {
                listener.serve([&](weft::socket_stream client) {
                    token const counted;
                    ++handlers;
                    random_source random(std::uint64_t(handlers) ^ now.seed);
                    bear_with_the_peer([&] { echo(client, random); });
                    --handlers;
                });
            });
            weft::with_task_group([&](weft::task_group& group) {
                for (std::uint64_t i = 0; i < clients; ++i)
                    group.start_soon([&, random = now.random.split()]() mutable {
                        for (std::uint64_t turn = 0; turn < times; ++turn)
                            be_client(port, random.split());
                    });
            });
            server.cancel("the clients have gone");
        });
    });
}

} // namespace stress
