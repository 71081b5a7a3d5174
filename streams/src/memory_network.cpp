#include <weft/streams/memory_network.hpp>

#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/detail/parking.hpp>
#include <weft/streams/detail/closable_wait.hpp>
#include <weft/sync/event.hpp>
#include <weft/sync/resource_guard.hpp>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <system_error>

namespace weft {

namespace detail {

namespace {

constexpr std::uint16_t first_free_port = 49152; // RFC 6335
constexpr std::uint16_t last_free_port = 65535;
constexpr std::size_t most_waiting = 128; // connections that nobody has accepted

duration some_delay(memory_network_options const& options, std::mt19937_64& random) {
    std::uniform_int_distribution<duration::rep> between(
        options.least_delay.count(), std::max(options.least_delay, options.most_delay).count());
    return duration(between(random));
}

socket_address address_of(std::uint16_t port) {
    return socket_address(ip_address::parse("127.0.0.1"), port);
}

// What is closed is not busy: whom close() has woken is inside until he has run. `closed` is under
// the mutex.
resource_guard::entry enter(resource_guard& guard, std::mutex& mutex, bool const& closed) {
    try {
        return guard.enter();
    } catch (busy_resource_error const&) {
        std::lock_guard const look(mutex);
        if (closed) throw closed_resource_error();
        throw;
    }
}

} // namespace

// A condition that is looked at under a std::mutex, and fibers that wait for it to change. Who waits makes what
// is waited for: announce() needs no memory, so that close() does not.
class network_change {
public:
    // Under the lock, which is let go meanwhile. Throws `cancelled` without the lock.
    void wait(std::unique_lock<std::mutex>& lock, time_point until = time_point::max()) {
        if (!next_) next_ = std::make_shared<event>();
        std::shared_ptr<event> const next = next_;
        lock.unlock();
        move_on_at(until, [&next] { next->wait(); });
        lock.lock();
    }
    // Under the lock.
    void announce() {
        if (auto const waited_for = std::exchange(next_, nullptr)) waited_for->set();
    }

private:
    std::shared_ptr<event> next_; // none: nobody waits
};

struct network_piece {
    bytes data;
    time_point arrives;
};

struct network_direction {
    std::deque<network_piece> pieces;
    std::size_t octets = 0;    // in them
    std::size_t taken = 0;     // of the first one
    time_point last_arrival{}; // nothing overtakes, the end neither
    bool is_ended = false;     // by the sender; last_arrival is the end's
    resource_guard reading{"reading from"};
    resource_guard writing{"writing to"};
};

struct network_link {
    network_link(memory_network_options const& wanted, std::uint64_t seed, std::uint16_t client,
                 std::uint16_t server)
        : options(wanted), random(seed), ports{client, server} {}

    std::size_t receive_some(int side, buffer target);
    void send(int side, bytes_view data);
    void send_eof(int side);
    void close(int side);
    void reset();

    time_point arrival(network_direction& on);
    bytes cut(bytes_view& data, std::size_t room);
    void end(int side);
    void check_usable(int side) const;

    memory_network_options const options;
    std::mutex mutex;
    network_change changed;
    std::mt19937_64 random;
    std::uint16_t const ports[2];
    network_direction from[2]; // what each side sends
    bool closed[2] = {false, false};
    bool is_broken = false;
};

// Under the lock, as all that follow.
void network_link::check_usable(int side) const {
    if (closed[side]) throw closed_resource_error();
    if (is_broken) throw broken_resource_error("the connection in memory was reset");
}

time_point network_link::arrival(network_direction& on) {
    on.last_arrival = std::max(on.last_arrival, current_time() + some_delay(options, random));
    return on.last_arrival;
}

bytes network_link::cut(bytes_view& data, std::size_t room) {
    std::size_t length = std::min(data.size(), room);
    if (length > 1 && options.largest_piece < data.size()) {
        std::uniform_int_distribution<std::size_t> some(1, options.largest_piece);
        length = std::min(length, some(random));
    }
    bytes piece = data.subview(0, length).to_bytes();
    data = data.subview(length);
    return piece;
}

std::size_t network_link::receive_some(int side, buffer target) {
    if (target.empty()) throw std::invalid_argument("there is no room in the buffer");
    network_direction& on = from[1 - side];
    auto const inside = enter(on.reading, mutex, closed[side]);
    enter_blocking_call("memory network receive");
    std::unique_lock lock(mutex);
    for (;;) {
        check_usable(side);
        bool const is_last = on.pieces.empty();
        if (is_last && !on.is_ended) {
            changed.wait(lock);
            continue;
        }
        time_point const arrives = is_last ? on.last_arrival : on.pieces.front().arrives;
        if (arrives > current_time()) {
            changed.wait(lock, arrives);
            continue;
        }
        if (is_last) return 0;
        network_piece& next = on.pieces.front();
        std::size_t const count = std::min(target.size(), next.data.size() - on.taken);
        std::memcpy(target.data(), next.data.data() + on.taken, count);
        on.taken += count;
        on.octets -= count;
        if (on.taken == next.data.size()) {
            on.pieces.pop_front();
            on.taken = 0;
        }
        changed.announce();
        return count;
    }
}

void network_link::send(int side, bytes_view data) {
    network_direction& on = from[side];
    auto const inside = enter(on.writing, mutex, closed[side]);
    enter_blocking_call("memory network send");
    std::unique_lock lock(mutex);
    for (;;) {
        check_usable(side);
        if (on.is_ended) throw broken_resource_error("this direction of the connection has ended");
        if (closed[1 - side])
            throw broken_resource_error("the other side has closed the connection");
        if (data.empty()) return;
        if (on.octets >= options.capacity) {
            changed.wait(lock);
            continue;
        }
        if (std::bernoulli_distribution(options.reset_probability)(random)) {
            is_broken = true;
        } else {
            bytes piece = cut(data, options.capacity - on.octets);
            std::size_t const size = piece.size();
            on.pieces.push_back({std::move(piece), arrival(on)});
            on.octets += size;
        }
        changed.announce();
    }
}

void network_link::end(int side) {
    network_direction& on = from[side];
    if (std::exchange(on.is_ended, true)) return;
    arrival(on); // the end's
    changed.announce();
}

void network_link::send_eof(int side) {
    auto const inside = enter(from[side].writing, mutex, closed[side]);
    std::lock_guard const lock(mutex);
    if (closed[side]) throw closed_resource_error();
    if (!is_broken) end(side); // else nobody is there who could hear of it (KS5)
}

void network_link::close(int side) {
    std::lock_guard const lock(mutex);
    if (std::exchange(closed[side], true)) return;
    end(side);
    changed.announce();
}

void network_link::reset() {
    std::lock_guard const lock(mutex);
    is_broken = true;
    changed.announce();
}

struct network_port {
    explicit network_port(std::uint16_t of) : number(of) {}

    void close();

    std::uint16_t const number;
    std::mutex mutex;
    network_change changed;
    std::deque<memory_network_stream> waiting;
    bool closed = false;
    resource_guard accepting{"accepting connections from"};
    closable_wait for_a_place;
};

void network_port::close() {
    for_a_place.close();
    std::unique_lock lock(mutex);
    if (std::exchange(closed, true)) return;
    for (memory_network_stream& each : waiting)
        each.reset();
    changed.announce();
    lock.unlock();
    waiting.clear(); // nobody else looks at them any more: destroyed outside of the lock
}

struct network_state {
    explicit network_state(memory_network_options const& wanted)
        : options(wanted), random(wanted.seed) {}

    std::uint16_t free_port();
    std::uint16_t free_port_to_listen_on();
    bool somebody_listens_on(std::uint16_t port) const;
    std::pair<memory_network_stream, memory_network_stream> link(std::uint16_t client,
                                                                 std::uint16_t server);
    static memory_network_listener listener(std::shared_ptr<network_port> port) {
        return memory_network_listener(std::move(port));
    }

    memory_network_options const options;
    std::mutex mutex;
    std::mt19937_64 random;
    std::map<std::uint16_t, std::weak_ptr<network_port>> ports;
    std::uint16_t last_port = first_free_port - 1;
};

// Under the lock. After the last one the first ones are free again, or taken anew: of connections
// nobody looks.
std::uint16_t network_state::free_port() {
    last_port = last_port == last_free_port ? first_free_port : std::uint16_t(last_port + 1);
    return last_port;
}

// Under the lock. 0: there is none.
std::uint16_t network_state::free_port_to_listen_on() {
    for (int left = last_free_port - first_free_port + 1; left != 0; --left)
        if (std::uint16_t const port = free_port(); !somebody_listens_on(port)) return port;
    return 0;
}

// Under the lock.
bool network_state::somebody_listens_on(std::uint16_t port) const {
    auto const found = ports.find(port);
    auto const known = found == ports.end() ? nullptr : found->second.lock();
    if (!known) return false;
    std::lock_guard const look(known->mutex);
    return !known->closed;
}

std::pair<memory_network_stream, memory_network_stream> network_state::link(std::uint16_t client,
                                                                            std::uint16_t server) {
    auto const made = std::make_shared<network_link>(options, random(), client, server);
    return {memory_network_stream(made, 0), memory_network_stream(made, 1)};
}

namespace {

// Kept by the caller until he is done: whom he wakes may destroy all who own it.
template <class Part> std::shared_ptr<Part> open(std::shared_ptr<Part> const& part) {
    if (!part) throw closed_resource_error(); // moved from
    return part;
}

} // namespace

} // namespace detail

memory_network_stream::memory_network_stream(std::shared_ptr<detail::network_link> link, int side)
    : link_(std::move(link)), side_(side) {}
memory_network_stream::memory_network_stream(memory_network_stream&&) noexcept = default;
memory_network_stream& memory_network_stream::operator=(memory_network_stream&& other) noexcept {
    if (this == &other) return *this;
    if (link_) link_->close(side_);
    link_ = std::move(other.link_);
    side_ = other.side_;
    return *this;
}
memory_network_stream::~memory_network_stream() {
    if (link_) link_->close(side_);
}

std::size_t memory_network_stream::receive_some(buffer target) {
    return detail::open(link_)->receive_some(side_, target);
}
void memory_network_stream::send(bytes_view data) { detail::open(link_)->send(side_, data); }
void memory_network_stream::send_eof() { detail::open(link_)->send_eof(side_); }
void memory_network_stream::reset() { detail::open(link_)->reset(); }
void memory_network_stream::close() {
    if (auto const link = link_) link->close(side_); // who is woken may destroy both ends
}

attribute_map memory_network_stream::extra_attributes() const {
    if (!link_) return {};
    std::uint16_t const here = link_->ports[side_];
    std::uint16_t const there = link_->ports[1 - side_];
    return {{socket_attribute::local_address, [here] { return detail::address_of(here); }},
            {socket_attribute::local_port, [here] { return here; }},
            {socket_attribute::remote_address, [there] { return detail::address_of(there); }},
            {socket_attribute::remote_port, [there] { return there; }}};
}

memory_network_listener::memory_network_listener(std::shared_ptr<detail::network_port> port)
    : port_(std::move(port)) {}
memory_network_listener::memory_network_listener(memory_network_listener&&) noexcept = default;
memory_network_listener&
memory_network_listener::operator=(memory_network_listener&& other) noexcept {
    if (this == &other) return *this;
    if (port_) port_->close();
    port_ = std::move(other.port_);
    return *this;
}
memory_network_listener::~memory_network_listener() {
    if (port_) port_->close();
}

memory_network_stream memory_network_listener::accept() {
    detail::connection_place unlimited(nullptr);
    auto const port = detail::open(port_);
    return *try_accept(*port, unlimited);
}

// None: there is no place. The labels are those of listener.cpp.
std::optional<memory_network_stream>
memory_network_listener::try_accept(detail::network_port& port, detail::connection_place& place) {
    auto const inside = detail::enter(port.accepting, port.mutex, port.closed);
    detail::enter_blocking_call("memory network accept");
    std::unique_lock lock(port.mutex);
    while (!port.closed && port.waiting.empty()) {
        place.give_back(); // P3
        port.changed.wait(lock);
    }
    if (port.closed) throw closed_resource_error();
    if (!place.try_take()) return {}; // P4
    std::optional<memory_network_stream> accepted(std::move(port.waiting.front()));
    port.waiting.pop_front();
    return accepted;
}

void memory_network_listener::close() {
    if (auto const port = port_) port->close(); // who is woken may destroy the listener
}

attribute_map memory_network_listener::extra_attributes() const {
    if (!port_) return {};
    std::uint16_t const port = port_->number;
    return {{socket_attribute::local_address, [port] { return detail::address_of(port); }},
            {socket_attribute::local_port, [port] { return port; }}};
}

void memory_network_listener::serve_connections(
    connection_handler<memory_network_stream> const& handler, task_group& group) {
    auto const port = detail::open(port_); // who closes may destroy the listener
    for (;;) {
        detail::connection_place place = handler.place();
        std::optional<memory_network_stream> accepted;
        while (!accepted) {
            if (!place.try_take()) port->for_a_place.run([&] { place.wait(); }); // P1
            accepted = try_accept(*port, place);
        }
        handler.start(group, *std::move(accepted), std::move(place));
    }
}

memory_network::memory_network(memory_network_options options)
    : state_(std::make_shared<detail::network_state>(options)) {
    if (options.least_delay < duration::zero() || options.most_delay < duration::zero())
        throw std::invalid_argument("a delay is negative");
    if (options.largest_piece == 0 || options.capacity == 0)
        throw std::invalid_argument("largest_piece and capacity must not be 0");
    if (!(options.reset_probability >= 0 && options.reset_probability <= 1))
        throw std::invalid_argument("reset_probability must be from 0 to 1");
}

memory_network_listener memory_network::listen(port_number wanted) {
    std::lock_guard const lock(state_->mutex);
    std::uint16_t port = wanted;
    if (port == 0) port = state_->free_port_to_listen_on();
    if (port == 0 || state_->somebody_listens_on(port))
        throw std::system_error(EADDRINUSE, std::system_category(),
                                "port " + std::to_string(wanted) + " of the network in memory");
    auto made = std::make_shared<detail::network_port>(port);
    state_->ports[port] = made;
    return state_->listener(std::move(made));
}

memory_network_stream memory_network::connect(port_number port) {
    auto const state = state_; // who accepts may destroy the network
    duration delay{};
    {
        std::lock_guard const lock(state->mutex);
        delay = detail::some_delay(state->options, state->random);
    }
    sleep(delay);
    std::unique_lock lock(state->mutex);
    auto const found = state->ports.find(port);
    auto const listening = found == state->ports.end() ? nullptr : found->second.lock();
    if (listening) {
        auto [here, there] = state->link(state->free_port(), port);
        std::lock_guard const look(listening->mutex);
        if (!listening->closed && listening->waiting.size() < detail::most_waiting) {
            listening->waiting.push_back(std::move(there));
            listening->changed.announce();
            return std::move(here);
        }
    }
    throw connection_failed(ECONNREFUSED, std::system_category(),
                            "nobody listens on port " + std::to_string(port) +
                                " of the network in memory");
}

std::pair<memory_network_stream, memory_network_stream> memory_network::make_pair() {
    std::lock_guard const lock(state_->mutex);
    std::uint16_t const client = state_->free_port();
    return state_->link(client, state_->free_port());
}

} // namespace weft
