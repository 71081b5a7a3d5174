#include "lines.hpp"

#include <weft/io/file.hpp>
#include <weft/io/path.hpp>
#include <weft/io/temp.hpp>

#include <array>
#include <fstream>
#include <stdexcept>
#include <string>

namespace bench {

namespace {

constexpr std::size_t small = 64;
constexpr std::size_t block = 4096;
constexpr std::size_t blocks = 8192; // 32 MiB: cached, and more than what is near a core
constexpr std::size_t names_in_directory = 100;

// A file in the page cache; gone with the object.
weft::named_temporary_file make_file(std::size_t size) {
    weft::named_temporary_file made;
    made.write(std::string(size, 'x'));
    made.flush();
    return made;
}

void expect(std::size_t count, std::size_t wanted) {
    if (count != wanted) throw std::runtime_error("a read was short, or a walk");
}

void make_tree(weft::path const& root, std::size_t files) {
    for (std::size_t i = 0; i < files; ++i) {
        weft::path const in = root / std::to_string(i / names_in_directory);
        if (i % names_in_directory == 0) in.mkdir();
        std::ofstream((in / std::to_string(i)).as_posix());
    }
}

} // namespace

// One small read after the other, per read: through the file's buffer, and each by the system.
void file_reads(settings const& with) {
    std::size_t const count = with.count(100'000);
    auto const measure = [count](weft::open_options const& how) {
        weft::named_temporary_file const source = make_file(count * small);
        weft::file in = weft::open_file(source.name(), "rb", how);
        std::array<char, small> space;
        double const begin = now();
        for (std::size_t i = 0; i < count; ++i)
            expect(in.readinto(weft::as_buffer(space)), small);
        return (now() - begin) * 1e9 / double(count);
    };
    repeat(with, "file_reads", "ns", [&] { return measure({}); });
    repeat(with, "file_reads_unbuffered", "ns", [&] { return measure({.buffering = 0}); });
}

// Blocks anywhere in a file, per seek and read.
void file_reads_random(settings const& with) {
    std::size_t const count = with.count(100'000);
    repeat(with, "file_reads_random", "ns", [count] {
        weft::named_temporary_file const source = make_file(blocks * block);
        weft::file in = weft::open_file(source.name(), "rb");
        std::array<char, block> space;
        random_source random{1};
        double const begin = now();
        for (std::size_t i = 0; i < count; ++i) {
            in.seek(std::int64_t(random() % blocks * block));
            expect(in.readinto(weft::as_buffer(space)), block);
        }
        return (now() - begin) * 1e9 / double(count);
    });
}

// A tree of so many files, a hundred in each directory, from one end to the other, in milliseconds.
void walk_tree(settings const& with) {
    std::size_t const files = with.count(100'000);
    weft::run(with.runtime(), [&] {
        weft::temporary_directory tree;
        make_tree(tree.name(), files);
        std::vector<double> values;
        for (int i = -1; i < with.repetitions; ++i) { // the first one warms up
            std::size_t found = 0;
            double const begin = now();
            for (weft::walk_entry const& each : tree.name().walk())
                found += each.files.size();
            if (i >= 0) values.push_back((now() - begin) * 1e3);
            expect(found, files);
        }
        print("walk_tree", values, "ms");
        tree.close();
    });
}

} // namespace bench
