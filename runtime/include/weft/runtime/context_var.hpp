#pragma once

#include <weft/runtime/error.hpp>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

namespace weft {

namespace detail {

/// Values by variable, immutable once shared: what a child inherits is a pointer.
class value_store;

/// Names a variable for ever: another one may later be where it was. Never 0.
using variable_key = std::uint64_t;
variable_key new_variable_key() noexcept;

/// The value that the variable has where the caller stands, or null.
std::shared_ptr<void const> find_context_value(variable_key);
void put_context_value(variable_key, std::shared_ptr<void const>);
std::shared_ptr<void const> find_run_value(variable_key);
void put_run_value(variable_key, std::shared_ptr<void const>);

[[noreturn]] void throw_no_value(char const* kind, std::string const& name);
[[noreturn]] void throw_bad_token(bool used);

/// What context_var and run_var share; they differ in where the values are kept.
template <class T, auto Find, auto Put> class scoped_variable {
public:
    /// What set() replaced. Moved into reset(), once.
    class token {
    public:
        token(token&& other) noexcept
            : variable_(std::exchange(other.variable_, 0)), before_(std::move(other.before_)) {}
        token& operator=(token&& other) noexcept {
            variable_ = std::exchange(other.variable_, 0);
            before_ = std::move(other.before_);
            return *this;
        }

    private:
        friend class scoped_variable;
        token(variable_key variable, std::shared_ptr<void const> before)
            : variable_(variable), before_(std::move(before)) {}
        variable_key variable_; // 0: used
        std::shared_ptr<void const> before_;
    };

    explicit scoped_variable(std::string name, std::optional<T> default_value = {})
        : name_(std::move(name)), default_(std::move(default_value)) {}
    scoped_variable(scoped_variable const&) = delete;
    scoped_variable& operator=(scoped_variable const&) = delete;

    T get() const {
        if (auto const value = Find(key_)) return *static_cast<T const*>(value.get());
        if (default_) return *default_;
        throw_no_value("variable", name_);
    }
    T get(T fallback) const {
        if (auto const value = Find(key_)) return *static_cast<T const*>(value.get());
        return fallback;
    }
    token set(T value) {
        std::shared_ptr<void const> before = Find(key_);
        Put(key_, std::make_shared<T const>(std::move(value)));
        return token(key_, std::move(before));
    }
    void reset(token was) {
        if (was.variable_ != key_) throw_bad_token(was.variable_ == 0);
        Put(key_, std::move(was.before_));
    }
    std::string const& name() const { return name_; }

private:
    variable_key const key_ = new_variable_key();
    std::string name_;
    std::optional<T> default_;
};

} // namespace detail

/// A value that follows the tasks: a child starts with its spawner's values, later changes on either
/// side are the own ones only.
///
/// Threads  each task and each OS thread has its own values; the variable must outlive them
/// Errors   lookup_error (no value, no default); std::invalid_argument (a token of another variable, or
///          used before)
/// Source   Python contextvars, as AnyIO's tasks inherit them
template <class T>
class context_var
    : public detail::scoped_variable<T, detail::find_context_value, detail::put_context_value> {
public:
    using detail::scoped_variable<T, detail::find_context_value,
                                  detail::put_context_value>::scoped_variable;
};

/// A value for all tasks of a run; it ends with the run.
///
/// Threads  any task of the run
/// Errors   as context_var; no_event_loop_error outside a run
/// Source   AnyIO lowlevel.RunVar
template <class T>
class run_var : public detail::scoped_variable<T, detail::find_run_value, detail::put_run_value> {
public:
    using detail::scoped_variable<T, detail::find_run_value, detail::put_run_value>::scoped_variable;
};

} // namespace weft
