#include <weft/io/file.hpp>

#include "io/scratch.hpp"
#include "support/run_test.hpp"

#include <weft/io/path.hpp>
#include <weft/runtime/run.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <optional>
#include <random>
#include <sstream>
#include <string>
#include <system_error>
#include <vector>

// Random operations on a file, and what Python's file object makes of the same ones.

namespace {

constexpr char oracle[] = R"py(
import sys

def shown(value):
    if isinstance(value, str): value = value.encode()
    return str(value) if isinstance(value, int) else value.hex()

for line in open(sys.argv[1]):
    what, *rest = line.split()
    try:
        if what == 'open':
            name, mode, newline = sys.argv[2] + '/' + rest[0], rest[1], rest[2]
            given = {} if 'b' in mode else {'encoding': rest[3] if rest[3:] else 'utf-8', 'newline':
                     None if newline == '-' else bytes.fromhex(newline[1:]).decode()}
            f = open(name, mode, **given)
            value = 0
        elif what == 'close': value = f.close() or 0
        elif what == 'read': value = f.read(int(rest[0]))
        elif what == 'readline': value = f.readline(int(rest[0]))
        elif what == 'seek': value = f.seek(int(rest[0]), int(rest[1]))
        elif what == 'tell': value = f.tell()
        elif what == 'write':
            data = bytes.fromhex(rest[0].strip('-'))
            value = f.write(data if 'b' in mode else data.decode())
        elif what == 'truncate': value = f.truncate(int(rest[0])) if rest else f.truncate()
        elif what == 'flush': value = f.flush() or 0
        elif what == 'readinto':
            space = bytearray(int(rest[0]))
            value = bytes(space[:f.readinto(space)])
        elif what == 'content': value = open(sys.argv[2] + '/' + rest[0], 'rb').read()
        print(shown(value))
    except OSError as e: print('!OSError')
    except ValueError as e: print('!ValueError')
)py";

std::string hex(std::string_view text) {
    constexpr char digits[] = "0123456789abcdef";
    std::string result;
    for (char const c : text) {
        auto const octet = static_cast<unsigned char>(c);
        result += {digits[octet / 16], digits[octet % 16]};
    }
    return result;
}

std::string shown(std::string const& value) { return hex(value); }
std::string shown(std::uint64_t value) { return std::to_string(value); }

// The operations as Python is told of them, and what they gave here.
struct record {
    std::ostringstream told;
    std::vector<std::string> gave;

    template <class Call> void note(std::string const& operation, Call call) {
        told << operation << '\n';
        try {
            gave.push_back(shown(call()));
        } catch (std::system_error const&) {
            gave.emplace_back("!OSError");
        } catch (std::invalid_argument const&) {
            gave.emplace_back("!ValueError");
        }
    }
};

class player {
public:
    player(std::uint64_t seed, scratch const& place, record& notes)
        : random_(seed), place_(place), notes_(notes), name_("file" + std::to_string(seed)) {}

    void play_binary(char const* mode) {
        place();
        weft::file file = weft::open_file(place_ / "ours" / name_, mode);
        notes_.note("open " + name_ + " " + mode + " -", [] { return std::uint64_t(0); });
        for (int i = 0; i < 120; ++i)
            step(file);
        finish(file);
    }

    void play_text(std::optional<std::string> const& newline) {
        place();
        weft::file file = weft::open_file(place_ / "ours" / name_, "r", {.newline = newline});
        notes_.note("open " + name_ + " r " + (newline ? "x" + hex(*newline) : "-"),
                    [] { return std::uint64_t(0); });
        for (int i = 0; i < 200; ++i) {
            std::int64_t const size = chance(4) ? -1 : std::int64_t(size_of_step());
            if (chance(2))
                notes_.note("read " + std::to_string(size / 4),
                            [&] { return file.read(size / 4); });
            else
                notes_.note("readline " + std::to_string(size),
                            [&] { return file.readline(size); });
            if (chance(40)) notes_.note("seek 0 0", [&] { return file.seek(0); });
        }
        finish(file);
    }

    // Characters of one size, so that no position that was told gets into the middle of one. Reading
    // begins and ends with a seek: right behind a write Python does not know the order of UTF-16,
    // and behind what was read from 0 it would write another byte order mark.
    void play_encoded(std::string const& encoding) {
        weft::file file = weft::open_file(place_ / "ours" / name_, "w+", {.encoding = encoding});
        notes_.note("open " + name_ + " w+ - " + encoding, [] { return std::uint64_t(0); });
        auto const seek = [&](std::uint64_t offset, int whence) {
            notes_.note("seek " + std::to_string(offset) + " " + std::to_string(whence),
                        [&] { return file.seek(std::int64_t(offset), whence); });
        };
        std::vector<std::uint64_t> told{0};
        for (int i = 0; i < 150; ++i) {
            std::string const data = std::string(chance(4) ? 0 : size_of_step() / 16, 'x') +
                                     (chance(2) || encoding == "utf-8-sig" ? "" : "\xc3\xa4\n");
            switch (random_() % 6) {
            case 0: seek(told[random_() % told.size()], SEEK_SET); break;
            case 1: notes_.note("tell", [&] { return told.emplace_back(file.tell()); }); break;
            case 2:
                seek(told[random_() % told.size()], SEEK_SET);
                notes_.note("read -1", [&] { return file.read(); });
                seek(0, SEEK_END);
                break;
            default:
                notes_.note("write " + (data.empty() ? "-" : hex(data)),
                            [&] { return std::uint64_t(file.write(data)); });
            }
        }
        finish(file);
    }

private:
    bool chance(unsigned one_in) { return random_() % one_in == 0; }

    // Mostly small, at times beyond every buffer.
    std::size_t size_of_step() {
        std::size_t const most = chance(8) ? 100'000 : chance(3) ? 20'000 : 200;
        return random_() % most;
    }

    std::string text(std::size_t size) {
        static std::vector<std::string> const pieces{"a",
                                                     "bc",
                                                     "\n",
                                                     "\r",
                                                     "\r\n",
                                                     " ",
                                                     "d",
                                                     "\xc3\xa4",
                                                     "\xe2\x82\xac",
                                                     "\xf0\x9f\x98\x80",
                                                     "long enough to make lines rare"};
        std::string result;
        while (result.size() < size)
            result += pieces[random_() % pieces.size()];
        return result;
    }

    void place() {
        std::string const content = text(random_() % 150'000);
        for (char const* const side : {"ours", "theirs"})
            std::ofstream(place_.where() / side / name_, std::ios::binary) << content;
    }

    void step(weft::file& file) {
        std::size_t const size = size_of_step();
        std::string const number = std::to_string(size);
        switch (random_() % 12) {
        case 0:
        case 1:
            return notes_.note("read " + number, [&] { return file.read(std::ptrdiff_t(size)); });
        case 2: return notes_.note("readline -1", [&] { return file.readline(); });
        case 3:
            return notes_.note("readline " + number,
                               [&] { return file.readline(std::ptrdiff_t(size)); });
        case 4:
            return notes_.note("seek " + number + " 0",
                               [&] { return file.seek(std::int64_t(size)); });
        case 5: {
            std::int64_t const distance = std::int64_t(size) - 5000;
            return notes_.note("seek " + std::to_string(distance) + " 1",
                               [&] { return file.seek(distance, SEEK_CUR); });
        }
        case 6:
            return notes_.note("seek -" + number + " 2",
                               [&] { return file.seek(-std::int64_t(size), SEEK_END); });
        case 7: return notes_.note("tell", [&] { return file.tell(); });
        case 8:
        case 9: {
            std::string const data = text(size);
            if (data.empty()) return;
            return notes_.note("write " + hex(data),
                               [&] { return std::uint64_t(file.write(data)); });
        }
        case 10:
            if (chance(2)) return notes_.note("truncate", [&] { return file.truncate(); });
            return notes_.note("truncate " + number, [&] { return file.truncate(size); });
        default:
            return notes_.note("readinto " + number, [&] {
                std::string space(size, '\0');
                space.resize(file.readinto(weft::as_buffer(space)));
                return space;
            });
        }
    }

    void finish(weft::file& file) {
        file.close();
        notes_.note("close", [] { return std::uint64_t(0); });
        notes_.note("content " + name_, [&] { return (place_ / "ours" / name_).read_bytes(); });
    }

    std::mt19937_64 random_;
    scratch const& place_;
    record& notes_;
    std::string const name_;
};

} // namespace

TEST_SUITE_BEGIN("io.file_python");

TEST_CASE("AF3: random operations give what Python's file objects give") {
    scratch const place;
    for (char const* const side : {"ours", "theirs"})
        std::filesystem::create_directory(place.where() / side);
    record notes;
    weft::run({.workers = 1}, [&] {
        std::uint64_t seed = 0;
        for (int round = 0; round < 8; ++round) {
            for (char const* const mode : {"r+b", "w+b"})
                player(++seed, place, notes).play_binary(mode);
            for (char const* const newline : {"", "\n", "\r", "\r\n"})
                player(++seed, place, notes).play_text(newline);
            player(++seed, place, notes).play_text({});
            for (char const* const encoding :
                 {"latin-1", "cp1252", "utf-16", "utf-16-be", "utf-32", "utf-8-sig"})
                player(++seed, place, notes).play_encoded(encoding);
        }
    });

    std::string const in = place.where().string() + "/";
    std::ofstream(in + "oracle.py") << oracle;
    std::ofstream(in + "told") << notes.told.str();
    std::string const command =
        "python3 " + in + "oracle.py " + in + "told " + in + "theirs >" + in + "answers";
    REQUIRE(std::system(command.c_str()) == 0);
    std::ifstream answers(in + "answers");
    std::istringstream told(notes.told.str());
    std::size_t differ = 0;
    for (std::string const& gave : notes.gave) {
        std::string theirs, operation;
        std::getline(answers, theirs);
        std::getline(told, operation);
        if (gave == theirs || ++differ > 5) continue;
        FAIL_CHECK(operation.substr(0, 60), ": ", gave.size(), " ", gave.substr(0, 60), " and not ",
                   theirs.size(), " ", theirs.substr(0, 60));
    }
    CHECK(differ == 0);
    CHECK(notes.gave.size() > 5000);
}

TEST_SUITE_END();
