// A server of the protocol of Redis (RESP 2), enough for redis-cli and redis-benchmark. A client may
// send many commands before it reads: what has come is answered as a whole, with one send.
//
//   weft-example-resp          tries itself out
//   weft-example-resp PORT     until it is interrupted

#include <weft/weft.hpp>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

using namespace std::chrono_literals;

namespace {

using command = std::vector<std::string>;

constexpr std::size_t most_arguments = 1024;
constexpr std::size_t longest_argument = 1 << 20;

// What a client says that cannot be understood. Nothing after it can be, either.
struct protocol_error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

std::optional<long long> number_in(std::string_view text) {
    long long value = 0;
    auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
}

// Takes commands off the front of what has come, each only once it is complete. What has been understood of
// one is kept until the rest of it comes: nothing is read twice.
class command_reader {
public:
    void append(std::string_view received) { received_ += received; }

    // Nothing: there is more to come. Errors: protocol_error
    std::optional<command> take() {
        if (!count_) {
            if (!peek('*')) return take_words();
            count_ = take_count('*', most_arguments);
            if (!count_) return std::nullopt;
        }
        if (!take_arguments()) return std::nullopt;
        count_.reset();
        return std::exchange(words_, command());
    }

    void forget_what_was_taken() {
        received_.erase(0, place_);
        searched_ -= std::min(searched_, place_);
        place_ = 0;
    }

private:
    bool peek(char kind) const { return place_ < received_.size() && received_[place_] == kind; }

    std::optional<std::string_view> take_line() {
        std::size_t const end = received_.find('\n', std::max(place_, searched_));
        if (end == std::string::npos) {
            searched_ = received_.size();
            if (received_.size() - place_ > longest_argument)
                throw protocol_error("too big inline request");
            return std::nullopt;
        }
        std::string_view line = std::string_view(received_).substr(place_, end - place_);
        if (line.ends_with('\r')) line.remove_suffix(1);
        place_ = end + 1;
        return line;
    }

    // '*' or '$' with a number.
    std::optional<std::size_t> take_count(char kind, std::size_t most) {
        if (place_ == received_.size()) return std::nullopt;
        if (!peek(kind)) throw protocol_error(std::string("expected '") + kind + "'");
        auto const line = take_line();
        if (!line) return std::nullopt;
        auto const count = number_in(line->substr(1));
        if (!count || *count < 0 || std::size_t(*count) > most)
            throw protocol_error("invalid length");
        return std::size_t(*count);
    }

    // False: some of them are still to come.
    bool take_arguments() {
        while (words_.size() < *count_) {
            if (!length_) length_ = take_count('$', longest_argument);
            if (!length_ || received_.size() - place_ < *length_ + 2) return false;
            words_.push_back(received_.substr(place_, *length_));
            place_ += *length_ + 2;
            length_.reset();
        }
        return true;
    }

    std::optional<command> take_words() {
        auto line = take_line();
        if (!line) return std::nullopt;
        command words;
        while (!line->empty()) {
            std::size_t const end = std::min(line->find(' '), line->size());
            if (end != 0) words.emplace_back(line->substr(0, end));
            line->remove_prefix(std::min(end + 1, line->size()));
        }
        return words;
    }

    std::string received_;
    std::size_t place_ = 0;    // of what nobody took
    std::size_t searched_ = 0; // there is no end of a line from place_ up to here
    std::optional<std::size_t> count_;  // the array has so many words,
    std::optional<std::size_t> length_; // the next one so many octets,
    command words_;                     // and these are there
};

std::string text_answer(std::string_view text) { return "+" + std::string(text) + "\r\n"; }
std::string error_answer(std::string_view text) { return "-ERR " + std::string(text) + "\r\n"; }
std::string number_answer(long long value) { return ":" + std::to_string(value) + "\r\n"; }
std::string octets_answer(std::string_view octets) {
    return "$" + std::to_string(octets.size()) + "\r\n" + std::string(octets) + "\r\n";
}

class database {
public:
    std::string answer(command& asked) {
        std::ranges::transform(asked[0], asked[0].begin(),
                               [](unsigned char letter) { return char(std::tolower(letter)); });
        auto const found = std::ranges::find(known, asked[0], &entry::name);
        if (found == known.end()) return error_answer("unknown command '" + asked[0] + "'");
        if (asked.size() < found->least || asked.size() > found->most)
            return error_answer("wrong number of arguments for '" + asked[0] + "'");
        std::lock_guard const guard(mutex_);
        return (this->*found->carry_out)(asked);
    }

private:
    struct entry {
        std::string_view name;
        std::size_t least, most; // words, with the name
        std::string (database::*carry_out)(command&);
    };
    static std::array<entry, 8> const known;

    std::string ping(command& asked) {
        return asked.size() == 1 ? text_answer("PONG") : octets_answer(asked[1]);
    }
    std::string echo(command& asked) { return octets_answer(asked[1]); }
    std::string set(command& asked) {
        values_[asked[1]] = std::move(asked[2]);
        return text_answer("OK");
    }
    std::string set_many(command& asked) {
        if (asked.size() % 2 == 0) return error_answer("wrong number of arguments for 'mset'");
        for (std::size_t each = 1; each < asked.size(); each += 2)
            values_[asked[each]] = std::move(asked[each + 1]);
        return text_answer("OK");
    }
    std::string get(command& asked) {
        auto const found = values_.find(asked[1]);
        return found == values_.end() ? "$-1\r\n" : octets_answer(found->second);
    }
    std::string remove(command& asked) {
        long long gone = 0;
        for (std::size_t each = 1; each < asked.size(); ++each)
            gone += static_cast<long long>(values_.erase(asked[each]));
        return number_answer(gone);
    }
    std::string increment(command& asked) {
        std::string& value = values_.try_emplace(asked[1], "0").first->second;
        auto const before = number_in(value);
        if (!before || *before == std::numeric_limits<long long>::max())
            return error_answer("value is not an integer or out of range");
        value = std::to_string(*before + 1);
        return number_answer(*before + 1);
    }
    std::string count(command&) { return number_answer(static_cast<long long>(values_.size())); }

    std::mutex mutex_; // nothing waits while it is held
    std::map<std::string, std::string> values_;
};

std::array<database::entry, 8> const database::known{{
    {"ping", 1, 2, &database::ping},
    {"echo", 2, 2, &database::echo},
    {"set", 3, 3, &database::set},
    {"mset", 3, most_arguments, &database::set_many},
    {"get", 2, 2, &database::get},
    {"del", 2, most_arguments, &database::remove},
    {"incr", 2, 2, &database::increment},
    {"dbsize", 1, 1, &database::count},
}};

// Sends answers together, but not all that one send of the client has asked for: a few octets ask for a long one.
class answer_sender {
public:
    static constexpr std::size_t enough = 65536;

    explicit answer_sender(weft::byte_send_stream& client) : client_(client) {}

    void add(std::string_view answer) {
        waiting_ += answer;
        if (waiting_.size() >= enough) send();
    }
    void send() {
        client_.send(waiting_);
        waiting_.clear();
    }

private:
    weft::byte_send_stream& client_;
    std::string waiting_;
};

// Answers everything that is complete. False: the client may go, its last answer is there.
bool answer_all(command_reader& reader, database& data, answer_sender& answers) {
    try {
        while (std::optional<command> asked = reader.take()) {
            if (asked->empty()) continue;
            if (asked->size() == 1 && (asked->front() == "quit" || asked->front() == "QUIT")) {
                answers.add(text_answer("OK"));
                return false;
            }
            answers.add(data.answer(*asked));
        }
        reader.forget_what_was_taken();
        return true;
    } catch (protocol_error const& failure) {
        answers.add(error_answer(std::string("Protocol error: ") + failure.what()));
        return false;
    }
}

void attend(weft::socket_stream client, database& data) {
    command_reader reader;
    std::array<std::byte, 16384> chunk;
    answer_sender answers(client);
    try {
        while (std::size_t const count = client.receive_some(chunk)) {
            reader.append({reinterpret_cast<char const*>(chunk.data()), count});
            bool const goes_on = answer_all(reader, data, answers);
            answers.send();
            if (!goes_on) return client.send_eof();
        }
    } catch (weft::broken_resource_error const&) { // the client is gone
    }
}

void serve(weft::multi_listener<weft::socket_stream>& listener, database& data) {
    weft::serve(listener, [&](weft::socket_stream client) { attend(std::move(client), data); },
                {.drain = 0s, .on_stragglers = [](auto const&) {}});
}

void serve_until_interrupted(std::uint16_t port) {
    auto listener = weft::create_tcp_listener({.local_host = "127.0.0.1", .local_port = port});
    auto signals = weft::open_signal_receiver({SIGINT, SIGTERM});
    database data;
    std::fprintf(stderr, "ready %u\n",
                 unsigned(listener.extra(weft::socket_attribute::local_port)));
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] { serve(listener, data); });
        signals.receive();
        group.cancel("interrupted");
    });
}

void expect_answers(weft::buffered_byte_stream& server, std::string_view question,
                    std::string_view expected) {
    server.send(question);
    std::string const got = server.receive_exactly(expected.size());
    if (got != expected) throw std::runtime_error("to '" + std::string(question) + "': " + got);
}

void expect(bool holds, char const* what) {
    if (!holds) throw std::runtime_error(what);
}

// What is sent, by its sizes.
class measured_client final : public weft::byte_send_stream {
public:
    void send(weft::bytes_view data) override {
        longest = std::max(longest, data.size());
        all += data.size();
    }
    void close() override {}

    std::size_t longest = 0;
    std::size_t all = 0;
};

void try_many_long_answers() {
    constexpr std::size_t length = 1'000'000, questions = 100;
    measured_client client;
    answer_sender answers(client);
    command_reader reader;
    database data;
    reader.append("set k " + std::string(length, 'v') + "\r\n");
    for (std::size_t each = 0; each < questions; ++each)
        reader.append("get k\r\n");
    expect(answer_all(reader, data, answers), "all of it is understood");
    answers.send();
    expect(client.all > length * questions, "and answered");
    expect(client.longest < answer_sender::enough + length + 100, "but never all at once");
}

// To begin again with each octet would take longer than there is time.
void try_octet_by_octet() {
    std::string const word(1000, 'x');
    std::string whole = "*" + std::to_string(most_arguments) + "\r\n";
    for (std::size_t each = 0; each < most_arguments; ++each)
        whole += "$1000\r\n" + word + "\r\n";
    command_reader reader;
    for (std::size_t place = 0; place < whole.size(); ++place) {
        expect(!reader.take(), "a part is no command");
        reader.forget_what_was_taken();
        reader.append(std::string_view(whole).substr(place, 1));
    }
    std::optional<command> const got = reader.take();
    expect(got && *got == command(most_arguments, word), "all of it is one");
}

void try_out() {
    try_many_long_answers();
    try_octet_by_octet();
    weft::lowlevel::checkpoint(); // was there time enough?
    auto listener = weft::create_tcp_listener({.local_host = "127.0.0.1"});
    std::uint16_t const port = listener.extra(weft::socket_attribute::local_port);
    database data;
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] { serve(listener, data); });
        weft::buffered_byte_stream one(weft::connect_tcp("127.0.0.1", port));
        expect_answers(one, "PING\r\n", "+PONG\r\n");
        expect_answers(one, "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\n1\r\n2\r\n", "+OK\r\n");
        expect_answers(one, "get k\r\n", "$4\r\n1\r\n2\r\n");
        expect_answers(one, "incr n\r\nincr n\r\nget none\r\n", ":1\r\n:2\r\n$-1\r\n");
        expect_answers(one, "incr k\r\n", "-ERR value is not an integer or out of range\r\n");
        expect_answers(one, "set k\r\n", "-ERR wrong number of arguments for 'set'\r\n");
        expect_answers(one, "mset a 1 b 2\r\ndel a b c\r\ndbsize\r\n", "+OK\r\n:2\r\n:2\r\n");
        one.send("*2\r\n$4\r\nEC"); // the rest comes later
        weft::buffered_byte_stream other(weft::connect_tcp("127.0.0.1", port));
        expect_answers(other, "*1\r\n$-5\r\n", "-ERR Protocol error: invalid length\r\n");
        expect_answers(one, "HO\r\n$2\r\nhi\r\n", "$2\r\nhi\r\n");
        expect_answers(one, "QUIT\r\n", "+OK\r\n");
        std::byte octet[1];
        expect(one.receive_some(octet) + other.receive_some(octet) == 0,
               "there is no more to read than the answers");
        group.cancel("enough");
    });
}

} // namespace

int main(int argc, char** argv) try {
    auto const port = number_in(argc == 2 ? argv[1] : "0");
    if (argc > 2 || !port || *port < 0 || *port > 65535)
        return std::fprintf(stderr, "usage: %s [PORT]\n", argv[0]), 2;
    if (argc == 1)
        weft::run([] { weft::fail_after(5min, try_out); });
    else
        weft::run([&] { serve_until_interrupted(std::uint16_t(*port)); });
} catch (std::exception const& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
}
