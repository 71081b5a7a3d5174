#include "chaos.hpp"
#include "tests/streams/certificates.hpp"

#include <weft/io/error.hpp>
#include <weft/runtime/exception_group.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/streams/memory_network.hpp>
#include <weft/streams/tls.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <openssl/err.h>

namespace stress {

namespace {

using std::chrono::microseconds;
using weft::memory_network;
using weft::tls_stream;

constexpr std::uint16_t port = 443;

weft::tls_context const& server_context() {
    static weft::tls_context const made = [] {
        auto const& files = weft::test::certificates::get().server;
        return weft::tls_context::server(files.chain, files.key);
    }();
    return made;
}

weft::tls_context const& client_context() {
    static weft::tls_context const made =
        weft::tls_context::client({.ca_file = weft::test::certificates::get().authority.chain});
    return made;
}

void expect_no_errors_of_openssl() {
    require(::ERR_peek_error() == 0, "nothing is left in OpenSSL's error queue");
}

// Where connections break that is no concern of the storm. Never: a tls_error, as if the peer spoke
// something else.
template <class Body> void bear_with_the_network(Body body) {
    try {
        body();
    } catch (weft::broken_resource_error const&) {
    } catch (weft::closed_resource_error const&) {
    } catch (weft::end_of_stream const&) {
    } catch (weft::exception_group const& several) {
        several.handle([](weft::broken_resource_error const&) {},
                       [](weft::closed_resource_error const&) {},
                       [](weft::end_of_stream const&) {});
    }
    expect_no_errors_of_openssl();
}

void echo(tls_stream& stream, random_source& random) {
    std::vector<std::byte> chunk(random.between(1, 70'000));
    while (std::size_t const size = stream.receive_some(chunk)) {
        if (random.one_in(16)) stream.update_keys();
        if (random.one_in(32)) wait_somehow(random);
        if (random.one_in(200)) return; // without a good-bye
        stream.send(std::span(chunk).first(size));
        progress();
    }
    stream.close();
}

std::byte octet_of(std::uint64_t seed, std::size_t place) {
    return std::byte(seed >> (place % 8 * 8)) ^ std::byte(place / 251);
}

void send_pattern(tls_stream& to, std::uint64_t seed, std::size_t size) {
    random_source pieces(seed);
    std::vector<std::byte> piece;
    for (std::size_t sent = 0; sent < size; sent += piece.size()) {
        piece.resize(std::min<std::size_t>(size - sent, pieces.between(1, 40'000)));
        for (std::size_t i = 0; i < piece.size(); ++i)
            piece[i] = octet_of(seed, sent + i);
        if (pieces.one_in(8)) to.update_keys();
        to.send(piece);
    }
}

void check_pattern(tls_stream& from, std::uint64_t seed, std::size_t size) {
    std::vector<std::byte> chunk(20'000);
    for (std::size_t got = 0; got < size;) {
        std::size_t const some =
            from.receive_some(std::span(chunk).first(std::min(chunk.size(), size - got)));
        if (some == 0) throw weft::end_of_stream();
        for (std::size_t i = 0; i < some; ++i)
            require(chunk[i] == octet_of(seed, got + i),
                    "octets come back in the order of sending");
        got += some;
    }
}

void look_at(tls_stream const& stream) {
    namespace attribute = weft::tls_attribute;
    require(stream.extra(attribute::tls_version) == "TLSv1.3", "the version is known");
    require(stream.extra(weft::socket_attribute::remote_port, 1) != 0, "and what is underneath");
}

// Both directions at once, somebody who asks for attributes, somebody who receives in vain.
void exchange(tls_stream& stream, random_source& random) {
    std::size_t const size = random.between(1, random.one_in(8) ? 300'000 : 5'000);
    std::uint64_t const seed = random();
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] { send_pattern(stream, seed, size); });
        group.start_soon([&stream] { look_at(stream); });
        check_pattern(stream, seed, size);
    });
    weft::move_on_after(microseconds(random.below(50)), [&] {
        std::byte octet;
        if (stream.receive_some(std::span(&octet, 1)) != 0)
            violation("nobody has sent anything more");
    });
    progress();
}

void be_closed(tls_stream& stream, random_source& random) {
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&, random = random.split()]() mutable {
            wait_somehow(random);
            stream.close();
        });
        std::byte octet;
        stream.receive_some(std::span(&octet, 1));
    });
}

void converse(memory_network& network, random_source& random) {
    bear_with_the_network([&] {
        tls_stream stream = tls_stream::wrap(
            network.connect(port), {.hostname = "localhost", .context = client_context()});
        for (std::uint64_t i = random.below(5); i > 0; --i)
            exchange(stream, random);
        switch (random.below(4)) {
        case 0: return; // without a good-bye
        case 1: return be_closed(stream, random);
        case 2: stream.unwrap(); return;
        default: stream.close();
        }
    });
}

// What is no TLS, or not all of it.
void be_nobody(memory_network& network, random_source& random) {
    bear_with_the_network([&] {
        auto stream = network.connect(port);
        stream.send(std::string(random.below(400), char(random())));
        if (random.one_in(2)) stream.reset();
    });
}

void be_client(memory_network& network, random_source random) {
    switch (random.below(6)) {
    case 0: return be_nobody(network, random);
    case 1:
    case 2: // gives up in the middle of anything
        weft::move_on_after(microseconds(random.below(20'000)), [&] { converse(network, random); });
        return;
    default: return converse(network, random);
    }
}

weft::memory_network_options weather_from(random_source& random) {
    weft::memory_network_options options{.seed = random()};
    if (random.one_in(2)) options.most_delay = microseconds(random.below(300));
    if (random.one_in(2)) options.largest_piece = random.between(1, 30'000);
    if (random.one_in(2)) options.capacity = random.between(1, 100'000);
    if (random.one_in(4)) options.reset_probability = 0.01;
    return options;
}

} // namespace

void tls_storm(trial& now) {
    auto const clients = now.random.between(1, 24 / slowdown + 1);
    auto const times = now.random.between(1, 4);
    std::atomic<std::uint64_t> number = 0;
    now.run([&] {
        memory_network network(weather_from(now.random));
        weft::tls_listener listener(network.listen(port), server_context());
        listener.handle_handshake_error(
            [](std::exception_ptr, weft::any_byte_stream& raw) { weft::close_forcefully(raw); });
        weft::with_task_group([&](weft::task_group& server) {
            server.start_soon([&] {
                listener.serve([&](tls_stream stream) {
                    token const counted;
                    random_source random(++number ^ now.seed);
                    bear_with_the_network([&] { echo(stream, random); });
                });
            });
            weft::with_task_group([&](weft::task_group& group) {
                for (std::uint64_t i = 0; i < clients; ++i)
                    group.start_soon([&, random = now.random.split()]() mutable {
                        for (std::uint64_t turn = 0; turn < times; ++turn)
                            be_client(network, random.split());
                    });
            });
            server.cancel("the clients have gone");
        });
    });
}

} // namespace stress
