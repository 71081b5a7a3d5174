#include <weft/streams/tcp.hpp>

#include <weft/io/detail/raw_address.hpp>
#include <weft/io/error.hpp>
#include <weft/io/resolver.hpp>
#include <weft/runtime/task_group.hpp>

#include <algorithm>
#include <exception>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <system_error>
#include <vector>

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

namespace weft {

namespace {

using detail::raw_address;

[[noreturn]] void fail(int error, char const* call, socket_address const& with) {
    throw std::system_error(error, std::system_category(),
                            std::string(call) + " " + with.to_string());
}

unique_fd make_socket(socket_address const& remote, socket_address const* local) {
    unique_fd fd(::socket(remote.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd) fail(errno, "socket for", remote);
    int const on = 1;
    ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (local == nullptr) return fd;
    if (local->port() != 0) ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    raw_address const from(*local);
    if (::bind(fd.get(), from.get(), from.length) != 0) fail(errno, "bind", *local);
    return fd;
}

// Becoming writable says that connecting has ended, and SO_ERROR how; but a wake-up may be stale,
// and then there is neither an error nor a peer.
void finish_connecting(detail::descriptor_use& use, socket_address const& remote) {
    for (;;) {
        use.wait("connect_tcp");
        use.prepare();
        int error = 0;
        ::socklen_t length = sizeof error;
        ::getsockopt(use.fd(), SOL_SOCKET, SO_ERROR, &error, &length);
        if (error != 0) fail(error, "connect to", remote);
        raw_address peer;
        if (::getpeername(use.fd(), peer.get(), &peer.length) == 0) return;
    }
}

socket_stream connect_to(socket_address const& remote, socket_address const* local) {
    detail::open_descriptor descriptor(make_socket(remote, local), true);
    {
        detail::descriptor_use use(descriptor, detail::access::write, "connecting");
        detail::enter_blocking_call("connect_tcp");
        use.prepare();
        raw_address const to(remote);
        if (::connect(use.fd(), to.get(), to.length) != 0) {
            int const error = errno;
            if (error != EINPROGRESS && error != EINTR) fail(error, "connect to", remote);
            finish_connecting(use, remote); // interrupted, it goes on by itself
        }
    }
    return socket_stream(
        detail::connected_socket(std::move(descriptor), remote.family(), remote));
}

// The attempts of one connect_tcp(): the first that connects wins, the rest is cancelled.
class race {
public:
    void attempt(task_group& attempts, socket_address const& remote, socket_address const* local) {
        try {
            socket_stream connected = connect_to(remote, local);
            std::lock_guard const guard(mutex_);
            if (winner_) return; // another one was faster; this one is closed
            winner_.emplace(std::move(connected));
        } catch (std::system_error const& failure) { // of this attempt; kept for the report
            std::lock_guard const guard(mutex_);
            if (failures_.empty()) first_code_ = failure.code();
            failures_.push_back(std::current_exception());
            return;
        }
        detail::cancel_because(attempts.cancel_scope(), "another attempt to connect succeeded");
    }

    bool is_won() {
        std::lock_guard const guard(mutex_);
        return winner_.has_value();
    }

    socket_stream result(std::string const& host, std::uint16_t port) { // when all have ended
        if (winner_) return *std::move(winner_);
        try {
            throw exception_group("every attempt to connect failed", std::move(failures_));
        } catch (exception_group const&) {
            std::throw_with_nested(
                connection_failed(first_code_, "cannot connect to " + host + " port " +
                                                   std::to_string(port)));
        }
    }

private:
    std::mutex mutex_; // attempts run at the same time; never held across a suspension
    std::optional<socket_stream> winner_;
    std::vector<std::exception_ptr> failures_;
    std::error_code first_code_;
};

// The first IPv6 address first, then the first IPv4 one, the rest as the resolver has it.
void put_one_of_each_first(std::vector<socket_address>& found) {
    auto const first_of = [&found](auto from, int family) {
        return std::find_if(from, found.end(), [family](socket_address const& address) {
            return address.family() == family;
        });
    };
    auto place = found.begin();
    for (int const family : {AF_INET6, AF_INET})
        if (auto const first = first_of(place, family); first != found.end()) {
            std::rotate(place, first, first + 1);
            ++place;
        }
}

std::vector<socket_address> addresses_of(std::string const& host, std::uint16_t port, int family) {
    std::vector<socket_address> result;
    for (address_info& info : getaddrinfo(host, std::to_string(port),
                                          {.family = family, .type = SOCK_STREAM}))
        result.push_back(std::move(info.address));
    if (result.empty()) throw std::system_error(EAI_NONAME, resolver_category(), host);
    put_one_of_each_first(result);
    return result;
}

std::optional<socket_address> local_address(connect_options const& options) {
    if (!options.local_host.empty())
        return addresses_of(options.local_host, options.local_port, AF_UNSPEC).front();
    if (options.local_port != 0) throw std::invalid_argument("local_port needs local_host");
    return std::nullopt;
}

// Of one attempt. When another one wins, this one may end before the caller hears of it.
void wait_for_end(task_handle<void> const& attempt) {
    try {
        attempt.wait();
    } catch (task_cancelled const&) { // another one won
    }
}

} // namespace

socket_stream connect_tcp(std::string host, port_number port, connect_options options) {
    if (host.empty()) throw std::invalid_argument("there is no host to connect to");
    detail::require_fiber("connect_tcp");
    std::optional<socket_address> const local = local_address(options);
    socket_address const* const from = local ? &*local : nullptr;
    std::vector<socket_address> const remotes =
        addresses_of(host, port, local ? local->family() : AF_UNSPEC);
    race contest;
    with_task_group([&](task_group& attempts) {
        for (socket_address const& remote : remotes) {
            auto const running = attempts.create_task(
                [&contest, &attempts, &remote, from] { contest.attempt(attempts, remote, from); });
            if (&remote != &remotes.back())
                move_on_after(options.happy_eyeballs_delay, [&running] { wait_for_end(running); });
            if (contest.is_won()) break;
        }
    });
    return contest.result(host, port);
}

} // namespace weft
