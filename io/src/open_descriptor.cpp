#include <weft/io/detail/open_descriptor.hpp>

#include "io_state.hpp"

#include <weft/io/error.hpp>
#include <weft/runtime/detail/fork.hpp>
#include <weft/runtime/lowlevel.hpp>

#include <system_error>

#include <unistd.h>

// Why a receive may skip its first system call (expects_nothing()).
//
//   reader                                            kernel, poller
//   Q1  prepare(): READY consumed                     K1  data arrives: an edge
//   Q2  read gives less than was asked for: at that   K2  dispatch: hung_up, then READY
//       moment the queue was empty
//   Q3  next receive: not READY? wait at once
//
//   What arrives after Q2 makes an edge after Q2, hence READY after Q1: Q3 sees it, or publish()
//   does. Before the first registration there are no edges; then EPOLL_CTL_ADD tells what is ready.
//   Not to be trusted: the end of the stream, which may come with the data and has then no edge of
//   its own (hung_up, set before the READY that Q1 consumed); TCP's urgent mark, where reading
//   stops with more behind it (EPOLLPRI counts as hung_up); UNIX sockets, where it stops between
//   messages with descriptors or from different senders; anything else than TCP. A recv that would
//   find nothing costs 0.3 us of 7 us for a request and its answer.

namespace weft::detail {

namespace {

void leave(io_state& state, access how) noexcept {
    if (!state.users.leave(descriptor_word<>::word(how))) return;
    if (!is_forked_child()) // there the poller is the parent's, and so is the registration
        unregister(state);  // close(2) alone would not, if the descriptor was duplicated
    ::close(state.fd);
    state.given_back.store(true, std::memory_order_release); // pairs with close_completely()
    release_io_state(state);
}

} // namespace

open_descriptor::open_descriptor(unique_fd&& fd, bool stops_only_when_empty)
    : state_(take_io_state(fd.get())) {
    if (state_ == nullptr)
        throw std::system_error(ENOMEM, std::system_category(),
                                "no memory for a descriptor's state");
    fd.release();
    state_->trusts_short_reads = stops_only_when_empty;
}

// Who is woken may destroy this object at once (M15): nothing of it is touched after that.
void open_descriptor::close() noexcept {
    io_state* const state = state_;
    if (state == nullptr || !state->users.begin_close()) return; // D1
    wake_waiters(*state, wake_reason::closed);                   // D2
    leave(*state, access::look);                                 // D3
}

// Those inside have been woken, and on their way out they wait for nothing.
void open_descriptor::close_completely() {
    if (state_ == nullptr || current_fiber() == nullptr) return close();
    struct reference {
        io_state& state;
        explicit reference(io_state& of) : state(of) {
            state.references.fetch_add(1, std::memory_order_relaxed); // the owner's keeps it here
        }
        ~reference() { release_io_state(state); }
    } const own(*state_);
    close();
    while (!own.state.given_back.load(std::memory_order_acquire)) // pairs with leave()
        lowlevel::cancel_shielded_checkpoint();
}

void open_descriptor::give_up() noexcept {
    if (state_ == nullptr) return;
    close();
    release_io_state(*std::exchange(state_, nullptr));
}

descriptor_use::descriptor_use(open_descriptor const& of, access how, char const* action)
    : state_(of.state_), of_(&of), fd_(-1), access_(how) {
    if (state_ == nullptr) throw closed_resource_error();
    switch (state_->users.enter(descriptor_word<>::word(how))) { // O1
    case descriptor_word<>::entry::closed:
        throw closed_resource_error();
    case descriptor_word<>::entry::busy:
        throw busy_resource_error(action);
    case descriptor_word<>::entry::entered:
        fd_ = state_->fd;
    }
}

descriptor_use::~descriptor_use() {
    leave(*state_, access_); // O3
}

// A close sets `closing` before it signals: who consumes its signal sees it, and who does not is
// found waiting by it.
void descriptor_use::prepare() {
    if (access_ == access::read) state_->read.consume(); // R1
    if (access_ == access::write) state_->write.consume();
    if (state_->users.is_closing()) throw closed_resource_error();
}

void descriptor_use::wait(char const* what) {
    readiness_word<>& word = access_ == access::read ? state_->read : state_->write;
    register_once(*state_, access_ == access::write);
    parking wait(what); // R2
    auto const reference = wait.reference().encode();
    if (!word.publish(reference)) { // R3
        if (!wait.withdraw() && wait.reason() == wake_reason::cancelled)
            throw_cancelled(wait.owner());
        return;
    }
    wake_reason const why = wait.suspend_before_use_of(of_); // R4
    // Cold after a long wait. The answer needs the one, the next wait the other, and the system call in
    // between gives them time to come: with 10,000 connections that is 4 to 8 % of a request.
    __builtin_prefetch(of_);
    __builtin_prefetch(&wait.owner().index);
    word.withdraw(reference);               // R5
    if (why == wake_reason::cancelled) throw_cancelled(wait.owner());
    if (why == wake_reason::closed) throw closed_resource_error();
}

bool descriptor_use::expects_nothing() const noexcept {
    return state_->read_was_short && !state_->read.is_ready(); // Q3
}

void descriptor_use::note_read(std::size_t asked, std::size_t got) noexcept {
    state_->read_was_short =
        state_->trusts_short_reads && got != 0 && got < asked &&
        !state_->hung_up.load(std::memory_order_relaxed); // came with READY, Q1
}

int descriptor_use::broken() const noexcept {
    return state_->broken.load(std::memory_order_relaxed); // a value
}

void descriptor_use::set_broken(int error) noexcept {
    state_->broken.store(error, std::memory_order_relaxed); //  "
}

} // namespace weft::detail
