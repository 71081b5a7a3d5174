#include <weft/runtime/context_var.hpp>

#include "context_values.hpp"
#include "runtime.hpp"

#include <weft/runtime/detail/fork.hpp>
#include <weft/runtime/detail/kept_context.hpp>

#include <atomic>
#include <utility>

namespace weft::detail {

namespace {

std::atomic<variable_key> variables_so_far = 0;

// The values of an OS thread that runs no task. Reached only by functions that do not switch. What static
// objects' destructors set, when the thread's variables are gone, stays.
constinit thread_local value_store const* own_values = nullptr;
struct end_of_thread {
    ~end_of_thread() { release_context(std::exchange(own_values, nullptr)); }
};

[[gnu::noinline]] value_store const*& thread_values() noexcept {
    thread_local end_of_thread end;
    value_store const** found = &own_values;
    asm volatile("" : "+r"(found) : : "memory");
    return *found;
}

value_store const*& values_here() noexcept {
    fiber* const self = current_fiber();
    return self != nullptr ? self->context_variables : thread_values();
}

runtime& run_here() {
    worker* const here = this_worker();
    if (here == nullptr) {
        refuse_in_forked_child("a run variable");
        throw no_event_loop_error("a run variable was used outside a run");
    }
    return here->run_of;
}

} // namespace

value_store const* inherit_context(fiber const* spawner) noexcept {
    value_store const* const from = spawner != nullptr ? spawner->context_variables : thread_values();
    if (from != nullptr) from->references.fetch_add(1, std::memory_order_relaxed); // we hold one
    return from;
}

void release_context(value_store const* store) noexcept {
    if (store != nullptr &&
        store->references.fetch_sub(1, std::memory_order_acq_rel) == 1) // pairs with other releases
        delete store;
}

void swap_with_thread(fiber& of) noexcept {
    std::swap(of.context_variables, thread_values());
}

kept_context::kept_context() noexcept : values_(inherit_context(current_fiber())) {}

kept_context::~kept_context() {
    release_context(values_);
}

context_in_use::context_in_use(kept_context const& of) noexcept {
    if (of.values_ != nullptr)
        of.values_->references.fetch_add(1, std::memory_order_relaxed); // `of` holds one
    before_ = std::exchange(values_here(), of.values_);
}

context_in_use::~context_in_use() {
    release_context(std::exchange(values_here(), before_));
}

variable_key new_variable_key() noexcept {
    return variables_so_far.fetch_add(1, std::memory_order_relaxed) + 1; // unique is enough
}

std::shared_ptr<void const> find_context_value(variable_key variable) {
    value_store const* const store = values_here();
    if (store == nullptr) return nullptr;
    auto const place = store->values.find(variable);
    return place == store->values.end() ? nullptr : place->second;
}

void put_context_value(variable_key variable, std::shared_ptr<void const> value) {
    value_store const*& store = values_here();
    auto changed = std::make_unique<value_store>();
    if (store != nullptr) changed->values = store->values;
    if (value != nullptr)
        changed->values[variable] = std::move(value);
    else
        changed->values.erase(variable);
    release_context(std::exchange(store, changed.release()));
}

std::shared_ptr<void const> find_run_value(variable_key variable) {
    runtime& run = run_here();
    std::lock_guard const guard(run.values_mutex);
    auto const place = run.values.find(variable);
    return place == run.values.end() ? nullptr : place->second;
}

// What was there before is destroyed without the lock: its destructor may use run variables.
void put_run_value(variable_key variable, std::shared_ptr<void const> value) {
    runtime& run = run_here();
    decltype(run.values)::node_type taken_out;
    std::lock_guard const guard(run.values_mutex);
    if (value != nullptr)
        run.values[variable].swap(value);
    else
        taken_out = run.values.extract(variable);
}

void throw_no_value(char const* kind, std::string const& name) {
    throw lookup_error(std::string(kind) + " '" + name + "' has no value and no default");
}

void throw_bad_token(bool used) {
    throw std::invalid_argument(used ? "this token has already been used"
                                     : "this token does not belong to this variable");
}

} // namespace weft::detail
