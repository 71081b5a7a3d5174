#pragma once

#include <exception>
#include <functional>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace weft {

/// The base of what weft throws, but for OS failures (std::system_error) and misuse (std::logic_error).
class error : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

namespace detail {
template <class Call> struct handler_argument : handler_argument<decltype(&Call::operator())> {};
template <class R, class C, class A> struct handler_argument<R (C::*)(A)> {
    using type = A;
};
template <class R, class C, class A> struct handler_argument<R (C::*)(A) const> {
    using type = A;
};
template <class R, class C, class A> struct handler_argument<R (C::*)(A) noexcept> {
    using type = A;
};
template <class R, class C, class A> struct handler_argument<R (C::*)(A) const noexcept> {
    using type = A;
};
template <class R, class A> struct handler_argument<R (*)(A)> {
    using type = A;
};
} // namespace detail

/// Several failures as one exception: a tree, since a member may be a group itself.
///
/// what() draws the tree, a line a leaf, with the name of the task that failed where it is known.
///
/// Threads  immutable: any, also at once
/// Source   AnyIO / PEP 654 ExceptionGroup
class exception_group : public error {
public:
    /// `origins`, if given, says for each member where it comes from. Errors: std::invalid_argument if
    /// there is no member, or a null one.
    exception_group(std::string const& message, std::vector<std::exception_ptr> members,
                    std::vector<std::string> origins = {});

    /// The direct members, in the order in which they failed.
    std::span<std::exception_ptr const> exceptions() const { return members_; }
    std::string const& message() const { return message_; }

    /// Whether any leaf, at any depth, is an E or derived from it; of exception_group itself, or a type
    /// derived from it: whether there is a nested one.
    template <class E> bool contains() const {
        for (std::exception_ptr const& member : members_) {
            try {
                std::rethrow_exception(member);
            } catch (exception_group const& group) {
                if constexpr (std::is_base_of_v<exception_group, E>) // asked for by name
                    if (catches_current<E>()) return true;
                if (group.contains<E>()) return true;
            } catch (...) { // a leaf: looked at, not swallowed
                if (catches_current<E>()) return true;
            }
        }
        return false;
    }

    /// Hands each leaf to the first handler whose parameter can take it; what no handler takes, or a
    /// handler throws, leaves as a group of the same message; what was nested with the group stays so.
    template <class... Handler> void handle(Handler&&... handlers) const {
        std::vector<std::exception_ptr> rest;
        std::vector<std::string> origins;
        for (std::size_t number = 0; number < members_.size(); ++number) {
            try {
                handle_member(members_[number], handlers...);
            } catch (...) { // collected and thrown below
                rest.push_back(std::current_exception());
                origins.push_back(origin(number));
            }
        }
        if (!rest.empty()) throw_rest(std::move(rest), std::move(origins));
    }

    /// The group without the leaves that `drop` selects, at any depth; null if none is left. Nested groups
    /// that lose nothing stay the same objects.
    std::exception_ptr without(std::function<bool(std::exception_ptr const&)> const& drop) const;

private:
    // By itself: beside a handler for groups, one for a type of groups would give users a warning.
    template <class E> static bool catches_current() {
        try {
            throw;
        } catch (E const&) {
            return true;
        } catch (...) { // the caller's
            return false;
        }
    }

    [[noreturn]] void throw_rest(std::vector<std::exception_ptr> rest, std::vector<std::string> origins) const;

    std::string origin(std::size_t number) const {
        return number < origins_.size() ? origins_[number] : std::string();
    }

    template <class... Handler>
    static void handle_member(std::exception_ptr const& member, Handler&... handlers) {
        try {
            std::rethrow_exception(member);
        } catch (exception_group const& group) {
            group.handle(handlers...);
        } catch (...) {
            handle_leaf(handlers...);
        }
    }
    static void handle_leaf() { throw; }
    template <class First, class... Rest> static void handle_leaf(First& first, Rest&... rest) {
        using argument = typename detail::handler_argument<std::decay_t<First>>::type;
        try {
            throw;
        } catch (std::remove_cvref_t<argument>& leaf) {
            first(leaf);
            return;
        } catch (...) {
            handle_leaf(rest...);
        }
    }

    std::string message_;
    std::vector<std::exception_ptr> members_;
    std::vector<std::string> origins_; // empty, or one for each member
};

} // namespace weft
