#include "protocol.hpp"

#include <concepts>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace memcached {

namespace {

constexpr std::size_t head_size = 24;
constexpr char binary_response = char(0x81);
constexpr std::uint32_t no_initial_value = 0xffffffff; // as the expiry of what is counted

enum class status : std::uint16_t {
    done = 0,
    not_found = 1,
    exists = 2,
    too_large = 3,
    invalid = 4,
    not_stored = 5,
    not_a_number = 6,
    unknown_command = 0x81,
};

// Those without a quiet twin come first; the quiet one of `set` is 0x11.
enum class operation : unsigned char {
    get = 0x00,
    set = 0x01,
    add = 0x02,
    replace = 0x03,
    remove = 0x04,
    increment = 0x05,
    decrement = 0x06,
    quit = 0x07,
    flush = 0x08,
    quiet_get = 0x09,
    nothing = 0x0a,
    version = 0x0b,
    get_with_key = 0x0c,
    quiet_get_with_key = 0x0d,
    append = 0x0e,
    prepend = 0x0f,
    statistics = 0x10,
};
constexpr unsigned char first_quiet =
    0x11; // of set, add, ... flush, in order, then append and prepend
constexpr unsigned char quiet_append = 0x19;
constexpr unsigned char quiet_prepend = 0x1a;

template <std::unsigned_integral Number> Number read(std::string_view from, std::size_t place) {
    Number value = 0;
    for (std::size_t each = 0; each < sizeof value; ++each)
        value = Number(value << 8 | static_cast<unsigned char>(from[place + each]));
    return value;
}

template <std::unsigned_integral Number> std::string octets_of(Number value) {
    std::string result;
    for (int shift = 8 * (sizeof value - 1); shift >= 0; shift -= 8)
        result += char(value >> shift);
    return result;
}

status status_of(outcome result) {
    switch (result) {
    case outcome::done: return status::done;
    case outcome::not_found: return status::not_found;
    case outcome::exists: return status::exists;
    case outcome::not_stored: return status::not_stored;
    default: return status::not_a_number;
    }
}

struct request {
    unsigned char code;
    operation asked;
    bool quiet = false; // says nothing when it succeeds
    std::uint32_t number;
    std::uint64_t version;
    std::string extras, key, value;
};

struct response {
    status result = status::done;
    std::string extras{}, key{}, value{};
    std::uint64_t version = 0;
};

void find_quiet_twin(request& one) {
    if (one.code == quiet_append || one.code == quiet_prepend) {
        one.asked = one.code == quiet_append ? operation::append : operation::prepend;
        one.quiet = true;
    } else if (one.code >= first_quiet && one.code < quiet_append) {
        one.asked = operation(one.code - first_quiet + int(operation::set));
        one.quiet = true;
    } else {
        one.asked = operation(one.code);
        one.quiet = one.asked == operation::quiet_get || one.asked == operation::quiet_get_with_key;
    }
}

// Nothing: what follows would be out of step.
std::optional<request> receive(weft::buffered_byte_stream& client) {
    std::string const head = client.receive_exactly(head_size);
    std::size_t const key = read<std::uint16_t>(head, 2);
    std::size_t const extras = read<std::uint8_t>(head, 4);
    std::size_t const whole = read<std::uint32_t>(head, 8);
    if (read<std::uint8_t>(head, 0) != binary_request || key + extras > whole ||
        key > longest_key || whole > largest_item + longest_key + extras)
        return std::nullopt;
    request one;
    one.code = read<std::uint8_t>(head, 1);
    one.number = read<std::uint32_t>(head, 12);
    one.version = read<std::uint64_t>(head, 16);
    std::string const body = client.receive_exactly(whole);
    one.extras = body.substr(0, extras);
    one.key = body.substr(extras, key);
    one.value = body.substr(extras + key);
    find_quiet_twin(one);
    return one;
}

void send(weft::buffered_byte_stream& client, request const& to, response const& what) {
    std::size_t const whole = what.extras.size() + what.key.size() + what.value.size();
    std::string packet{binary_response, char(to.code)};
    packet += octets_of(std::uint16_t(what.key.size()));
    packet += char(what.extras.size());
    packet += '\0'; // the data's type
    packet += octets_of(std::uint16_t(what.result));
    packet += octets_of(std::uint32_t(whole));
    packet += octets_of(to.number);
    packet += octets_of(what.version);
    packet += what.extras + what.key + what.value;
    client.send(packet);
}

response failure(status why) {
    switch (why) {
    case status::not_found: return {why, {}, {}, "Not found"};
    case status::exists: return {why, {}, {}, "Data exists for key."};
    case status::too_large: return {why, {}, {}, "Too large."};
    case status::not_stored: return {why, {}, {}, "Not stored."};
    case status::not_a_number:
        return {why, {}, {}, "Non-numeric server-side value for incr or decr"};
    case status::unknown_command: return {why, {}, {}, "Unknown command"};
    default: return {status::invalid, {}, {}, "Invalid arguments"};
    }
}

response get(request const& one, store const& items) {
    std::optional<item> const found = items.get(one.key);
    if (!found) return failure(status::not_found);
    bool const with_key =
        one.asked == operation::get_with_key || one.asked == operation::quiet_get_with_key;
    return {status::done, octets_of(found->flags), with_key ? one.key : "", found->data,
            found->version};
}

// What was done to the item, with the version it has now.
response changed(outcome result, request const& one, store const& items) {
    if (result != outcome::done) return failure(status_of(result));
    std::optional<item> const now = items.get(one.key);
    return {status::done, {}, {}, {}, now ? now->version : 0};
}

response put(request& one, store& items) {
    if (one.value.size() > largest_item) return failure(status::too_large);
    when const condition = one.asked == operation::add       ? when::absent
                           : one.asked == operation::replace ? when::present
                                                             : when::always;
    item given{std::move(one.value), read<std::uint32_t>(one.extras, 0)};
    return changed(items.put(one.key, std::move(given), condition, one.version), one, items);
}

response count(request const& one, store& items) {
    std::optional<std::uint64_t> initial;
    if (read<std::uint32_t>(one.extras, 16) != no_initial_value)
        initial = read<std::uint64_t>(one.extras, 8);
    std::uint64_t value = 0;
    outcome const result = items.count(one.key, read<std::uint64_t>(one.extras, 0),
                                       one.asked == operation::increment, initial, value);
    response answer = changed(result, one, items);
    if (result == outcome::done) answer.value = octets_of(value);
    return answer;
}

// How a request has to look.
bool is_well_formed(request const& one) {
    std::size_t const extras = one.extras.size();
    switch (one.asked) {
    case operation::set:
    case operation::add:
    case operation::replace: return extras == 8 && !one.key.empty();
    case operation::increment:
    case operation::decrement: return extras == 20 && !one.key.empty() && one.value.empty();
    case operation::append:
    case operation::prepend: return extras == 0 && !one.key.empty();
    case operation::flush: return (extras == 0 || extras == 4) && one.key.empty();
    case operation::statistics: return extras == 0;
    case operation::nothing:
    case operation::version:
    case operation::quit: return extras == 0 && one.key.empty() && one.value.empty();
    default: return extras == 0 && !one.key.empty() && one.value.empty();
    }
}

response carry_out(request& one, store& items) {
    if (one.asked > operation::statistics) return failure(status::unknown_command);
    if (!is_well_formed(one)) return failure(status::invalid);
    switch (one.asked) {
    case operation::set:
    case operation::add:
    case operation::replace: return put(one, items);
    case operation::increment:
    case operation::decrement: return count(one, items);
    case operation::append:
    case operation::prepend:
        return changed(items.extend(one.key, one.value,
                                    one.asked == operation::append ? side::back : side::front),
                       one, items);
    case operation::remove: {
        outcome const result = items.remove(one.key);
        return result == outcome::done ? response{} : failure(status_of(result));
    }
    case operation::flush: items.clear(); return {};
    case operation::version: return {status::done, {}, {}, server_version};
    case operation::nothing:
    case operation::quit:
    case operation::statistics: return {};
    default: return get(one, items);
    }
}

bool is_get(operation asked) {
    return asked == operation::quiet_get || asked == operation::quiet_get_with_key;
}

// A quiet get is silent when there is nothing, all other quiet ones when they succeed.
bool is_wanted(request const& one, response const& answer) {
    if (!one.quiet) return true;
    return is_get(one.asked) ? answer.result != status::not_found : answer.result != status::done;
}

} // namespace

void speak_binary(weft::buffered_byte_stream& client, store& items) {
    while (std::optional<request> one = receive(client)) {
        response const answer = carry_out(*one, items);
        if (one->asked == operation::statistics && answer.result == status::done) {
            send(client, *one, {status::done, {}, "version", server_version});
            send(client, *one, {status::done, {}, "curr_items", std::to_string(items.size())});
        }
        if (is_wanted(*one, answer)) send(client, *one, answer);
        if (one->asked == operation::quit) return;
    }
}

} // namespace memcached
