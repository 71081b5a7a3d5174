#pragma once

namespace weft::detail {

/// A variable of the process that its end does not destroy: destructors of static objects may call run(), and
/// in which order they come is not ours to say.
template <class T> union kept_for_ever {
    constexpr kept_for_ever() : value() {}
    constexpr ~kept_for_ever() {}
    T value;
};

} // namespace weft::detail
