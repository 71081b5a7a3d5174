#include <weft/sync/portal.hpp>

#include <weft/runtime/blocking_region.hpp>
#include <weft/runtime/detail/fork.hpp>
#include <weft/runtime/error.hpp>

#include <exception>
#include <stdexcept>
#include <system_error>
#include <thread>

namespace weft {

void blocking_portal::refuse_own_tasks() const {
    detail::refuse_in_forked_child("a call of a portal");
    detail::fiber const* const self = detail::current_fiber();
    if (self != nullptr && self->runtime == run_)
        throw std::logic_error("a blocking_portal was called from a task of its own run");
    if (detail::is_kept_by_region(run_))
        throw std::logic_error("a blocking_portal was called inside a blocking_region that keeps a worker of the "
                               "portal's run (\"sim\", or tasks are pinned to it): nobody would answer");
}

void blocking_portal::refuse_if_stopped() const {
    if (!open_) throw run_finished_error("this portal is not running");
}

void blocking_portal::open() {
    std::lock_guard const guard(lock_);
    run_ = detail::require_fiber("blocking_portal").runtime;
    open_ = !stopped_.is_set();
}

// All under the lock: who is woken here may end the run and destroy the portal, but takes the lock before.
void blocking_portal::stop(bool cancel_remaining) {
    detail::refuse_in_forked_child("blocking_portal.stop"); // its lock may be nobody's
    std::lock_guard const guard(lock_);
    open_ = false;
    if (cancel_remaining) detail::cancel_because(group_.cancel_scope(), "the portal was stopped");
    stopped_.set();
}

namespace from_thread {

struct portal_handle::running {
    blocking_portal portal;
    std::thread thread;
    int exceptions_before = std::uncaught_exceptions();
    bool shared = false; // the tasks of others do not suffer from an exception here

    // In the thread of its own.
    void run(run_options const& options, promise<void> ready) {
        bool open = false;
        try {
            weft::run(options, [&] {
                portal.host([&] {
                    open = true;
                    ready.set_value();
                    portal.sleep_until_stopped();
                });
            });
        } catch (...) { // the run could not begin: told to who wants it
            if (!open) ready.set_exception(std::current_exception());
        }
    }
};

portal_handle::portal_handle(std::unique_ptr<running> of) : running_(std::move(of)) {}
portal_handle::portal_handle(portal_handle&&) noexcept = default;

portal_handle::~portal_handle() {
    if (running_ == nullptr) return;
    if (detail::is_forked_child()) { // the run and its thread are the parent's; that tasks are in it is no mistake
        static_cast<void>(running_.release());
        return;
    }
    stop(!running_->shared && std::uncaught_exceptions() > running_->exceptions_before);
    running_->thread.join();
}

blocking_portal& portal_handle::operator*() const noexcept {
    return running_->portal;
}

blocking_portal* portal_handle::operator->() const noexcept {
    return &running_->portal;
}

void portal_handle::stop(bool cancel_remaining) {
    running_->portal.stop(cancel_remaining);
}

portal_handle start_blocking_portal(run_options const& options) {
    detail::refuse_in_forked_child("from_thread::start_blocking_portal");
    auto made = std::make_unique<portal_handle::running>();
    promise<void> ready;
    future<void> const is_ready = ready.get_future();
    try {
        made->thread = std::thread([state = made.get(), options, ready = std::move(ready)]() mutable {
            state->run(options, std::move(ready));
        });
    } catch (std::system_error const& failure) {
        throw std::system_error(failure.code(), "start_blocking_portal: no thread for the run");
    }
    portal_handle handle(std::move(made));
    is_ready.get();
    return handle;
}

struct blocking_portal_provider::shared {
    std::mutex lock;
    run_options options;
    std::size_t users = 0;                 // under lock
    std::unique_ptr<portal_handle> portal; // under lock
};

blocking_portal_provider::blocking_portal_provider(run_options options)
    : shared_(std::make_shared<shared>()) {
    shared_->options = std::move(options);
}

// Waiting for the start would suspend a task with the lock held: the next one to acquire would block
// the worker that the first one needs.
blocking_portal_provider::lease blocking_portal_provider::acquire() {
    detail::refuse_in_forked_child("blocking_portal_provider.acquire"); // its lock may be nobody's
    if (detail::current_fiber() != nullptr)
        throw std::logic_error("a blocking_portal_provider was asked for its portal by a task");
    std::lock_guard const guard(shared_->lock); // the others wait for the first one's start
    if (shared_->users == 0) {
        shared_->portal = std::make_unique<portal_handle>(start_blocking_portal(shared_->options));
        shared_->portal->running_->shared = true;
    }
    ++shared_->users;
    return lease(shared_, *shared_->portal);
}

blocking_portal_provider::lease::lease(std::shared_ptr<shared> of, portal_handle& portal)
    : shared_(std::move(of)), portal_(&portal) {}

blocking_portal_provider::lease::~lease() {
    if (shared_ == nullptr || detail::is_forked_child()) return; // there the lock may be nobody's
    std::unique_ptr<portal_handle> last; // stopped without the lock: a new one may be started meanwhile
    std::lock_guard const guard(shared_->lock);
    if (--shared_->users == 0) last = std::move(shared_->portal);
}

blocking_portal& blocking_portal_provider::lease::operator*() const noexcept {
    return **portal_;
}

blocking_portal* blocking_portal_provider::lease::operator->() const noexcept {
    return &**portal_;
}

} // namespace from_thread
} // namespace weft
