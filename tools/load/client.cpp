#include "client.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/time.hpp>
#include <weft/streams/tcp.hpp>
#include <weft/sync/event.hpp>
#include <weft/sync/latch.hpp>
#include <weft/sync/semaphore.hpp>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <sys/socket.h>
#include <vector>

namespace load {

namespace {

using namespace std::chrono_literals;

constexpr std::size_t connecting_at_once = 128; // a backlog is finite
constexpr std::size_t local_addresses = 8;      // each has 28,000 ports to connect from
constexpr weft::duration patience = 30s;        // for the slowest answer

double seconds(weft::duration time) {
    return std::chrono::duration<double>(time).count();
}

weft::duration from_seconds(double value) {
    return std::chrono::duration_cast<weft::duration>(std::chrono::duration<double>(value));
}

class session {
public:
    session(options const& asked, outcome& result)
        : asked_(asked), result_(result), to_connect_(std::ptrdiff_t(asked.connections)),
          to_finish_(std::ptrdiff_t(asked.connections)) {}

    void run() {
        weft::time_point const start = weft::current_time();
        weft::with_task_group([&](weft::task_group& clients) {
            for (std::size_t number = 0; number < asked_.connections; ++number)
                clients.start_soon([this, number] { be_client(number); });
            to_connect_.wait();
            result_.connecting = seconds(weft::current_time() - start);
            from_ = weft::current_time() + from_seconds(asked_.warm_up);
            until_ = from_ + from_seconds(asked_.seconds);
            go_.set();
            weft::fail_after(until_ - weft::current_time() + patience, [&] { to_finish_.wait(); });
        });
        result_.measured = seconds(until_ - from_);
    }

private:
    void be_client(std::size_t number) {
        if (asked_.reconnect) return be_many_clients(number);
        weft::socket_stream connection = connect(number);
        reset_at_close(connection);
        to_connect_.count_down();
        go_.wait();
        talk(connection, number);
        to_finish_.count_down();
    }

    void be_many_clients(std::size_t number) {
        to_connect_.count_down();
        go_.wait();
        std::vector<std::byte> message(asked_.message_bytes), answer(asked_.message_bytes);
        weft::time_point begun = weft::current_time();
        for (std::uint64_t round = 0; begun < until_; ++round) {
            mark(message, std::uint64_t(number) << 32 | round);
            weft::socket_stream connection = connect(number);
            reset_at_close(connection);
            exchange(connection, message, answer);
            begun = count_since(begun);
        }
        to_finish_.count_down();
    }

    weft::socket_stream connect(std::size_t number) {
        turns_.acquire();
        weft::connect_options options;
        if (asked_.host == "127.0.0.1")
            options.local_host = "127.0.0." + std::to_string(1 + number % local_addresses);
        weft::socket_stream connection = weft::connect_tcp(asked_.host, asked_.port, options);
        turns_.release(); // not after a failure: that ends all of it
        return connection;
    }

    // The side that closes first keeps the port for a minute (TIME_WAIT); a reset does not.
    static void reset_at_close(weft::socket_stream& connection) {
        ::linger const reset{.l_onoff = 1, .l_linger = 0};
        ::setsockopt(connection.extra(weft::socket_attribute::raw_socket), SOL_SOCKET, SO_LINGER,
                     &reset, sizeof reset);
    }

    void talk(weft::socket_stream& connection, std::uint64_t number) {
        std::vector<std::byte> message(asked_.message_bytes), answer(asked_.message_bytes);
        weft::time_point sent = weft::current_time();
        for (std::uint64_t round = 0; sent < until_; ++round) {
            mark(message, number << 32 | round);
            exchange(connection, message, answer);
            sent = count_since(sent);
        }
    }

    static void exchange(weft::socket_stream& connection, std::vector<std::byte> const& message,
                         std::vector<std::byte>& answer) {
        connection.send(message);
        receive_exactly(connection, answer);
        if (message != answer) throw std::runtime_error("the server sent something else back");
    }

    // Gives the time that it is now.
    weft::time_point count_since(weft::time_point begun) {
        weft::time_point const now = weft::current_time();
        if (now >= from_ && now < until_)
            result_.latencies.add(std::uint64_t((now - begun).count()));
        return now;
    }

    // So that no two messages under way are the same, as far as there is room.
    static void mark(std::span<std::byte> message, std::uint64_t mark) {
        std::memcpy(message.data(), &mark, std::min(message.size(), sizeof mark));
    }

    static void receive_exactly(weft::socket_stream& connection, std::span<std::byte> rest) {
        while (!rest.empty()) {
            std::size_t const size = connection.receive_some(rest);
            if (size == 0) throw std::runtime_error("the server closed a connection");
            rest = rest.subspan(size);
        }
    }

    options const& asked_;
    outcome& result_;
    weft::semaphore turns_{connecting_at_once};
    weft::latch to_connect_;
    weft::latch to_finish_;
    weft::event go_;
    weft::time_point from_{}, until_{}; // known when go_ is set
};

} // namespace

void drive(options const& asked, outcome& result) {
    session(asked, result).run();
}

} // namespace load
