#include "chaos.hpp"

#include <weft/runtime/lowlevel.hpp>
#include <weft/runtime/task_group.hpp>
#include <weft/runtime/time.hpp>
#include <weft/streams/memory.hpp>

#include <algorithm>
#include <chrono>
#include <deque>
#include <limits>
#include <memory>
#include <thread>
#include <vector>

namespace stress {

namespace {

using std::chrono::microseconds;

struct item {
    std::uint32_t producer;
    std::uint32_t number;
    std::unique_ptr<token> counted = std::make_unique<token>(); // objects need not be copyable
};

/// What became of each item of one producer.
struct account {
    explicit account(std::size_t items) : sent(items), received(items) {}
    std::deque<std::atomic<bool>> sent;
    std::deque<std::atomic<std::uint32_t>> received;
};

class channel {
public:
    using sender = weft::memory_object_send_stream<item>;
    using receiver = weft::memory_object_receive_stream<item>;

    channel(std::size_t producers, std::size_t items) {
        for (std::size_t i = 0; i < producers; ++i)
            accounts_.emplace_back(items);
    }

    void produce(sender to, std::uint32_t self, random_source random) {
        account& own = accounts_[self];
        for (std::uint32_t i = 0; i < own.sent.size(); ++i) {
            own.sent[i] = offer(to, item{self, i}, random);
            if (random.one_in(50)) wait_somehow(random);
            progress();
        }
        if (random.one_in(2)) to.close();
    }

    // What never waits may be called by any thread.
    void produce_outside(sender to, std::uint32_t self) {
        account& own = accounts_[self];
        for (std::uint32_t i = 0; i < own.sent.size(); ++i) {
            item next{self, i};
            while (!to.try_send(next))
                std::this_thread::yield();
            require(next.counted == nullptr, "an object that was sent is not the sender's any more");
            own.sent[i] = true;
            progress();
        }
    }

    // Until the end, or for a while: the others take over.
    void consume(receiver from, random_source random, bool stays) {
        std::deque<std::int64_t> last(accounts_.size(), -1);
        for (std::uint64_t left = random.below(200); stays || left > 0; --left) {
            try {
                if (random.one_in(4))
                    weft::move_on_after(microseconds(random.below(100)),
                                        [&] { accept(from.receive(), last); });
                else if (random.one_in(4))
                    accept_if_there(from, last);
                else
                    accept(from.receive(), last);
            } catch (weft::end_of_stream const&) {
                return;
            }
            if (random.one_in(50)) wait_somehow(random);
        }
    }

    void check() const {
        for (account const& one : accounts_)
            for (std::size_t i = 0; i < one.sent.size(); ++i)
                require(one.received[i] == (one.sent[i] ? 1u : 0u),
                        "what was sent arrives once, and what was not sent does not");
    }

private:
    // A send that is cut short has sent nothing; one that came back has, whatever comes then.
    static bool offer(sender& to, item what, random_source& random) {
        if (random.one_in(4)) return to.try_send(what);
        bool sent = false;
        auto const send = [&] {
            to.send(std::move(what));
            sent = true;
        };
        if (random.one_in(3))
            weft::move_on_after(microseconds(random.below(100)), send);
        else
            send();
        return sent;
    }

    void accept(item&& got, std::deque<std::int64_t>& last) {
        require(got.counted != nullptr && got.producer < accounts_.size(), "an object arrives whole");
        require(std::int64_t(got.number) > last[got.producer], "objects arrive in the order of sending");
        last[got.producer] = got.number;
        require(accounts_[got.producer].received[got.number].fetch_add(1) == 0, "an object arrives once");
        progress();
    }

    void accept_if_there(receiver& from, std::deque<std::int64_t>& last) {
        if (auto got = from.try_receive())
            accept(*std::move(got), last);
        else
            weft::lowlevel::checkpoint();
    }

    std::deque<account> accounts_;
};

std::size_t drawn_size(random_source& random) {
    return random.one_in(3) ? 0 : random.between(1, 1u << random.below(9));
}

} // namespace

void channel_storm(trial& now) {
    auto const inside = std::uint32_t(now.random.between(1, 20));
    auto const outside = std::uint32_t(now.threads(2));
    auto const consumers = now.random.between(1, 20);
    channel tested(inside + outside, now.random.between(1, 2000 / slowdown));
    // Without a buffer, try_send() succeeds only while somebody waits: threads would turn for long.
    auto const size = std::max<std::size_t>(drawn_size(now.random), outside);
    auto ends = weft::create_memory_object_stream<item>(
        now.random.one_in(16) ? std::numeric_limits<double>::infinity() : double(size));
    std::vector<std::jthread> threads;
    for (std::uint32_t i = 0; i < outside; ++i)
        threads.emplace_back([&tested, id = inside + i, to = ends.send.clone()]() mutable {
            tested.produce_outside(std::move(to), id);
        });
    now.run([&] {
        weft::with_task_group([&](weft::task_group& group) {
            for (std::uint32_t i = 0; i < inside; ++i)
                group.start_soon([&, i, to = ends.send.clone(), random = now.random.split()]() mutable {
                    tested.produce(std::move(to), i, random);
                });
            for (std::uint64_t i = 0; i < consumers; ++i) {
                bool const stays = i == 0 || now.random.one_in(2);
                group.start_soon(
                    [&, stays, from = ends.receive.clone(), random = now.random.split()]() mutable {
                        tested.consume(std::move(from), random, stays);
                    });
            }
            ends.send.close();
        });
    });
    auto const left = ends.receive.statistics();
    require(left.current_buffer_used == 0 && left.tasks_waiting_send == 0 &&
                left.tasks_waiting_receive == 0,
            "a stream that was drained is empty");
    tested.check();
}

} // namespace stress
