#include "tls_connection.hpp"

#include <weft/io/error.hpp>
#include <weft/runtime/cancel_scope.hpp>
#include <weft/runtime/detail/parking.hpp>
#include <weft/runtime/detail/swallowed.hpp>

#include <algorithm>
#include <stdexcept>
#include <system_error>
#include <vector>

// Two tasks may use a stream, one for each direction, but there is one engine. Each call is a loop:
//
//   1. under lock_, let the engine do what it can; see whether it put something out
//   2. send what it put out, under sending_
//   3. if it wants input, receive some, under feeding_, unless somebody else has meanwhile
//
// The writer takes sending_ before it encrypts: cancelled while it waits for its turn, it has done
// nothing. Whoever has held sending_ looks again after letting go, so what the other one put out
// meanwhile is not left lying.
//
// The reader has only something to send if the peer made it: an alert (the refusal to renegotiate, in
// TLS 1.2), a certificate asked for after the handshake, the answer to an update of keys. Who sends
// that, so that two sides that both send and ask a lot do not wait for each other, and memory stays
// small:
//
//   A1  The reader never waits for sending_: while somebody else sends, it reads on.
//   A2  If nobody sends, it sends its answers itself, and reads nothing until they are out. A peer that
//       asks and does not receive thereby stops itself.
//   A3  But in TLS 1.3 a server's reader leaves them to the next send, as RFC 8446, 4.6.3 allows (it
//       answers nothing but updates of keys), until they are `most_owed`: it may be that it never
//       sends. So of two peers, both of whose ways are full, one still reads. In TLS 1.2 neither of
//       two peers of ours asks for anything.
//   A4  What A1 lets pile up is bounded in the engine: then the stream is broken. To wait there for
//       sending_ instead would be to wait for a peer that may be waiting for us to read.
//
// OpenSSL answers an update of keys with the next record that it writes, or when the next one comes.
// A server's tickets wait for the next send, too: they share a segment with its first words, and a
// client that leaves without reading does not lose what it said to a reset.
//
// When the transport fails to send, the stream is mute: what the peer had said, its good-bye
// perhaps, is received all the same, as from a socket. Any other failure breaks both directions.

namespace weft::detail {

namespace {

constexpr std::size_t most_at_once = 65536; // octets encrypted, and then sent; four records
constexpr std::size_t least_read = 4096;
constexpr std::size_t most_read = 131072;
constexpr std::size_t record = 16384;
constexpr std::size_t most_owed = 65536; // octets of answers; 2,400 updates of keys

[[noreturn]] void throw_broken_by(std::exception_ptr const& cause, char const* what) {
    try {
        std::rethrow_exception(cause);
    } catch (...) { // nested
        std::throw_with_nested(broken_resource_error(what));
    }
}

std::exception_ptr nest(std::exception_ptr const& cause, char const* what) {
    try {
        throw_broken_by(cause, what);
    } catch (broken_resource_error const&) {
        return std::current_exception();
    }
}

// What the transport threw, as this stream says it.
std::exception_ptr translate(std::exception_ptr const& cause) {
    try {
        std::rethrow_exception(cause);
    } catch (std::system_error const&) {
        return nest(cause, "the stream under TLS has failed");
    } catch (std::exception const&) { // closed, broken: its own words say it
        return cause;
    }
}

std::optional<resource_guard::entry> enter_if_free(resource_guard& direction) {
    try {
        return direction.enter();
    } catch (busy_resource_error const&) {
        return {};
    }
}

struct set_when_left {
    event& it;
    ~set_when_left() { it.set(); }
};

// What was noted, again and again.
void rethrow_if(std::exception_ptr const& noted) {
    if (!noted) return;
    try {
        std::rethrow_exception(noted);
    } catch (broken_resource_error const&) {
        throw;
    } catch (closed_resource_error const&) { // of the transport's owner
        throw;
    } catch (...) { // nested
        throw_broken_by(std::current_exception(), "the TLS stream is broken");
    }
}

} // namespace

void drop(any_byte_stream& stream) {
    try {
        close_forcefully(stream);
    } catch (std::exception const&) { // it is closed all the same (R2)
    }
}

tls_connection::tls_connection(any_byte_stream&& transport, tls_context context, bool server_side,
                               std::string const& hostname, bool standard_compatible)
    : standard_compatible_(standard_compatible), engine_(std::move(context), server_side, hostname),
      transport_(std::move(transport)) {}

tls_connection::~tls_connection() {
    if (!standard_compatible_ && !broken_) engine_.leave_in_good_order();
}

void tls_connection::check_open() const {
    if (closed_.load(std::memory_order_acquire)) // pairs with close() and unwrap()
        throw closed_resource_error("the TLS stream is closed");
}

// Under the lock, as where close() begins: whom that finds inside came before, and is not about to
// be told that the stream is closed. What is closed is not busy, while close() says good-bye and
// is inside, too.
resource_guard::entry tls_connection::enter(resource_guard& direction) {
    std::lock_guard const guard(lock_);
    check_open();
    return direction.enter();
}

void tls_connection::note_broken(std::exception_ptr const& cause) {
    std::lock_guard const guard(lock_);
    if (!broken_) broken_ = cause;
    engine_.outgoing.clear();
}

void tls_connection::note_mute(std::exception_ptr const& cause) {
    std::lock_guard const guard(lock_);
    if (!mute_) mute_ = cause;
    engine_.outgoing.clear();
}

bool tls_connection::is_mute() const {
    std::lock_guard const guard(lock_);
    return mute_ != nullptr;
}

bool tls_connection::peer_has_shut_down() const {
    std::lock_guard const guard(lock_);
    return engine_.peer_has_shut_down();
}

template <class Call> tls_engine::outcome tls_connection::attempt(Call call, std::uint64_t& feeds) {
    std::lock_guard const guard(lock_);
    rethrow_if(broken_);
    no_waiting const ban; // for callbacks that users have given OpenSSL
    tls_engine::outcome after = call(engine_);
    if (after.is_unexpected_end) // somebody may have cut the connection off
        after.error = nest(after.error, "the peer ended the connection without a TLS close_notify");
    if (after.is == tls_engine::state::failed) broken_ = after.error;
    feeds = feeds_;
    return after;
}

void tls_connection::fail(tls_engine::outcome const& after) {
    try { // the alert tells the peer why
        if (after.has_output && !after.is_unexpected_end) flush_if_free();
    } catch (std::exception const&) { // the first error counts
    }
    std::rethrow_exception(after.error);
}

// Gives `done`, or `ended` with and, where that is allowed, without a close_notify.
template <class Call>
tls_engine::outcome tls_connection::pump(Call call, void (tls_connection::*flush)()) {
    for (;;) {
        std::uint64_t feeds = 0;
        tls_engine::outcome const after = attempt(call, feeds);
        if (after.is == tls_engine::state::failed) fail(after);
        try {
            if (after.has_output) (this->*flush)();
        } catch (cancelled const&) { // the next call throws it again
            if (after.count == 0) throw;
            note_cancellation_handled(*current_fiber());
        }
        if (after.is != tls_engine::state::wants_input) return after;
        if (!feed(feeds)) return {.is = tls_engine::state::ended};
    }
}

// Gets new input, unless somebody else has since. False: there will be none, and the engine is not
// told, so that it still works; told, it would take it for an attack.
bool tls_connection::feed(std::uint64_t seen) {
    std::unique_lock const turn(feeding_);
    buffer room;
    {
        std::lock_guard const guard(lock_);
        if (feeds_ != seen) return true;
        // The engine has used up everything, so nobody touches the queue until there is more.
        engine_.incoming.shrink(read_size_);
        room = engine_.incoming.room(read_size_).first(read_size_);
    }
    std::size_t const count = receive_input(room);
    if (count == read_size_) // there is more
        read_size_ = std::min(2 * read_size_, most_read);
    else if (count < read_size_ / 4) // the memory is better used elsewhere
        read_size_ = std::max(read_size_ / 2, least_read);
    if (count == 0 && !standard_compatible_) return false;
    std::lock_guard const guard(lock_);
    engine_.incoming.grew(count);
    engine_.input_has_ended = count == 0;
    ++feeds_;
    return true;
}

std::size_t tls_connection::receive_input(buffer room) {
    try {
        return transport_.receive_some(room);
    } catch (std::exception const&) { // cancelled, it took nothing
        std::exception_ptr const cause = translate(std::current_exception());
        note_broken(cause);
        std::rethrow_exception(cause);
    }
}

bool tls_connection::has_output() const {
    std::lock_guard const guard(lock_);
    return !engine_.outgoing.empty();
}

void tls_connection::flush_if_free() {
    do {
        if (!sending_.try_lock()) return; // whoever has it looks again
        std::unique_lock const turn(sending_, std::adopt_lock);
        send_output();
    } while (has_output());
}

bool tls_connection::owes_much() const {
    std::lock_guard const guard(lock_);
    return engine_.outgoing.size() >= most_owed;
}

// A3
bool tls_connection::answers_can_wait() const {
    return engine_.server_side() && is_tls_1_3() && !owes_much();
}

// The reader's. That they cannot be sent is noted; what counts is what the peer has said.
void tls_connection::flush_answers() {
    if (answers_can_wait()) return;
    try {
        flush_if_free();
    } catch (std::exception const&) { // the next send() says so
    }
}

// Under sending_.
void tls_connection::send_output() {
    for (;;) {
        check_cancellation("TLS send"); // as long as that breaks nothing
        {
            std::lock_guard const guard(lock_);
            if (engine_.outgoing.empty()) return;
            if (mute_) engine_.outgoing.clear();
            rethrow_if(mute_);
            std::swap(engine_.outgoing, in_flight_);
        }
        send_in_flight();
        bool const was_little = in_flight_.size() < least_read;
        in_flight_.clear();
        if (was_little) in_flight_.shrink(record); // of somebody who sent much, once
    }
}

// In the middle of a record, for all we know, whatever it throws.
void tls_connection::send_in_flight() {
    try {
        transport_.send(in_flight_.view());
    } catch (std::exception const&) {
        std::exception_ptr const cause = translate(std::current_exception());
        in_flight_.clear();
        note_mute(cause);
        std::rethrow_exception(cause);
    } catch (...) { // cancelled
        note_broken(std::make_exception_ptr(
            broken_resource_error("a call was cancelled in the middle of a TLS record")));
        throw;
    }
}

void tls_connection::handshake() {
    tls_engine::outcome const after = pump([](tls_engine& engine) { return engine.handshake(); });
    if (after.is == tls_engine::state::ended)
        throw end_of_stream("the peer ended the connection during the TLS handshake");
}

// Somebody has closed the stream meanwhile: that wins over what came of it.
template <class Call> auto tls_connection::unless_closed(Call call) -> decltype(call()) {
    try {
        return call();
    } catch (broken_resource_error const&) {
        check_open();
        throw;
    }
}

std::size_t tls_connection::receive_some(buffer target) {
    if (target.empty()) throw std::invalid_argument("there is no room in the buffer");
    auto const inside = enter(reading_);
    enter_blocking_call("TLS receive");
    auto const read = [target](tls_engine& engine) { return engine.read(target); };
    return unless_closed([&] {
        std::size_t const count = pump(read, &tls_connection::flush_answers).count;
        if (count == 0) check_open(); // it may be the peer's answer to our own good-bye
        return count;
    });
}

void tls_connection::send(bytes_view data) {
    auto const inside = enter(writing_);
    enter_blocking_call("TLS send");
    unless_closed([&] { encrypt(data); });
}

void tls_connection::send(std::span<bytes_view const> parts) {
    auto const inside = enter(writing_);
    enter_blocking_call("TLS send");
    unless_closed([&] { encrypt_parts(parts); });
}

void tls_connection::encrypt_parts(std::span<bytes_view const> parts) {
    std::vector<std::byte> small; // parts that share a record
    for (bytes_view const part : parts) {
        bool const is_small = part.size() <= record / 2;
        if (!is_small || small.size() + part.size() > record) {
            encrypt(bytes_view(small));
            small.clear();
        }
        if (is_small)
            small.insert(small.end(), part.begin(), part.end());
        else
            encrypt(part);
    }
    encrypt(bytes_view(small));
}

// By rounds: others get in between, and memory stays small.
void tls_connection::encrypt(bytes_view data) {
    while (!data.empty()) {
        bytes_view const now = data.subview(0, most_at_once);
        encrypt_at_once(now);
        if (has_output()) flush_if_free(); // of the reader's, who found sending_ taken
        data = data.subview(now.size());
    }
}

void tls_connection::encrypt_at_once(bytes_view data) {
    std::unique_lock turn(sending_);
    check_cancellation("TLS send"); // as long as nothing has been encrypted
    if (owes_much()) send_output(); // of sends that were cancelled: A4 would take it for answers
    for (;;) {
        std::uint64_t feeds = 0;
        auto const write = [this, data](tls_engine& engine) {
            rethrow_if(mute_);
            if (engine.has_shut_down()) // OpenSSL's refusal would break receiving, too
                throw broken_resource_error("nothing can be sent after an unwrap() was begun");
            return engine.write(data);
        };
        tls_engine::outcome const after = attempt(write, feeds);
        if (after.is == tls_engine::state::failed) {
            turn.unlock(); // fail() may want it
            fail(after);
        }
        send_output();
        if (after.is == tls_engine::state::done) return;
        if (!feed(feeds)) throw broken_resource_error("the peer has ended the connection");
    }
}

void tls_connection::update_keys() {
    std::lock_guard const guard(lock_);
    check_open();
    if (::SSL_version(engine_.native()) < TLS1_3_VERSION)
        throw std::logic_error("before TLS 1.3 keys cannot be updated");
    engine_.wants_key_update = true;
}

bool tls_connection::is_tls_1_3() const {
    std::lock_guard const guard(lock_);
    return ::SSL_version(engine_.native()) >= TLS1_3_VERSION;
}

// A peer that has said good-bye need not hear ours any more, and may have gone. So if ours is the
// first that does not get through, its own may still lie there. Whoever knew before that the stream
// is mute does not wait for that.
void tls_connection::say_goodbye() {
    auto const shut_down = [](tls_engine& engine) { return engine.shut_down(); };
    bool const was_mute = is_mute();
    std::exception_ptr failure;
    try {
        pump(shut_down);
        return;
    } catch (broken_resource_error const&) {
        failure = std::current_exception();
    }
    if (!was_mute && is_mute()) {
        try {
            pump(shut_down, &tls_connection::flush_answers);
        } catch (std::exception const&) { // the first one counts
        }
    }
    if (!peer_has_shut_down()) std::rethrow_exception(failure);
}

std::pair<any_byte_stream, bytes> tls_connection::unwrap() {
    auto const no_reader = enter(reading_);
    auto const no_writer = enter(writing_);
    enter_blocking_call("TLS unwrap");
    unless_closed([this] { say_goodbye(); });
    std::lock_guard const guard(lock_);
    check_open();
    bytes left = engine_.incoming.take(engine_.incoming.size()); // without memory close() is still to come
    closed_.store(true, std::memory_order_release); // pairs with close() and check_open()
    is_unwrapped_ = true;
    return {std::move(transport_), std::move(left)};
}

// Of close() and unwrap() the first to say that the stream is closed has the transport to itself:
// to close it here, or to give it away. A close() that comes while the first one says good-bye
// waits for that; but one that is cancelled meanwhile, or that cannot wait, does not leave the
// transport to a peer that says nothing: it closes it, and the first one ends, too.
void tls_connection::close() {
    set_when_left const told{has_closed_};
    try {
        if (!leave()) return;
    } catch (std::exception const&) {
        drop(transport_);
        if (!is_cut_short()) throw; // else it has become what was wanted
        return;
    } catch (...) { // a cancellation, thrown again
        drop(transport_);
        throw;
    }
    transport_.close();
}

void tls_connection::abandon() noexcept {
    {
        std::lock_guard const guard(lock_);
        if (is_unwrapped_ || has_closed_.is_set()) return;
        is_cut_short_ = closed_.exchange(true, std::memory_order_acq_rel); // unwrap(), check_open()
    }
    set_when_left const told{has_closed_};
    try {
        if (current_fiber() == nullptr) return transport_.close();
        cancel_scope at_once({.shield = true});
        cancel_because(at_once, "the TLS stream was destroyed");
        at_once.run([this] { transport_.close(); });
    } catch (...) { // a destructor has nobody to tell; it is closed all the same (R2)
    }
}

// False: the stream is closed already. Somebody who sends has it in the middle of a record, and
// somebody who receives would take the peer's good-bye: closing the transport wakes them.
bool tls_connection::leave() {
    bool const may_wait = current_fiber() != nullptr; // outside of a run nobody hears a good-bye
    std::optional<resource_guard::entry> no_writer;
    std::optional<resource_guard::entry> no_reader;
    bool is_first = false;
    {
        std::lock_guard const guard(lock_); // enter()
        if (is_unwrapped_) return false;
        is_first = !closed_.exchange(true, std::memory_order_acq_rel); // unwrap(), check_open()
        if (is_first) {
            no_writer = enter_if_free(writing_);
            no_reader = enter_if_free(reading_);
        }
    }
    if (!is_first) return !wait_until_closed(may_wait);
    if (!standard_compatible_ || !no_writer || !may_wait) return true;
    if (no_reader)
        say_goodbye();
    else
        send_goodbye();
    return true;
}

// False: it is still to be closed.
bool tls_connection::wait_until_closed(bool may_wait) {
    if (has_closed_.is_set()) return true; // also outside of a run
    if (!may_wait) {
        cut_short();
        return false;
    }
    try {
        has_closed_.wait();
    } catch (...) { // cancelled
        cut_short();
        throw;
    }
    return true;
}

void tls_connection::cut_short() {
    std::lock_guard const guard(lock_);
    is_cut_short_ = true;
}

bool tls_connection::is_cut_short() const {
    std::lock_guard const guard(lock_);
    return is_cut_short_;
}

// Without waiting for the peer's.
void tls_connection::send_goodbye() {
    std::uint64_t feeds = 0;
    try {
        if (attempt([](tls_engine& engine) { return engine.shut_down(); }, feeds).has_output)
            flush_if_free();
    } catch (broken_resource_error const&) {
        if (!peer_has_shut_down()) throw;
    }
}

} // namespace weft::detail
