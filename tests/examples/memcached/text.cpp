#include "protocol.hpp"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace memcached {

namespace {

using words = std::vector<std::string>;

constexpr std::size_t enough_to_send = 65536;

words split(std::string_view line) {
    words result;
    while (!line.empty()) {
        std::size_t const end = std::min(line.find(' '), line.size());
        if (end != 0) result.emplace_back(line.substr(0, end));
        line.remove_prefix(std::min(end + 1, line.size()));
    }
    return result;
}

template <class Number> std::optional<Number> number_in(std::string_view text) {
    Number value = 0;
    auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
}

class conversation {
public:
    conversation(weft::buffered_byte_stream& client, store& items)
        : client_(client), items_(items) {}

    // False: that was the last.
    bool answer_next() {
        std::string line = client_.receive_until("\n", longest_line);
        if (line.ends_with('\r')) line.pop_back();
        words asked = split(line);
        std::string const name = asked.empty() ? "" : asked[0];
        if (name == "quit" && asked.size() == 1) return false;
        silent_ = asked.size() > 1 && asked.back() == "noreply" && changes_something(name);
        if (silent_) asked.pop_back();
        std::string const answer = carry_out(name, asked);
        if (!silent_) client_.send(answer);
        return true;
    }

private:
    static bool changes_something(std::string const& name) {
        return name != "quit" && name != "version" && name != "stats" && name != "get" &&
               name != "gets";
    }

    std::string carry_out(std::string const& name, words const& asked) {
        std::size_t const arguments = asked.empty() ? 0 : asked.size() - 1;
        if (name == "get" || name == "gets") return get(asked, name == "gets");
        if (name == "set" || name == "add" || name == "replace" || name == "append" ||
            name == "prepend" || name == "cas")
            return put(name, asked);
        if (name == "delete" && arguments == 1) return remove(asked[1]);
        if ((name == "incr" || name == "decr") && arguments == 2)
            return count(asked, name == "incr");
        if (name == "flush_all" && arguments <= 1) {
            items_.clear();
            return "OK\r\n";
        }
        if (name == "version") return std::string("VERSION ") + server_version + "\r\n";
        if (name == "verbosity" && arguments == 1) return "OK\r\n";
        if (name == "stats" && arguments == 0)
            return "STAT version " + std::string(server_version) + "\r\nSTAT curr_items " +
                   std::to_string(items_.size()) + "\r\nEND\r\n";
        return "ERROR\r\n";
    }

    std::string get(words const& asked, bool with_version) {
        if (asked.size() < 2) return "ERROR\r\n";
        std::string answer;
        for (std::size_t each = 1; each < asked.size(); ++each) {
            std::optional<item> const found = items_.get(asked[each]);
            if (!found) continue;
            answer += "VALUE " + asked[each] + " " + std::to_string(found->flags) + " " +
                      std::to_string(found->data.size()) +
                      (with_version ? " " + std::to_string(found->version) : "") + "\r\n" +
                      found->data + "\r\n";
            if (answer.size() < enough_to_send) continue;
            client_.send(answer); // a line may ask for a thousand of them
            answer.clear();
        }
        return answer + "END\r\n";
    }

    // NAME KEY FLAGS EXPIRY LENGTH [VERSION]
    std::string put(std::string const& name, words const& asked) {
        if (asked.size() != (name == "cas" ? 6 : 5)) return "ERROR\r\n";
        auto const flags = number_in<std::uint32_t>(asked[2]);
        auto const length = number_in<std::uint32_t>(asked[4]); // so skip() has an end
        auto const version = number_in<std::uint64_t>(name == "cas" ? asked[5] : "0");
        if (!flags || !length || !version || asked[1].size() > longest_key)
            return "CLIENT_ERROR bad command line format\r\n";
        if (*length > largest_item) {
            skip(*length);
            return "SERVER_ERROR object too large for cache\r\n";
        }
        std::string data = client_.receive_exactly(*length);
        if (std::string const end = client_.receive_until("\n", longest_line);
            end != "\r" && !end.empty())
            return "CLIENT_ERROR bad data chunk\r\n";
        item given{std::move(data), *flags};
        if (name == "append" || name == "prepend")
            return stored(
                items_.extend(asked[1], given.data, name == "append" ? side::back : side::front));
        when const condition = name == "add"       ? when::absent
                               : name == "replace" ? when::present
                                                   : when::always;
        outcome const result = items_.put(asked[1], std::move(given), condition, *version);
        if (name != "cas") return stored(result);
        return result == outcome::done     ? "STORED\r\n"
               : result == outcome::exists ? "EXISTS\r\n"
                                           : "NOT_FOUND\r\n";
    }

    void skip(std::uint32_t length) {
        for (std::size_t rest = std::size_t(length) + 2; rest > 0;)
            rest -= client_.receive_exactly(std::min(rest, largest_item)).size();
    }

    static std::string stored(outcome result) {
        return result == outcome::done ? "STORED\r\n" : "NOT_STORED\r\n";
    }

    std::string remove(std::string const& key) {
        return items_.remove(key) == outcome::done ? "DELETED\r\n" : "NOT_FOUND\r\n";
    }

    std::string count(words const& asked, bool upwards) {
        auto const by = number_in<std::uint64_t>(asked[2]);
        if (!by) return "CLIENT_ERROR invalid numeric delta argument\r\n";
        std::uint64_t value = 0;
        switch (items_.count(asked[1], *by, upwards, std::nullopt, value)) {
        case outcome::done: return std::to_string(value) + "\r\n";
        case outcome::not_found: return "NOT_FOUND\r\n";
        default: return "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n";
        }
    }

    weft::buffered_byte_stream& client_;
    store& items_;
    bool silent_ = false;
};

} // namespace

void speak_text(weft::buffered_byte_stream& client, store& items) {
    conversation with(client, items);
    while (with.answer_next())
        continue;
}

} // namespace memcached
