#pragma once

#include "tls_engine.hpp"

#include <weft/runtime/detail/parking.hpp>
#include <weft/runtime/this_task.hpp>
#include <weft/streams/any_byte_stream.hpp>
#include <weft/sync/event.hpp>
#include <weft/sync/mutex.hpp>
#include <weft/sync/resource_guard.hpp>

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>

namespace weft::detail {

/// For what is called with a lock held. An OS thread may wait: it holds up no worker.
class no_waiting {
public:
    no_waiting() {
        if (current_fiber() != nullptr) ban_.emplace();
    }

private:
    std::optional<no_suspend> ban_;
};

/// Closes what is under TLS that has failed or was cancelled: that is told, not what closing throws.
void drop(any_byte_stream&);

/// A TLS stream that stays where it is; the members are those of tls_stream.
class tls_connection {
public:
    tls_connection(any_byte_stream&& transport, tls_context context, bool server_side,
                   std::string const& hostname, bool standard_compatible);
    tls_connection(tls_connection const&) = delete;
    tls_connection& operator=(tls_connection const&) = delete;
    ~tls_connection();

    void handshake();
    std::size_t receive_some(buffer target);
    void send(bytes_view data);
    void send(std::span<bytes_view const> parts);
    std::pair<any_byte_stream, bytes> unwrap();
    void update_keys();
    void close();
    /// The stream is destroyed while others may be inside: they and the peer hear of it, without a good-bye.
    void abandon() noexcept;
    attribute_map attributes() const;
    bool is_tls_1_3() const;

    /// After a handshake that failed.
    any_byte_stream take_transport() { return std::move(transport_); }

private:
    attribute_map attributes_of_transport() const;
    void check_open() const;
    resource_guard::entry enter(resource_guard& direction);
    template <class Call>
    tls_engine::outcome pump(Call call,
                             void (tls_connection::*flush)() = &tls_connection::flush_if_free);
    template <class Call> tls_engine::outcome attempt(Call call, std::uint64_t& feeds);
    [[noreturn]] void fail(tls_engine::outcome const&);
    bool feed(std::uint64_t seen);
    std::size_t receive_input(buffer room);
    bool has_output() const;
    bool owes_much() const;
    bool answers_can_wait() const;
    void flush_if_free();
    void flush_answers();
    void send_output();
    void send_in_flight();
    template <class Call> auto unless_closed(Call call) -> decltype(call());
    void encrypt(bytes_view data);
    void encrypt_parts(std::span<bytes_view const> parts);
    void encrypt_at_once(bytes_view data);
    void say_goodbye();
    void send_goodbye();
    bool leave();
    bool wait_until_closed(bool may_wait);
    void cut_short();
    bool is_cut_short() const;
    void note_broken(std::exception_ptr const& cause);
    void note_mute(std::exception_ptr const& cause);
    bool is_mute() const;
    bool peer_has_shut_down() const;

    bool const standard_compatible_;
    std::atomic<bool> closed_ = false;
    event has_closed_; // the transport, too
    resource_guard reading_{"reading from"};
    resource_guard writing_{"writing to"};

    // Held by whoever sends what is in the engine's output, so that it leaves in the order in which
    // it was encrypted; then by whoever fills the engine's input. Neither is taken while lock_ is
    // held.
    mutex sending_{{.fast_acquire = true}};
    mutex feeding_{{.fast_acquire = true}};
    octet_queue in_flight_;        // under sending_
    std::size_t read_size_ = 4096; // under feeding_

    mutable std::mutex lock_; // of all below; never held across a suspension
    tls_engine engine_;
    std::uint64_t feeds_ = 0;   // how often there was new input
    bool is_unwrapped_ = false; // the transport has been given away
    bool is_cut_short_ = false; // by a close() that did not wait for the first one
    std::exception_ptr broken_; // why this is of no use any more
    std::exception_ptr mute_;   // why nothing can be sent any more

    any_byte_stream transport_; // the last: who gave it still has it if the engine cannot be made
};

} // namespace weft::detail
