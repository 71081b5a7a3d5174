#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>

namespace weft {

namespace detail {
[[noreturn]] void refuse_port(std::intmax_t number);
}

/// A port, as functions take one: any integer from 0 to 65535. Others are refused by name, where a
/// plain std::uint16_t would quietly become another port.
///
/// Threads  a value
/// Errors   std::invalid_argument (no port)
class port_number {
public:
    constexpr port_number() noexcept = default;
    template <std::convertible_to<std::intmax_t> Number>
    requires(!std::is_floating_point_v<Number>) constexpr port_number(Number const& number) {
        auto const value = static_cast<std::intmax_t>(number);
        if (value < 0 || value > UINT16_MAX) detail::refuse_port(value);
        number_ = static_cast<std::uint16_t>(value);
    }

    constexpr operator std::uint16_t() const noexcept { return number_; }

private:
    std::uint16_t number_ = 0;
};

} // namespace weft
