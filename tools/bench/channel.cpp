#include "lines.hpp"

#include <weft/runtime/task_group.hpp>
#include <weft/streams/memory.hpp>

#include <utility>

namespace bench {

void pingpong(settings const& with) {
    std::size_t const rounds = with.count(500'000);
    repeat(with, "pingpong", "ns", [rounds] {
        auto there = weft::create_memory_object_stream<std::size_t>(0);
        auto back = weft::create_memory_object_stream<std::size_t>(0);
        double spent = 0;
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                for (std::size_t const item : there.receive)
                    back.send.send(item);
            });
            double const start = now();
            for (std::size_t i = 0; i < rounds; ++i) {
                there.send.send(i);
                back.receive.receive();
            }
            spent = now() - start;
            there.send.close();
        });
        return spent * 1e9 / double(rounds);
    });
}

void chan_mpmc(settings const& with) {
    constexpr std::size_t ends = 4;
    std::size_t const total = with.count(4'000'000);
    repeat(with, "chan_mpmc", "Mitems/s", [total] {
        auto [send, receive] = weft::create_memory_object_stream<std::size_t>(128);
        double const start = now();
        weft::with_task_group([&](weft::task_group& group) {
            for (std::size_t end = 0; end < ends; ++end) {
                group.start_soon([total, to = send.clone()]() mutable {
                    for (std::size_t i = 0; i < total / ends; ++i)
                        to.send(i);
                });
                group.start_soon([from = receive.clone()]() mutable {
                    for ([[maybe_unused]] std::size_t const item : from) {
                    }
                });
            }
            send.close();
            receive.close();
        });
        return double(total) / (now() - start) / 1e6;
    });
}

} // namespace bench
