#include <weft/io/path.hpp>

#include "io/scratch.hpp"
#include "pathlib_oracle.hpp"

#include <weft/io/file.hpp>
#include <weft/runtime/run.hpp>
#include <weft/sync/error.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <concepts>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include <sys/stat.h>
#include <unistd.h>

// Each method of path beside pathlib's, on the same tree.

namespace {

using weft::path;

std::string encoded(std::string_view text) {
    constexpr char digits[] = "0123456789ABCDEF";
    std::string result;
    for (char const c : text) {
        auto const octet = static_cast<unsigned char>(c);
        bool const plain =
            std::isalnum(octet) || std::string_view("_.-~/").find(c) != std::string_view::npos;
        if (plain && octet < 0x80)
            result += c;
        else
            result += {'%', digits[octet / 16], digits[octet % 16]};
    }
    return result;
}

std::string shown(bool value) { return value ? "1" : "0"; }
template <std::integral T> std::string shown(T value) { return std::to_string(value); }
std::string shown(std::string const& value) { return encoded(value); }
std::string shown(path const& value) { return encoded(value.as_posix()); }
struct done {};
std::string shown(done) { return "None"; }
struct raw { // already shown
    std::string text;
};
std::string shown(raw const& value) { return value.text; }
template <class T> std::string shown(std::vector<T> const& values) {
    std::string result;
    for (T const& value : values)
        result += (result.empty() ? "" : ",") + shown(value);
    return "[" + result + "]";
}
raw tuple(std::vector<std::string> const& parts) {
    std::string result;
    for (std::string const& part : parts)
        result += (result.empty() ? "" : ",") + part;
    return {"[" + result + "]"};
}

class answers {
public:
    template <class Ask> void say(std::string const& label, Ask ask) {
        std::string value;
        try {
            if constexpr (std::is_void_v<std::invoke_result_t<Ask>>) {
                ask();
                value = shown(done());
            } else {
                value = shown(ask());
            }
        } catch (std::invalid_argument const&) {
            value = "!ValueError";
        } catch (std::system_error const& failure) {
            value = "!OSError " + std::to_string(failure.code().value());
        } catch (weft::lookup_error const&) {
            value = "!KeyError";
        } catch (std::logic_error const&) {
            value = "!RuntimeError";
        }
        text << label << " = " << value << '\n';
    }

    std::ostringstream text;
};

std::vector<std::string> const paths{"",        ".",         "..",       "/",
                                     "//",      "///",       "a",        "a/",
                                     "a//b",    "./a",       "a/.",      "a/./b",
                                     "a/..",    "../a",      "/a",       "//a",
                                     "///a",    "//a/b",     "/a/b/c",   "a/b/c.tar.gz",
                                     ".bashrc", "a/.bashrc", "..a",      "a.",
                                     "a..b",    "a..",       ".a.b",     "a.b.",
                                     "x/y.z/",  "a b",       "a%b",      "a?b",
                                     "a\nb",    "\xff\xfe",  "\xc3\xa4", "/\xc3\xa4.\xff",
                                     "a-b",     "a/b",       "A",        "[a]",
                                     "~",       "~/x",       "...",      "a/b/../c",
                                     "file.txt"};
std::vector<std::string> const others{
    "",      ".",      "..",       "/",        "a",      "b",     "a/b",          "/a",
    "//a",   "*",      "?",        "*.gz",     "a*",     "[ab]",  "[!ab]",        "[a-c]*",
    "[]a]",  "[",      "[!]a]*",   "[c-a]",    "[!c-a]", "*/*",   "/*",           "**",
    "a/*",   "/a/b/*", "*.tar.*",  ".*",       ".txt",   ".",     "..x",          ".a.b",
    "x",     "x/",     "c.tar.gz", "\xc3\xa4", "\xff?",  "?\xfe", "*[\xc3\xa4]*", "a\nb",
    "[[]a]", "[a-]",   "[--a]",    "***",      "a**b",   "[*]",   "[?]"};

void ask_pure(answers& out) {
    for (std::string const& text : paths) {
        path const p = text;
        std::string const l = encoded(text) + " ";
        out.say(l + "str", [&] {
            std::ostringstream whole;
            whole << p;
            return whole.str();
        });
        out.say(l + "as_posix", [&] { return p.as_posix(); });
        out.say(l + "is_absolute", [&] { return p.is_absolute(); });
        out.say(l + "as_uri", [&] { return p.as_uri(); });
        out.say(l + "is_reserved", [&] { return p.is_reserved(); });
        out.say(l + "parts", [&] { return p.parts(); });
        out.say(l + "drive", [&] { return p.drive(); });
        out.say(l + "root", [&] { return p.root(); });
        out.say(l + "anchor", [&] { return p.anchor(); });
        out.say(l + "parent", [&] { return p.parent(); });
        out.say(l + "parents", [&] { return p.parents(); });
        out.say(l + "name", [&] { return p.name(); });
        out.say(l + "suffix", [&] { return p.suffix(); });
        out.say(l + "suffixes", [&] { return p.suffixes(); });
        out.say(l + "stem", [&] { return p.stem(); });
        for (std::string const& other : others) {
            path const q = other;
            std::string const both = l + encoded(other) + " ";
            out.say(both + "init", [&] { return path(text, other); });
            out.say(both + "joinpath", [&] { return p.joinpath(other, "x"); });
            out.say(both + "div", [&] { return p / other; });
            out.say(both + "rdiv", [&] { return other / p; });
            out.say(both + "is_relative_to", [&] { return p.is_relative_to(q); });
            out.say(both + "relative_to", [&] { return p.relative_to(q); });
            out.say(both + "match", [&] { return p.match(other); });
            out.say(both + "equal", [&] { return p == q; });
            out.say(both + "hash",
                    [&] { return p != q || std::hash<path>()(p) == std::hash<path>()(q); });
            if (p.root() == q.root()) // 3.12 changed the order of the others
                out.say(both + "order", [&] {
                    return tuple({shown(p < q), shown(p <= q), shown(p > q), shown(p >= q)});
                });
            out.say(both + "with_name", [&] { return p.with_name(other); });
            if (!other.empty()) // an empty stem is an error since 3.13
                out.say(both + "with_stem", [&] { return p.with_stem(other); });
            if (!other.empty() || text != "..a") // "." is no name since 3.13
                out.say(both + "with_suffix", [&] { return p.with_suffix(other); });
        }
    }
}

template <class Range> std::vector<path> sorted(Range range) {
    std::vector<path> found;
    for (path const& each : range)
        found.push_back(each);
    std::ranges::sort(found, {}, [](path const& p) { return p.as_posix(); });
    return found;
}

path without_base(path const& resolved) {
    std::string const base = path::cwd().as_posix();
    std::string const text = resolved.as_posix();
    if (!text.starts_with(base)) return resolved;
    return text.size() == base.size() ? path("") : path(text.substr(base.size()));
}

raw resolved(path const& p, bool strict) {
    std::string const text = without_base(p.resolve({.strict = strict})).as_posix();
    return {text == "." ? "" : encoded(text)};
}

void ask_about(answers& out, path const& p, std::string const& text) {
    std::string const l = "fs " + encoded(text) + " ";
    out.say(l + "exists", [&] { return p.exists(); });
    out.say(l + "is_file", [&] { return p.is_file(); });
    out.say(l + "is_dir", [&] { return p.is_dir(); });
    out.say(l + "is_symlink", [&] { return p.is_symlink(); });
    out.say(l + "is_fifo", [&] { return p.is_fifo(); });
    out.say(l + "is_socket", [&] { return p.is_socket(); });
    out.say(l + "is_block_device", [&] { return p.is_block_device(); });
    out.say(l + "is_char_device", [&] { return p.is_char_device(); });
    out.say(l + "readlink", [&] { return p.readlink(); });
    out.say(l + "is_mount", [&] { return p.is_mount(); });
    out.say(l + "stat", [&] { return tuple({shown(p.stat().st_mode), shown(p.stat().st_nlink)}); });
    out.say(l + "stat nofollow", [&] { return p.stat({.follow_symlinks = false}).st_mode; });
    out.say(l + "lstat", [&] {
        return tuple({shown(p.lstat().st_mode), shown(p.lstat().st_ino > 0)});
    });
    out.say(l + "owner", [&] { return p.owner(); });
    out.say(l + "group", [&] { return p.group(); });
    out.say(l + "samefile", [&] { return p.samefile("file"); });
    out.say(l + "samefile other", [&] { return path("dirlink").samefile(p); });
    out.say(l + "absolute", [&] { return p.absolute() == path::cwd() / p; });
    out.say(l + "resolve", [&] { return resolved(p, false); });
    out.say(l + "resolve_strict", [&] { return resolved(p, true); });
    out.say(l + "iterdir", [&] { return text == "/" ? raw{""} : raw{shown(sorted(p.iterdir()))}; });
}

std::vector<std::string> names_in_tree() {
    std::vector<std::string> names{".",
                                   "file",
                                   "dir",
                                   "dir/sub",
                                   "link",
                                   "dangling",
                                   "loop",
                                   "dirlink",
                                   "fifo",
                                   "missing",
                                   "file/below",
                                   "dangling/below",
                                   "loop/x",
                                   "dir/../file",
                                   "dirlink/../file",
                                   "bad\xff",
                                   "new\nline",
                                   "/dev/null",
                                   "/",
                                   std::string("nul\0nul", 7),
                                   "dirlink/sub/deep",
                                   "chain"};
    std::ranges::sort(names);
    return names;
}

raw in_order(std::vector<std::pair<std::string, std::string>> found) {
    std::ranges::sort(found);
    std::vector<std::string> lines;
    for (auto const& [name, line] : found)
        lines.push_back(line);
    return tuple(lines);
}

raw walked(bool top_down) {
    std::vector<std::pair<std::string, std::string>> found;
    for (auto& [directory, directories, files] : path(".").walk({.top_down = top_down})) {
        std::ranges::sort(directories);
        std::ranges::sort(files);
        found.emplace_back(directory.as_posix(),
                           tuple({shown(directory), shown(directories), shown(files)}).text);
    }
    return in_order(std::move(found));
}

std::vector<std::string> const patterns{
    "*",       "*/*",        "**/*",        "**/",       "dir/*",      "dir*/s*",     "*/sub/deep",
    "**/deep", "**/sub/*",   "../*/file",   "file",      "missing",    "dangling",    "dir/",
    "*/",      "f?l*",       "[a-f]i[!x]e", "**/*.txt",  "**/d*/**/*", "dir/**/deep", "",
    "/",       "/abs",       ".",           "dirlink/*", "dir/../*",   "**/../file",  "loop/*",
    "file/*",  "*\xc3\xa4*", "new*"};

void ask_patterns(answers& out) {
    for (std::string const& pattern : patterns) {
        if (pattern != "." && pattern != "dangling") // not as they were before 3.12
            out.say("glob " + encoded(pattern), [&] { return sorted(path(".").glob(pattern)); });
        if (!pattern.empty())
            out.say("rglob " + encoded(pattern),
                    [&] { return sorted(path("dir").rglob(pattern)); });
    }
}

raw state_of_tree() {
    std::vector<std::pair<std::string, std::string>> found;
    for (auto const& [directory, directories, files] : path(".").walk())
        for (auto const* names : {&directories, &files})
            for (std::string const& name : *names) {
                path const p = directory / name;
                auto const status = p.lstat();
                std::string const content = p.is_symlink() ? shown(p.readlink())
                                            : p.is_file()  ? shown(p.read_bytes())
                                                           : "";
                found.emplace_back(p.as_posix(),
                                   tuple({shown(p), shown(status.st_mode),
                                          p.is_dir() ? "0" : shown(status.st_nlink), content})
                                       .text);
            }
    return in_order(std::move(found));
}

std::size_t written(path const& to, char const* mode, std::string_view what) {
    weft::file out = to.open(mode);
    std::size_t const count = out.write(what);
    out.close();
    return count;
}

void change_tree(answers& out) {
    auto const act = [&](std::string const& label, auto change) {
        out.say("do " + label, change);
        out.say("then " + label, state_of_tree);
    };
    using p = path;
    act("mkdir", [] { p("new").mkdir(); });
    std::filesystem::create_symlink("nowhere", "new/dangling");
    std::filesystem::create_symlink("nothing", "new/dangling2");
    act("mkdir again", [] { p("new").mkdir(); });
    act("mkdir exist_ok", [] { p("new").mkdir({.exist_ok = true}); });
    act("mkdir over file", [] { p("file").mkdir({.exist_ok = true}); });
    act("mkdir no parents", [] { p("new/a/b").mkdir(); });
    act("mkdir parents", [] { p("new/a/b").mkdir({.mode = 0700, .parents = true}); });
    act("touch", [] { p("new/t").touch(); });
    act("touch again", [] { p("new/t").touch({.exist_ok = false}); });
    act("touch mode", [] { p("new/t2").touch({.mode = 0600}); });
    act("touch dangling", [] { p("new/dangling").touch(); });
    act("touch loop", [] { p("loop").touch(); });
    act("touch dir", [] { p("new").touch(); });
    act("touch missing", [] { p("nowhere/t").touch(); });
    act("chmod", [] { p("new/t").chmod(0640); });
    act("chmod missing", [] { p("new/none").chmod(0640); });
    act("chmod loop", [] { p("loop").chmod(0640); });
    act("lchmod", [] { p("new/t").lchmod(0604); });
    act("lchmod missing", [] { p("new/none").lchmod(0604); });
    act("symlink", [] { p("new/s").symlink_to("t"); });
    act("symlink again", [] { p("new/s").symlink_to("t"); });
    act("symlink dir", [] { p("new/sd").symlink_to("a", {.target_is_directory = true}); });
    act("mkdir over links", [] { p("new/sd").mkdir({.exist_ok = true}); });
    act("mkdir over dangling", [] { p("dangling").mkdir({.exist_ok = true}); });
    act("hardlink", [] { p("new/h").hardlink_to("new/t"); });
    act("hardlink missing", [] { p("new/h2").hardlink_to("new/none"); });
    act("hardlink dir", [] { p("new/h3").hardlink_to("new/a"); });
    act("write_bytes", [] { return p("new/t").write_bytes(std::string_view("a\0b\xff", 4)); });
    act("read_bytes", [] { return p("new/h").read_bytes(); });
    act("read_bytes missing", [] { return p("new/none").read_bytes(); });
    act("read_bytes dir", [] { return p("new").read_bytes(); });
    act("read_text bad", [] { return p("new/h").read_text(); });
    act("read_text replace", [] { return p("new/h").read_text({.errors = "replace"}); });
    act("read_text ignore", [] { return p("new/h").read_text({.errors = "ignore"}); });
    act("read_text latin-1", [] { return p("new/h").read_text({.encoding = "latin-1"}); });
    act("write_text", [] { return p("new/u").write_text("zä€\U0001f600\n"); });
    act("write_text newline", [] { return p("new/v").write_text("a\nb\n", {.newline = "\r\n"}); });
    act("read_text newline", [] { return p("new/v").read_text(); });
    act("write_text utf-16", [] { return p("new/w").write_text("aä\n", {.encoding = "utf-16"}); });
    act("read_text utf-16", [] { return p("new/w").read_text({.encoding = "utf-16"}); });
    act("write_text sig",
        [] { return p("new/sig").write_text("aä\n", {.encoding = "utf-8-sig"}); });
    act("read_bytes sig", [] { return p("new/sig").read_bytes(); });
    act("read_text sig", [] { return p("new/sig").read_text({.encoding = "utf-8-sig"}); });
    act("write_text ascii",
        [] { return p("new/x").write_text("ä", {.encoding = "ascii", .errors = "replace"}); });
    act("open append", [] { return written(p("new/o"), "ab", "one"); });
    act("open read", [] { return p("new/o").open("rb").read(); });
    act("open new", [] { return written(p("new/o"), "x", "two"); });
    act("open dir", [] { return p("new").open("r").read(); });
    act("open loop", [] { return written(p("loop"), "w", "x"); });
    act("open dangling", [] { return p("new/dangling2").open("r").read(); });
    act("open no mode", [] { return p("new/o").open("q").read(); });
    act("rename", [] { return p("new/u").rename("new/renamed"); });
    act("rename missing", [] { return p("new/u").rename("new/renamed"); });
    act("rename over", [] { return p("new/v").rename("new/renamed"); });
    act("rename into dir", [] { return p("new/renamed").rename("new/a"); });
    act("rename dir over file", [] { return p("new/a").rename("new/renamed"); });
    act("rename below itself", [] { return p("new/a").rename("new/a/b/c"); });
    act("replace missing", [] { return p("new/none").replace("new/w"); });
    act("replace dir", [] { return p("new/a").replace("new/a2"); });
    act("replace back", [] { return p("new/a2").replace("new/a"); });
    act("replace", [] { return p("new/renamed").replace("new/w"); });
    act("unlink", [] { p("new/w").unlink(); });
    act("unlink missing", [] { p("new/w").unlink(); });
    act("unlink missing_ok", [] { p("new/w").unlink({.missing_ok = true}); });
    act("unlink link", [] { p("new/sd").unlink(); });
    act("unlink below file", [] { p("file/x").unlink({.missing_ok = true}); });
    act("unlink dir", [] { p("new/a").unlink(); });
    act("rmdir full", [] { p("new").rmdir(); });
    act("rmdir", [] { p("new/a/b").rmdir(); });
    act("rmdir missing", [] { p("new/none").rmdir(); });
    act("rmdir link", [] { p("dirlink").rmdir(); });
    act("rmdir file", [] { p("new/t").rmdir(); });
    out.say("expanduser alone", [] { return p("~").expanduser(); });
    out.say("cwd", [] { return p::cwd() == p("x/..").absolute().parent().parent(); });
    out.say("expanduser", [] { return p("~/x").expanduser(); });
    out.say("expanduser root", [] { return p("~root/x").expanduser(); });
    out.say("expanduser nobody there", [] { return p("~no-such-user/x").expanduser(); });
    out.say("expanduser inside", [] { return p("x/~").expanduser(); });
    out.say("home", [] { return p::home(); });
}

void build_tree(std::filesystem::path const& root) {
    namespace fs = std::filesystem;
    fs::create_directories(root / "dir" / "sub" / "deep");
    fs::create_directories(root / "dir" / "\xc3\xa4");
    for (char const* const name :
         {"file", "dir/a.txt", "dir/sub/b.txt", "dir/sub/deep/c.txt", "bad\xff", "new\nline",
          "dir/\xc3\xa4/\xc3\xa4.txt", "dir/.hidden", "dir/file"})
        std::ofstream(root / name) << name;
    fs::create_symlink("file", root / "link");
    fs::create_symlink("link", root / "chain");
    fs::create_symlink("nowhere", root / "dangling");
    fs::create_symlink("loop", root / "loop");
    fs::create_directory_symlink("dir", root / "dirlink");
    fs::create_directory_symlink("..", root / "dir" / "up");
    CHECK(::mkfifo((root / "fifo").c_str(), 0644) == 0);
}

// The working directory of the process, while the test uses relative paths.
class in_directory {
public:
    explicit in_directory(std::filesystem::path const& there)
        : old_(std::filesystem::current_path()) {
        std::filesystem::current_path(there);
    }
    ~in_directory() { std::filesystem::current_path(old_); }

private:
    std::filesystem::path old_;
};

void write_inputs(std::filesystem::path const& name) {
    std::ofstream out(name);
    for (std::string const& each : paths)
        out << "P " << encoded(each) << '\n';
    for (std::string const& each : others)
        out << "Q " << encoded(each) << '\n';
}

std::vector<std::string> lines_of(std::istream& in) {
    std::vector<std::string> lines;
    for (std::string line; std::getline(in, line);)
        lines.push_back(line);
    return lines;
}

} // namespace

TEST_SUITE_BEGIN("io.path_pathlib");

TEST_CASE("PH1, PH3, PH5, PH6, PH8, PH9, PH10: every method gives what Python's pathlib gives") {
    scratch const place;
    ::mode_t const mask = ::umask(022);
    build_tree(place.where() / "ours");
    build_tree(place.where() / "theirs");
    write_inputs(place.where() / "inputs");
    std::ofstream(place.where() / "oracle.py") << pathlib_oracle;

    answers ours;
    ask_pure(ours);
    {
        in_directory const inside(place.where() / "ours");
        weft::run({.workers = 2}, [&] {
            for (std::string const& name : names_in_tree())
                ask_about(ours, name, name);
            ours.say("walk 1", [] { return walked(true); });
            ours.say("walk 0", [] { return walked(false); });
            ask_patterns(ours);
            change_tree(ours);
        });
    }
    ::umask(mask);

    std::string const in = place.where().string() + "/";
    std::string const command = "python3 " + in + "oracle.py " + in + "inputs " + in + "theirs >" +
                                in + "answers 2>" + in + "errors";
    REQUIRE_MESSAGE(
        std::system(command.c_str()) == 0,
        (std::ostringstream() << std::ifstream(place.where() / "errors").rdbuf()).str());
    std::ifstream answered(place.where() / "answers");
    std::vector<std::string> const theirs = lines_of(answered);
    std::istringstream own(ours.text.str());
    std::vector<std::string> const mine = lines_of(own);
    CHECK(theirs.size() == mine.size());
    CHECK(mine.size() > 20'000);
    for (std::size_t i = 0; i < std::min(mine.size(), theirs.size()); ++i)
        CHECK(mine[i] == theirs[i]);
}

TEST_SUITE_END();
