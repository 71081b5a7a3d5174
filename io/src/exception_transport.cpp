#include "exception_transport.hpp"

#include <weft/runtime/error.hpp>

#include <any>
#include <array>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <future>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <typeinfo>
#include <variant>

#include <cxxabi.h>

namespace weft::detail {

namespace {

struct known_type {
    std::type_info const* type;
    void (*raise)(std::string const& text);
};

template <class E>
constexpr known_type with_text{&typeid(E), [](std::string const& text) { throw E(text); }};
template <class E>
constexpr known_type without_text{&typeid(E), [](std::string const&) { throw E(); }};

constexpr std::array known_types{
    with_text<std::logic_error>,
    with_text<std::domain_error>,
    with_text<std::invalid_argument>,
    with_text<std::length_error>,
    with_text<std::out_of_range>,
    with_text<std::runtime_error>,
    with_text<std::range_error>,
    with_text<std::overflow_error>,
    with_text<std::underflow_error>,
    without_text<std::bad_alloc>,
    without_text<std::bad_array_new_length>,
    without_text<std::bad_cast>,
    without_text<std::bad_any_cast>,
    without_text<std::bad_typeid>,
    without_text<std::bad_optional_access>,
    without_text<std::bad_variant_access>,
    without_text<std::bad_function_call>,
    without_text<std::bad_weak_ptr>,
    without_text<std::bad_exception>,
    without_text<std::exception>,
};

std::string readable(char const* type_name) {
    int status = 0;
    std::unique_ptr<char, void (*)(void*)> const text(
        abi::__cxa_demangle(type_name, nullptr, nullptr, &status), std::free);
    return status == 0 ? text.get() : type_name;
}

// what() of a std::system_error ends with the code's own text, which is put there again.
std::string without_code(std::string text, std::error_code code) {
    std::string const ending = code.message();
    if (!text.ends_with(ending)) return text;
    text.resize(text.size() - ending.size());
    if (text.ends_with(": ")) text.resize(text.size() - 2);
    return text;
}

std::error_category const* category_named(std::string_view name) {
    for (std::error_category const* const known :
         {&std::system_category(), &std::generic_category(), &std::future_category()})
        if (name == known->name()) return known;
    return nullptr;
}

void write(frame_writer& to, char const* type, std::string const& text, std::error_code code = {},
           char const* category = "") {
    to.write_text(type);
    to.write_text(text);
    to.write_text(category);
    to.write_number(std::uint64_t(std::int64_t(code.value())));
}

// What it says may be too long, or there is no memory for it: then that is said.
template <class Text>
void write_if_it_fits(frame_writer& to, char const* type, Text const& text, std::error_code code = {},
                      char const* category = "") {
    try {
        write(to, type, text(), code, category);
    } catch (std::exception const& obstacle) {
        to.clear();
        write(to, type, std::string("its text could not be sent: ") + obstacle.what(), code, category);
    }
}

} // namespace

void write_current_exception(frame_writer& to) {
    try {
        throw;
    } catch (std::system_error const& failure) {
        write_if_it_fits(
            to, typeid(failure).name(), [&] { return without_code(failure.what(), failure.code()); },
            failure.code(), failure.code().category().name());
    } catch (std::exception const& failure) {
        write_if_it_fits(to, typeid(failure).name(), [&] { return std::string(failure.what()); });
    } catch (...) { // nothing is known but its type
        std::type_info const* const type = abi::__cxa_current_exception_type();
        write(to, type != nullptr ? type->name() : "?", "");
    }
}

void throw_received_exception(frame_reader& from) {
    std::string const type = from.read_text();
    std::string const text = from.read_text();
    std::error_category const* const category = category_named(from.read_text());
    auto const value = int(std::int64_t(from.read_number()));
    for (known_type const& known : known_types)
        if (type == known.type->name()) known.raise(text);
    if (category != nullptr && type == typeid(std::system_error).name())
        throw std::system_error(value, *category, text);
    throw error(readable(type.c_str()) + (text.empty() ? "" : ": " + text));
}

} // namespace weft::detail
