#pragma once

#include <weft/io/detail/frame.hpp>

#include <array>
#include <chrono>
#include <complex>
#include <concepts>
#include <cstddef>
#include <deque>
#include <functional>
#include <initializer_list>
#include <list>
#include <map>
#include <new>
#include <optional>
#include <set>
#include <span>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

#include <cereal/archives/binary.hpp>
#include <cereal/cereal.hpp>
#include <cereal/types/array.hpp>
#include <cereal/types/chrono.hpp>
#include <cereal/types/complex.hpp>
#include <cereal/types/deque.hpp>
#include <cereal/types/list.hpp>
#include <cereal/types/map.hpp>
#include <cereal/types/optional.hpp>
#include <cereal/types/set.hpp>
#include <cereal/types/string.hpp>
#include <cereal/types/tuple.hpp>
#include <cereal/types/unordered_map.hpp>
#include <cereal/types/unordered_set.hpp>
#include <cereal/types/utility.hpp>
#include <cereal/types/variant.hpp>
#include <cereal/types/vector.hpp>

namespace weft::detail {

/// Refers to memory of this process: the octets would arrive, what they mean would not.
template <class T>
struct is_reference_like : std::bool_constant<std::is_pointer_v<T> || std::is_member_pointer_v<T> ||
                                              std::is_null_pointer_v<T>> {};
template <class C, class T>
struct is_reference_like<std::basic_string_view<C, T>> : std::true_type {};
template <class T, std::size_t N> struct is_reference_like<std::span<T, N>> : std::true_type {};
template <class T> struct is_reference_like<std::initializer_list<T>> : std::true_type {};
template <class T> struct is_reference_like<std::reference_wrapper<T>> : std::true_type {};

/// Whether the serialization library knows the type, or its user taught it.
template <class T>
inline constexpr bool known_to_cereal =
    cereal::traits::is_output_serializable<T, cereal::BinaryOutputArchive>::value;

/// Sent as the octets that it is: both processes run the same program.
template <class T>
concept sent_as_octets = std::is_arithmetic_v<T> ||
    (std::is_trivially_copyable_v<T> && !std::is_enum_v<T> && !std::is_array_v<T> &&
     !is_reference_like<T>::value && !known_to_cereal<T>);

class sending_archive
    : public cereal::OutputArchive<sending_archive, cereal::AllowEmptyClassElision> {
public:
    explicit sending_archive(frame_writer& to) : OutputArchive(this), to_(to) {}
    frame_writer& frame() { return to_; }

private:
    frame_writer& to_;
};

class receiving_archive
    : public cereal::InputArchive<receiving_archive, cereal::AllowEmptyClassElision> {
public:
    explicit receiving_archive(frame_reader& from) : InputArchive(this), from_(from) {}
    frame_reader& frame() { return from_; }

private:
    frame_reader& from_;
};

// What the serialization library calls for the types that it leaves to its archives; found by the
// archive's namespace. The macros are its names for save, load and serialize.

template <sent_as_octets T> void CEREAL_SAVE_FUNCTION_NAME(sending_archive& to, T const& value) {
    to.frame().write(&value, sizeof value);
}
template <sent_as_octets T> void CEREAL_LOAD_FUNCTION_NAME(receiving_archive& from, T& value) {
    from.frame().read(static_cast<void*>(&value), sizeof value);
}

template <class T>
void CEREAL_SAVE_FUNCTION_NAME(sending_archive& to, cereal::BinaryData<T> const& data) {
    to.frame().write(data.data, std::size_t(data.size));
}
template <class T>
void CEREAL_LOAD_FUNCTION_NAME(receiving_archive& from, cereal::BinaryData<T>& data) {
    from.frame().read(data.data, std::size_t(data.size));
}

template <class T>
void CEREAL_SAVE_FUNCTION_NAME(sending_archive& to, cereal::NameValuePair<T> const& pair) {
    to(pair.value);
}
template <class T>
void CEREAL_LOAD_FUNCTION_NAME(receiving_archive& from, cereal::NameValuePair<T>& pair) {
    from(pair.value);
}

template <class T>
void CEREAL_SAVE_FUNCTION_NAME(sending_archive& to, cereal::SizeTag<T> const& tag) {
    to.frame().write_number(std::uint64_t(tag.size));
}
/// The container makes room for so many elements next.
template <class T>
void CEREAL_LOAD_FUNCTION_NAME(receiving_archive& from, cereal::SizeTag<T>& tag) {
    std::uint64_t const size = from.frame().read_number();
    from.frame().expect(size);
    tag.size = static_cast<std::remove_reference_t<T>>(size);
}

template <class... T> struct type_list {};

/// What the serialization library makes one by one for a value of the type, and asks nobody before.
template <class T> struct elements_of { using type = type_list<>; };
template <class T, std::size_t N> struct elements_of<T[N]> { using type = type_list<T>; };
template <class T, std::size_t N> struct elements_of<std::array<T, N>> { using type = type_list<T>; };
template <class T, class A> struct elements_of<std::vector<T, A>> { using type = type_list<T>; };
template <class T, class A> struct elements_of<std::deque<T, A>> { using type = type_list<T>; };
template <class T, class A> struct elements_of<std::list<T, A>> { using type = type_list<T>; };
template <class T> struct elements_of<std::optional<T>> { using type = type_list<T>; };
template <class T> struct elements_of<std::complex<T>> { using type = type_list<T>; };
template <class K, class C, class A> struct elements_of<std::set<K, C, A>> { using type = type_list<K>; };
template <class K, class C, class A> struct elements_of<std::multiset<K, C, A>> { using type = type_list<K>; };
template <class K, class H, class E, class A> struct elements_of<std::unordered_set<K, H, E, A>> {
    using type = type_list<K>;
};
template <class K, class H, class E, class A> struct elements_of<std::unordered_multiset<K, H, E, A>> {
    using type = type_list<K>;
};
template <class K, class T, class C, class A> struct elements_of<std::map<K, T, C, A>> {
    using type = type_list<K, T>;
};
template <class K, class T, class C, class A> struct elements_of<std::multimap<K, T, C, A>> {
    using type = type_list<K, T>;
};
template <class K, class T, class H, class E, class A> struct elements_of<std::unordered_map<K, T, H, E, A>> {
    using type = type_list<K, T>;
};
template <class K, class T, class H, class E, class A> struct elements_of<std::unordered_multimap<K, T, H, E, A>> {
    using type = type_list<K, T>;
};
template <class T, class U> struct elements_of<std::pair<T, U>> { using type = type_list<T, U>; };
template <class... T> struct elements_of<std::tuple<T...>> { using type = type_list<T...>; };
template <class... T> struct elements_of<std::variant<T...>> { using type = type_list<T...>; };
template <class R, class P> struct elements_of<std::chrono::duration<R, P>> { using type = type_list<R>; };
template <class C, class D> struct elements_of<std::chrono::time_point<C, D>> { using type = type_list<D>; };

/// Whether a value can go to a worker process and come back; of containers their elements, too.
template <class T, class Elements = typename elements_of<T>::type>
struct is_transportable
    : std::bool_constant<!is_reference_like<T>::value &&
                         cereal::traits::is_output_serializable<T, sending_archive>::value &&
                         cereal::traits::is_input_serializable<T, receiving_archive>::value> {};
template <class T, class First, class... More>
struct is_transportable<T, type_list<First, More...>>
    : std::conjunction<is_transportable<std::remove_cv_t<First>>, is_transportable<std::remove_cv_t<More>>...> {};

template <class T>
concept transportable = is_transportable<T>::value;

/// Whether there is a place to receive a value in: an object of its own, or octets; of elements the former.
template <class T, class Elements = typename elements_of<T>::type> struct has_place;
template <class T, class... Element>
struct has_place<T, type_list<Element...>>
    : std::bool_constant<(std::is_default_constructible_v<T> || sent_as_octets<T>) &&
                         (std::is_default_constructible_v<Element> && ...) &&
                         (has_place<std::remove_cv_t<Element>>::value && ...)> {};

template <class T>
concept received_in_place = has_place<T>::value;

template <class T> void send_value(frame_writer& to, T const& value) {
    sending_archive archive(to);
    archive(value);
}

template <class T> T receive_value(frame_reader& from) {
    receiving_archive archive(from);
    if constexpr (std::is_default_constructible_v<T>) {
        T value{};
        archive(value);
        return value;
    } else { // octets, as is checked where the call is made
        alignas(T) std::byte place[sizeof(T)];
        from.read(place, sizeof place);
        return *std::launder(reinterpret_cast<T*>(place));
    }
}

} // namespace weft::detail

CEREAL_SETUP_ARCHIVE_TRAITS(weft::detail::receiving_archive, weft::detail::sending_archive)
