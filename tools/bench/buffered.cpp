#include "lines.hpp"

#include <weft/runtime/task_group.hpp>
#include <weft/streams/buffered.hpp>
#include <weft/streams/memory.hpp>

#include <stdexcept>
#include <string>

namespace bench {

namespace {

constexpr std::size_t line_length = 100; // with its end
constexpr std::size_t chunk_lines = 600;

std::string chunk_of_lines() {
    std::string chunk;
    for (std::size_t line = 0; line < chunk_lines; ++line)
        chunk += std::string(line_length - 1, char('a' + line % 26)) + '\n';
    return chunk;
}

// GB/s from a memory stream; the sender copies each chunk, as if it had read it from somewhere.
template <class Receive>
double read_lines(std::size_t octets, std::string const& chunk, Receive receive) {
    auto [send, from] = weft::create_memory_object_stream<weft::bytes>(4);
    weft::buffered_byte_receive_stream reader(from);
    std::size_t const chunks = octets / chunk.size() + 1;
    double const start = now();
    weft::with_task_group([&, &to = send](weft::task_group& group) {
        group.start_soon([&] {
            for (std::size_t sent = 0; sent < chunks; ++sent)
                to.send(chunk);
        });
        std::size_t length = 0;
        for (std::size_t line = 0; line < chunks * chunk_lines; ++line)
            length += receive(reader);
        if (length != chunks * chunk_lines * (line_length - 1))
            throw std::logic_error("lines were lost");
    });
    return double(chunks * chunk.size()) / (now() - start) / 1e9;
}

} // namespace

void receive_until(settings const& with) {
    std::size_t const octets = with.count(std::size_t(1) << 30);
    std::string const chunk = chunk_of_lines();
    repeat(with, "receive_until", "GB/s", [&] {
        return read_lines(octets, chunk, [](weft::buffered_byte_receive_stream& reader) {
            return reader.receive_until("\n", 4096).size();
        });
    });
    std::string line;
    repeat(with, "receive_until_into", "GB/s", [&] {
        return read_lines(octets, chunk, [&line](weft::buffered_byte_receive_stream& reader) {
            reader.receive_until(line, "\n", 4096);
            return line.size();
        });
    });
}

} // namespace bench
