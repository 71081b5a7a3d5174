#include "conformance_checks.hpp"

#include <weft/io/bytes.hpp>

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <vector>

namespace weft::detail {

namespace {

constexpr std::size_t many_parts = 3000; // more than writev() takes at once (IOV_MAX)

// By receive_some(); nothing at the end.
bytes receive_some_of(byte_receive_stream& from, std::size_t at_most) {
    bytes result(at_most, '\0');
    std::size_t const count = from.receive_some(as_buffer(result));
    expect_of_stream(count <= at_most, "receive_some() gives no more than there is room for");
    result.resize(count);
    return result;
}

} // namespace

bytes pattern(std::size_t size, unsigned start) {
    bytes data(std::min(size, std::size_t(1) << 16), '\0'); // then it repeats itself
    for (std::size_t at = 0; at < data.size(); ++at)
        data[at] = char((at * 131 + (at >> 8) + start) & 0xff);
    while (data.size() < size)
        data.append(data, 0, size - data.size());
    return data;
}

bytes receive_exactly(byte_receive_stream& from, std::size_t size, std::size_t at_once) {
    bytes result;
    for (bool by_string = true; result.size() < size; by_string = !by_string) {
        std::size_t const at_most = std::min(at_once, size - result.size());
        bytes const some = by_string ? from.receive(at_most) : receive_some_of(from, at_most);
        expect_of_stream(!some.empty() && some.size() <= at_most,
                         "there are from 1 to as many octets as were asked for");
        result += some;
    }
    return result;
}

void transfer(byte_send_stream& from, byte_receive_stream& to, unsigned start) {
    bytes const data = pattern(much, start);
    with_task_group([&](task_group& group) {
        group.start_soon([&] { from.send(data); });
        std::size_t const at_once = 1 + start * 5000;
        expect_of_stream(receive_exactly(to, much, at_once) == data,
                         "much arrives as it was sent, however it is received");
    });
}

void check_misuse(byte_stream_ends& ends) {
    expect_failure<std::invalid_argument>([&] { ends.here.receive(0); }, "receive(0) is refused");
    expect_failure<std::invalid_argument>([&] { ends.here.receive_some({}); },
                                          "an empty buffer is refused");
    static constexpr typed_attribute<int> unknown{"unknown"};
    expect_failure<typed_attribute_lookup_error>([&] { ends.here.extra(unknown); },
                                                 "an attribute that is not there is not given");
    expect_of_stream(ends.here.extra(unknown, 7) == 7, "a fallback stands for what is not there");
    drop(ends);
}

void check_small(byte_stream_ends& ends) {
    with_task_group([&](task_group& group) {
        group.start_soon([&] {
            ends.here.send("");
            ends.here.send("on");
            bytes_view const parts[] = {"e", "", " two"};
            ends.here.send(parts);
            ends.here.send(std::span<bytes_view const>());
            ends.here.send("!");
        });
        expect_of_stream(receive_exactly(ends.there, 8, 2) == "one two!",
                         "octets arrive in order, and nothing else does");
    });
    with_task_group([&](task_group& group) {
        group.start_soon([&] { ends.here.send("x"); });
        expect_of_stream(ends.there.receive(SIZE_MAX) == "x", "receive() takes any limit");
    });
    close_both_at_once(ends);
}

void check_much(byte_stream_ends& ends) {
    transfer(ends.here, ends.there, 1);
    with_task_group([&](task_group& group) {
        group.start_soon([&] { transfer(ends.here, ends.there, 2); });
        transfer(ends.there, ends.here, 3);
    });
    close_both_at_once(ends);
}

// Of 0 to 199 octets.
void check_gathered(byte_stream_ends& ends) {
    bytes const data = pattern(much, 6);
    std::vector<bytes_view> parts;
    std::size_t used = 0;
    for (std::size_t number = 0; number + 1 < many_parts; ++number) {
        parts.push_back(bytes_view(data).subview(used, number % 200));
        used += parts.back().size();
    }
    parts.push_back(bytes_view(data).subview(used));
    with_task_group([&](task_group& group) {
        group.start_soon([&] {
            ends.here.send(parts);
            ends.here.send("!");
        });
        expect_of_stream(receive_exactly(ends.there, much + 1, 10'000) == data + "!",
                         "all parts arrive, in order");
    });
    close_both_at_once(ends);
}

void check_one_receiver(byte_stream_ends& ends) {
    with_task_group([&](task_group& group) {
        group.start_soon([&] {
            expect_of_stream(ends.here.receive(1) == "x",
                             "a second receiver does not harm the first");
        });
        wait_all_tasks_blocked();
        expect_failure<busy_resource_error>([&] { ends.here.receive(); },
                                            "a second receiver is turned away");
        ends.there.send("x");
    });
    drop(ends);
}

void check_one_sender(byte_stream_ends& ends) {
    bytes const data = pattern(too_much, 5);
    with_task_group([&](task_group& group) {
        group.start_soon([&] { ends.here.send(data); });
        wait_all_tasks_blocked();
        expect_failure<busy_resource_error>([&] { ends.here.send("x"); },
                                            "a second sender is turned away");
        expect_of_stream(receive_exactly(ends.there, too_much, 65536) == data,
                         "a second sender does not harm the first");
    });
    drop(ends);
}

} // namespace weft::detail
