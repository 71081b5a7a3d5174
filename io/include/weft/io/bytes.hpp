#pragma once

#include <compare>
#include <concepts>
#include <cstddef>
#include <cstring>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

namespace weft {

/// An owned run of octets.
using bytes = std::string;

/// Where received octets go.
using buffer = std::span<std::byte>;

namespace detail {
template <class T>
concept octet = std::same_as<std::remove_cv_t<T>, std::byte> ||
                std::same_as<std::remove_cv_t<T>, char> ||
                std::same_as<std::remove_cv_t<T>, unsigned char>;
template <class R>
concept octet_range = std::ranges::contiguous_range<R> && std::ranges::sized_range<R> &&
                      octet<std::ranges::range_value_t<R>>;
template <class R>
concept char_array = std::is_array_v<std::remove_reference_t<R>> &&
                     std::same_as<std::remove_cv_t<std::remove_all_extents_t<
                                      std::remove_reference_t<R>>>, char>;
} // namespace detail

/// A look at octets that somebody else owns.
///
/// Made from whatever holds octets in one piece. A `char const*` or an array of char ends at its
/// first NUL, as a literal does; what contains NULs is given as a std::string_view or a span.
///
/// Threads  a value
/// Source   AnyIO bytes-like parameters
class bytes_view {
public:
    constexpr bytes_view() = default;
    constexpr bytes_view(char const* text) : bytes_view(std::string_view(text)) {}
    constexpr bytes_view(std::string_view text) : text_(text) {}
    bytes_view(std::byte const* data, std::size_t size)
        : text_(reinterpret_cast<char const*>(data), size) {}
    template <class Range>
        requires(detail::octet_range<Range const&> && !detail::char_array<Range> &&
                 !std::same_as<Range, bytes_view> && !std::same_as<Range, std::string_view>)
    bytes_view(Range const& range)
        : text_(reinterpret_cast<char const*>(std::ranges::data(range)), std::ranges::size(range)) {
    }

    std::byte const* data() const { return reinterpret_cast<std::byte const*>(text_.data()); }
    constexpr std::size_t size() const { return text_.size(); }
    constexpr bool empty() const { return text_.empty(); }
    std::byte const* begin() const { return data(); }
    std::byte const* end() const { return data() + size(); }

    constexpr std::string_view text() const { return text_; }
    constexpr bytes_view subview(std::size_t from,
                                 std::size_t most = std::string_view::npos) const {
        return text_.substr(from, most);
    }
    bytes to_bytes() const { return bytes(text_); }

    friend constexpr bool operator==(bytes_view left, bytes_view right) {
        return left.text_ == right.text_;
    }

private:
    std::string_view text_;
};

/// The octets of a container, to be overwritten: an array, a vector, a string, a span.
template <class Container>
    requires(std::ranges::contiguous_range<Container> && std::ranges::sized_range<Container> &&
             (std::is_lvalue_reference_v<Container> || std::ranges::borrowed_range<Container>) &&
             detail::octet<std::ranges::range_value_t<Container>> &&
             !std::is_const_v<std::remove_reference_t<std::ranges::range_reference_t<Container>>>)
buffer as_buffer(Container&& container) {
    return {reinterpret_cast<std::byte*>(std::ranges::data(container)),
            std::ranges::size(container)};
}

} // namespace weft
