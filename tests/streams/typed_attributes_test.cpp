#include <weft/streams/error.hpp>
#include <weft/streams/typed_attributes.hpp>

#include <doctest/doctest.h>

#include <concepts>
#include <functional>
#include <stdexcept>
#include <string>
#include <type_traits>

TEST_SUITE_BEGIN("streams.typed_attributes");

namespace {

constexpr weft::typed_attribute<int> number{"number"};
constexpr weft::typed_attribute<int> same_name{"number"};
constexpr weft::typed_attribute<std::string> text{"text"};

class provider : public weft::typed_attribute_provider {
public:
    weft::attribute_map extra_attributes() const override {
        return {
            {number, [this] { return ++asked; }},
            {text, []() -> std::string { throw weft::typed_attribute_lookup_error("broken"); }}};
    }
    mutable int asked = 0;
};

class wrapper final : public weft::typed_attribute_provider {
public:
    weft::attribute_map extra_attributes() const override {
        return inner.extra_attributes().update({{text, [] { return "own"; }}});
    }
    provider inner;
};

template <class Key, class Getter>
concept makes_an_entry = std::constructible_from<weft::attribute_map::entry, Key const&, Getter>;

template <class Name>
concept can_go_without_type = requires(Name name) {
    weft::typed_attribute(name);
};

} // namespace

TEST_CASE("A7: what surrounds the getters is asked each time, and may refuse") {
    bool is_there = true;
    bool inside = false;
    weft::attribute_map map{{number, [&inside] { return inside ? 1 : 0; }},
                            {text, [] { return "text"; }}};
    map.surround([&](std::function<void()> const& ask) {
        if (!is_there) throw std::out_of_range("gone");
        inside = true;
        ask();
        inside = false;
    });
    CHECK((*map.find(number))() == 1);
    CHECK((*map.find(text))() == "text");
    CHECK(!inside);
    is_there = false;
    CHECK_THROWS_AS((*map.find(number))(), std::out_of_range);
    CHECK_THROWS_AS((*map.find(text))(), std::out_of_range);
}

TEST_CASE("A1: a key is itself, whatever its name") {
    provider const of;
    CHECK(of.extra(number) == 1);
    CHECK_THROWS_AS(of.extra(same_name), weft::typed_attribute_lookup_error);
}

TEST_CASE("A2: an attribute has a type, and a getter of another one does not compile") {
    using as_number = weft::typed_attribute<int>;
    using as_text = weft::typed_attribute<std::string>;
    static_assert(!can_go_without_type<char const*>);
    static_assert(!std::default_initializable<as_number> && !std::copyable<as_number>);
    static_assert(makes_an_entry<as_number, int (*)()>);
    static_assert(makes_an_entry<as_text, char const* (*)()>);
    static_assert(!makes_an_entry<as_number, std::string (*)()>);
    static_assert(!makes_an_entry<as_number, int (*)(int)>);
    static_assert(!makes_an_entry<int, int (*)()>);
    static_assert(std::same_as<decltype(provider().extra(number)), int>);
}

TEST_CASE("A3: a getter is called each time") {
    provider const of;
    CHECK(of.asked == 0);
    CHECK(of.extra(number) == 1);
    CHECK(of.extra(number) == 2);
}

TEST_CASE("A4: only a missing key selects the fallback; what a getter throws passes") {
    provider const of;
    CHECK(of.extra(same_name, 9) == 9);
    CHECK(of.extra(number, 9) == 1);
    CHECK_THROWS_AS(of.extra(text, "fallback"), weft::typed_attribute_lookup_error);
    try {
        of.extra(same_name);
        FAIL("it is not there");
    } catch (weft::lookup_error const& failure) {
        CHECK(std::string(failure.what()).find("number") != std::string::npos);
    }
}

TEST_CASE("A5: a wrapper gives what is under it, and may override it") {
    wrapper const of;
    CHECK(of.extra(number) == 1);
    CHECK(of.extra(text) == "own");
}

TEST_CASE("A6: what is asked is always the map, whatever a class declares") {
    class stubborn final : public provider {
    public:
        int extra(weft::typed_attribute<int> const&) const { return -1; }
    };
    stubborn const of;
    weft::typed_attribute_provider const& as_all_see_it = of;
    CHECK(as_all_see_it.extra(number) == 1);
}

TEST_CASE("EX3: a missing attribute is a lookup that failed; would_block and end_of_stream say "
          "what they are") {
    static_assert(std::is_base_of_v<weft::lookup_error, weft::typed_attribute_lookup_error>);
    static_assert(std::is_base_of_v<weft::error, weft::end_of_stream>);
    provider const of;
    CHECK_THROWS_AS(of.extra(same_name), weft::lookup_error);
    CHECK(std::string(weft::would_block().what()) == "the call would have to wait");
    CHECK(std::string(weft::end_of_stream().what()) == "the stream has ended");
}
