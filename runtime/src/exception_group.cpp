#include <weft/runtime/exception_group.hpp>

#include "demangle.hpp"

#include <weft/runtime/cancel_scope.hpp>

#include <typeinfo>

#include <cxxabi.h>

namespace weft {

namespace {

std::string type_of_current_exception() {
    std::type_info const* const type = abi::__cxa_current_exception_type();
    if (type == nullptr) return "an unknown exception";
    return detail::demangled(type->name());
}

// Appends the text of one exception, without that of its cause. Gives the cause: null for none, also when
// there was none in flight to be nested, for which std::rethrow_if_nested would end the process.
std::exception_ptr describe(std::exception_ptr const& failure, std::string& text) {
    try {
        std::rethrow_exception(failure);
    } catch (std::exception const& standard) {
        char const* const what = standard.what();
        text += type_of_current_exception() + ": " + (what != nullptr ? what : "(no text)");
        auto const* const effect = dynamic_cast<std::nested_exception const*>(&standard);
        return effect != nullptr ? effect->nested_ptr() : nullptr;
    } catch (cancelled const& cancellation) {
        text += std::string("weft::cancelled: ") + cancellation.reason();
    } catch (...) { // anything can be thrown; its type is all there is to say
        text += type_of_current_exception();
    }
    return nullptr;
}

// With its cause, and the cause of that: a loop, since chains can be long and stacks small.
std::string describe(std::exception_ptr failure) {
    std::string text;
    std::size_t causes = 0;
    while ((failure = describe(failure, text)) != nullptr) {
        text += " (caused by ";
        ++causes;
    }
    return text.append(causes, ')');
}

void draw(std::string& tree, std::string const& indent, std::string const& text) {
    tree += '\n' + indent + "|-- ";
    std::size_t begin = 0;
    for (std::size_t end; (end = text.find('\n', begin)) != text.npos; begin = end + 1)
        tree.append(text, begin, end - begin) += '\n' + indent + "| ";
    tree.append(text, begin);
}

std::string draw_tree(std::string const& message, std::vector<std::exception_ptr> const& members,
                      std::vector<std::string> const& origins) {
    std::string tree = message + " (" + std::to_string(members.size()) +
                       (members.size() == 1 ? " failure)" : " failures)");
    for (std::size_t number = 0; number < members.size(); ++number) {
        std::string text;
        if (members[number] == nullptr) throw std::invalid_argument("a null member of a group");
        try {
            std::rethrow_exception(members[number]);
        } catch (exception_group const& group) {
            text = group.what();
        } catch (...) { // a leaf
            text = describe(std::current_exception());
        }
        if (number < origins.size() && !origins[number].empty()) text = "[" + origins[number] + "] " + text;
        draw(tree, "  ", text);
    }
    return tree;
}

// What is left of a group that was thrown with another exception nested keeps that one, too (C10).
std::exception_ptr with_cause_of(exception_group const& whole, exception_group rest) {
    auto const* const effect = dynamic_cast<std::nested_exception const*>(&whole);
    if (effect == nullptr || effect->nested_ptr() == nullptr) return std::make_exception_ptr(std::move(rest));
    try {
        try {
            effect->rethrow_nested();
        } catch (...) { // becomes the cause
            std::throw_with_nested(std::move(rest));
        }
    } catch (...) { // the group
        return std::current_exception();
    }
}

} // namespace

exception_group::exception_group(std::string const& message, std::vector<std::exception_ptr> members,
                                 std::vector<std::string> origins)
    : error(draw_tree(message, members, origins)), message_(message), members_(std::move(members)),
      origins_(std::move(origins)) {
    if (members_.empty()) throw std::invalid_argument("an exception_group needs a member");
}

void exception_group::throw_rest(std::vector<std::exception_ptr> rest, std::vector<std::string> origins) const {
    std::rethrow_exception(with_cause_of(*this, exception_group(message_, std::move(rest), std::move(origins))));
}

std::exception_ptr
exception_group::without(std::function<bool(std::exception_ptr const&)> const& drop) const {
    std::vector<std::exception_ptr> kept;
    std::vector<std::string> origins;
    for (std::size_t number = 0; number < members_.size(); ++number) {
        std::exception_ptr rest = members_[number];
        try {
            std::rethrow_exception(members_[number]);
        } catch (exception_group const& group) {
            bool dropped = false;
            std::exception_ptr smaller = group.without([&](std::exception_ptr const& leaf) {
                bool const drops = drop(leaf);
                dropped = dropped || drops;
                return drops;
            });
            if (dropped) rest = std::move(smaller);
        } catch (...) { // a leaf
            if (drop(members_[number])) rest = nullptr;
        }
        if (rest == nullptr) continue;
        kept.push_back(std::move(rest));
        origins.push_back(origin(number));
    }
    if (kept.empty()) return nullptr;
    return with_cause_of(*this, exception_group(message_, std::move(kept), std::move(origins)));
}

} // namespace weft
