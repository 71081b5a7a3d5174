#include <weft/streams/tls_stream.hpp>

#include "tls_pair.hpp"

#include <weft/runtime/cancel_scope.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <cstdlib>
#include <random>
#include <string>
#include <utility>

// Somebody in the middle who changes octets, by a seed. More of them: WEFT_FUZZ_SEEDS=N in the
// environment.
TEST_SUITE_BEGIN("streams.tls_fuzz");

namespace {

using namespace std::chrono_literals;
using namespace weft::test;
using weft::memory_network;
using weft::tls_stream;

unsigned seeds() {
    char const* const text = std::getenv("WEFT_FUZZ_SEEDS");
    return text == nullptr ? 250 : unsigned(std::strtoul(text, nullptr, 10));
}

// What happens at one place of one direction.
struct damage {
    explicit damage(std::mt19937& random)
        : place(random() % 3500), kind(random() % 6), length(1 + random() % 40), with(random()) {}

    // Applied to what is forwarded; gives whether the connection ends here.
    bool operator()(std::string& chunk, std::size_t before) const {
        if (place < before || place >= before + chunk.size()) return false;
        std::size_t const at = place - before;
        switch (kind) {
        case 0: chunk[at] = char(chunk[at] ^ (1 << (with % 8))); return false;
        case 1: chunk.erase(at, length); return false;
        case 2: chunk.insert(at, std::string(length, char(with))); return false;
        case 3: chunk.insert(at, chunk.substr(at, length)); return false;
        case 4: chunk.resize(at); return true;
        default:
            for (std::size_t next = at; next < std::min(chunk.size(), at + length); ++next)
                chunk[next] = char(with >> (next % 24));
            return false;
        }
    }

    std::size_t place;
    unsigned kind;
    std::size_t length;
    unsigned with;
};

void forward(weft::byte_stream& from, weft::byte_stream& to, damage const& done) {
    std::size_t before = 0;
    try {
        for (std::string chunk : from) {
            std::size_t const size = chunk.size();
            bool const ends = done(chunk, before);
            before += size;
            to.send(chunk);
            if (ends) break;
        }
        to.send_eof();
    } catch (weft::broken_resource_error const&) { // one side has gone
    }
}

// Which errors there may be; and what was said arrives as it was said or not at all. Gives whether it
// went well.
template <class Make> bool talk(Make make, std::string const& say, std::string const& expected) {
    std::string heard;
    bool went_well = false;
    try {
        tls_stream stream = make();
        stream.send(say);
        while (heard.size() < expected.size())
            heard += stream.receive();
        stream.close();
        went_well = true;
    } catch (weft::tls_error const& failure) {
        check(!failure.reason().empty(), "with a reason");
    } catch (weft::broken_resource_error const&) {
    } catch (weft::end_of_stream const&) {
    }
    check(expected.starts_with(heard), "nothing is made up");
    check(::ERR_peek_error() == 0, "nothing is left in OpenSSL's error queue");
    return went_well;
}

// No two places of it look alike.
std::string speech(std::mt19937& random, std::size_t most) {
    std::string text(1 + random() % most, '\0');
    for (char& octet : text)
        octet = char(random());
    return text;
}

// Gives whether it went well for both.
bool fuzz(unsigned seed, weft::tls_context const& client, weft::tls_context const& server) {
    std::mt19937 random(seed);
    memory_network network({.seed = seed, .largest_piece = 1 + random() % 3000});
    auto left = network.make_pair();
    auto right = network.make_pair();
    damage const there(random), back(random);
    std::string const question = speech(random, 3000);
    std::string const answer = speech(random, 3000);
    bool served = false;
    bool answered = false;
    weft::fail_after(1h, [&] { // of virtual time: somebody waits for what will not come
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { forward(left.second, right.first, there); });
            group.start_soon([&] { forward(right.first, left.second, back); });
            group.start_soon([&] {
                weft::move_on_after(10s, [&] {
                    served = talk(
                        [&] {
                            return tls_stream::wrap(std::move(right.second), {.context = server});
                        },
                        answer, question);
                });
                right.second.close();
            });
            weft::move_on_after(10s, [&] {
                answered = talk(
                    [&] {
                        return tls_stream::wrap(std::move(left.first),
                                                {.hostname = "localhost", .context = client});
                    },
                    question, answer);
            });
            left.first.close();
        });
    });
    return served && answered;
}

} // namespace

TEST_CASE("octets that are changed on their way are never taken for what was said") {
    auto const server = trusted_server();
    for (int const version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
        auto const client = only(trusting_client(), version);
        unsigned whole = 0;
        for (unsigned seed = 0; seed < seeds(); ++seed) {
            CAPTURE(seed);
            run_sim(0, [&] { whole += fuzz(seed, client, server); });
        }
        CHECK(whole > seeds() / 50);
        CHECK(whole < seeds() - seeds() / 50);
    }
}

TEST_CASE("connections that break at any moment, slow ones, and in pieces") {
    auto const server = trusted_server();
    auto const client = trusting_client();
    unsigned whole = 0;
    for (unsigned seed = 0; seed < seeds(); ++seed) {
        CAPTURE(seed);
        run_sim(seed % 5, [&] {
            std::mt19937 random(seed);
            memory_network network({.seed = seed,
                                    .most_delay = 100ms,
                                    .largest_piece = 1 + random() % 2000,
                                    .reset_probability = 0.03});
            auto ends = network.make_pair();
            std::string const question = speech(random, 20'000);
            std::string const answer = speech(random, 20'000);
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([&] {
                    talk([&] { return tls_stream::wrap(ends.second, {.context = server}); }, answer,
                         question);
                    ends.second.close();
                });
                whole += talk(
                    [&] {
                        return tls_stream::wrap(ends.first,
                                                {.hostname = "localhost", .context = client});
                    },
                    question, answer);
                ends.first.close();
            });
        });
    }
    CHECK(whole > seeds() / 50);
    CHECK(whole < seeds() - seeds() / 50);
}
