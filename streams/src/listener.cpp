#include <weft/streams/listener.hpp>

#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/this_task.hpp>

#include <algorithm>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <utility>

// Whose turn it is to accept, where several listeners share the places for max_connections.
//
//   A place is taken before a connection is, so that none is accepted which has to wait: cancelled
//   there it would be lost (KL9), and it is better off in the kernel's queue, where the next server
//   finds it. But who waits for a client must not keep a place meanwhile: with as many silent
//   listeners as there are places nobody would be served. So a place is held only while it is
//   tried, without suspension, to accept:
//
//     P1  wait for a place, behind those who came before
//     P2  accept without waiting: there is a connection, it gets the place
//     P3  there is none: give the place back, to who has waited longest, and wait for a client
//     P4  a client: take a place if one is free and nobody waits for it, P2; else P1
//
//   No wake-up is lost. P3 gives back what P1 was given, so a place goes through the queue until
//   somebody has a client for it. P4 looks for a client again after P1 and does not rely on having
//   heard of one.
//
//   Rejected: to wait for a place without taking it. All have to be woken for each place then, and
//   with one worker the same listener is the first each time.
//
//   A listener of somebody else's that knows no places (connection_handler::start() with a
//   connection alone) may wait with a connection in hand. When it is cancelled there, the
//   connection is handled beyond the limit: the server drains, and there will be no more.

namespace weft::detail {

connection_gate::connection_gate(std::size_t most) : most_(most) {
    if (most == 0) throw std::invalid_argument("max_connections must not be 0");
}

void connection_gate::enter() {
    if (!try_enter()) wait_in(queue_.waiters, "serve: a connection to end");
}

bool connection_gate::try_enter() noexcept {
    queue_.lock();
    bool const free = queue_.waiters.empty() && inside_ < most_;
    if (free) ++inside_;
    queue_.unlock();
    return free;
}

void connection_gate::enter_beyond() noexcept {
    queue_.lock();
    ++inside_;
    queue_.unlock();
}

void connection_gate::leave() noexcept {
    queue_.lock();
    // Gets the place, unless it was one too many.
    wait_node* const next = inside_ <= most_ ? queue_.claim_front() : nullptr;
    if (next == nullptr && --inside_ == 0) wake_all(empty_);
    queue_.unlock();
    if (next != nullptr) wait_queue::deliver(*next);
}

void connection_gate::wake_all(wait_list& list) noexcept {
    while (wait_node* const node = list.pop_front()) {
        fiber& waiter = *node->waiter;
        std::uint64_t const epoch = node->epoch; // the node may be gone once the wait is won
        wake(waiter, epoch, wake_reason::event);
    }
}

void connection_gate::wait_until_empty() {
    wait_for(empty_, "serve: the last connections to end");
}

void connection_gate::wait_until_all_have_begun() {
    wait_for(all_begun_, "serve: the last connections to begin");
}

void connection_gate::wait_for(wait_list& list, char const* what) {
    queue_.lock();
    bool const is_so = is_free_for(list);
    queue_.unlock();
    if (is_so) return; // also when there is no time to wait
    enter_blocking_call(what);
    wait_in(list, what);
}

void connection_gate::announce_task() noexcept {
    queue_.lock();
    ++announced_;
    queue_.unlock();
}

void connection_gate::settle_task() noexcept {
    queue_.lock();
    if (--announced_ == 0) wake_all(all_begun_);
    queue_.unlock();
}

void connection_gate::wait_in(wait_list& list, char const* what) {
    parking wait(what);
    wait_node node(wait);
    queue_.lock();
    if (is_free_for(list)) {
        if (&list == &queue_.waiters) ++inside_;
        queue_.unlock();
        wait.withdraw(); // a canceller that is first changes nothing: the place is ours
        return;
    }
    list.push_back(node);
    queue_.unlock();
    if (wait.suspend() != wake_reason::cancelled) return;
    queue_.lock();
    list.remove(node);
    queue_.unlock();
    throw_cancelled(wait.owner());
}

void connection_gate::add_task(std::uint64_t id) {
    std::lock_guard const guard(mutex_);
    tasks_.insert(id);
}

void connection_gate::remove_task(std::uint64_t id) noexcept {
    std::lock_guard const guard(mutex_);
    tasks_.erase(id);
}

std::vector<std::uint64_t> connection_gate::tasks() const {
    std::lock_guard const guard(mutex_);
    return {tasks_.begin(), tasks_.end()};
}

void connection_place::wait() {
    if (taken_) return;
    if (gate_ != nullptr) gate_->enter();
    taken_ = true;
}

bool connection_place::try_take() noexcept {
    if (!taken_) taken_ = gate_ == nullptr || gate_->try_enter();
    return taken_;
}

void connection_place::take_beyond() noexcept {
    if (!taken_ && gate_ != nullptr) gate_->enter_beyond();
    taken_ = true;
}

void connection_place::give_back() noexcept {
    if (std::exchange(taken_, false) && gate_ != nullptr) gate_->leave();
}

void connection_place::announce_task() noexcept {
    if (gate_ == nullptr) return;
    gate_->announce_task();
    is_announced_ = true;
}

connection_place::counted_task::counted_task(connection_place& of) : gate_(of.gate_) {
    if (gate_ == nullptr) return;
    id_ = this_task::id();
    gate_->add_task(id_);
    of.settle();
}

connection_place::counted_task::~counted_task() {
    if (gate_ != nullptr) gate_->remove_task(id_);
}

namespace {

void report_stragglers(connection_gate const& gate, serve_options const& options) {
    std::vector<std::uint64_t> const left = gate.tasks();
    std::vector<task_info> stragglers = get_running_tasks();
    std::erase_if(stragglers, [&left](task_info const& task) {
        return !std::ranges::binary_search(left, task.id);
    });
    if (stragglers.empty()) return; // all have ended meanwhile
    if (options.on_stragglers) return options.on_stragglers(std::move(stragglers));
    std::ostringstream text;
    text << "weft: serve() cancels " << stragglers.size()
         << " connections that did not end in time\n";
    for (task_info const& task : stragglers)
        text << "  task " << task.id << " '" << task.name << "', waiting in " << task.waiting_on
             << '\n';
    std::cerr << text.str() << std::flush;
}

// Until accepting has ended, by whatever way. The loop uses the group that we are in, so nothing
// leaves before it has.
void wait_for(task_handle<void> const& accepting) {
    try {
        accepting.wait();
    } catch (task_cancelled const&) { // the server was cancelled: the reason to be here
    } catch (task_failed const&) {    // leaves with the group of the loop
    } catch (...) {                   // a handler failed
        accepting.cancel();
        shielded([&accepting] { wait_for(accepting); });
        throw;
    }
}

} // namespace

// Three scopes: the loop that accepts sees the cancellation from around; the handlers are behind a
// shield until the time to drain is over; and whoever fails takes the rest along.
void run_server(connection_gate& gate, serve_options const& options,
                std::function<void(task_group&)> const& accept_all) {
    with_task_group([&](task_group& server) {
        shielded([&] {
            with_task_group([&](task_group& handlers) {
                wait_for(server.create_task([&] { accept_all(handlers); }));
                gate.newcomers.close();
                if (move_on_after(options.drain, [&gate] { gate.wait_until_empty(); })) return;
                gate.wait_until_all_have_begun(); // else they would not be named
                report_stragglers(gate, options);
                detail::cancel_because(handlers.cancel_scope(), "the time to drain is over");
            });
        });
    });
    lowlevel::checkpoint_if_cancelled();
}

} // namespace weft::detail
