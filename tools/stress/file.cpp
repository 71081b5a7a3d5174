#include "chaos.hpp"

#include <weft/io/file.hpp>
#include <weft/io/path.hpp>
#include <weft/io/temp.hpp>
#include <weft/runtime/task_group.hpp>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <string>

namespace stress {

namespace {

using std::chrono::microseconds;

/// A file and what must be in it. Each step happens or, cancelled, does not.
class watched_file {
public:
    watched_file(weft::path name, random_source& random)
        : name_(std::move(name)), random_(random),
          file_(weft::open_file(name_, "w+b", {.buffering = buffering_from(random)})) {}

    void do_something() {
        switch (random_.below(6)) {
        case 0: return seek();
        case 1: return truncate();
        case 2: return file_.flush();
        case 3: return read();
        default: return write();
        }
    }

    // In one way or another; gives what must be in it then.
    std::string finish() && {
        weft::file closing = std::move(file_);
        if (!random_.one_in(3))
            weft::move_on_after(microseconds(random_.below(200)), [&] { closing.close(); });
        return std::move(content_);
    }

private:
    static int buffering_from(random_source& random) {
        constexpr int sizes[] = {-1, 0, 100, 5000};
        return sizes[random.below(std::size(sizes))];
    }

    void seek() {
        std::size_t const to = random_.below(content_.size() + 10);
        require(file_.seek(std::int64_t(to)) == to, "seek() gives the new position");
        place_ = to;
    }

    void truncate() {
        std::size_t const size = random_.below(content_.size() + 10);
        file_.truncate(size);
        content_.resize(size);
    }

    void write() {
        std::string const data(random_.below(random_.one_in(8) ? 100'000 : 300),
                               char('a' + random_.below(26)));
        require(file_.write(data) == data.size(), "all of it is written");
        content_.resize(std::max(content_.size(), data.empty() ? 0 : place_ + data.size()));
        std::ranges::copy(data, content_.begin() + std::ptrdiff_t(data.empty() ? 0 : place_));
        place_ += data.size();
    }

    void read() {
        std::size_t const most = random_.below(2000);
        std::string const expected =
            place_ < content_.size() ? content_.substr(place_, most) : std::string();
        require(file_.read(std::ptrdiff_t(most)) == expected, "what was written is read");
        place_ += expected.size();
    }

    weft::path name_;
    random_source& random_;
    weft::file file_;
    std::string content_;
    std::size_t place_ = 0;
};

void write_and_look(weft::path const& name, random_source& random) {
    std::string content;
    {
        watched_file watched(name, random);
        for (std::uint64_t step = random.below(30); step > 0; --step) {
            if (random.one_in(2))
                watched.do_something();
            else
                weft::move_on_after(microseconds(random.below(300)),
                                    [&] { watched.do_something(); });
            progress();
        }
        content = std::move(watched).finish();
    }
    require(name.read_bytes() == content, "what was reported as written is in the file");
    name.unlink();
}

void make_temporaries(weft::path const& where, random_source& random) {
    weft::temporary_directory inner({.directory = where});
    weft::named_temporary_file file({.directory = inner.name()});
    file.write("x");
    weft::spooled_temporary_file spooled(random.below(100), {.directory = where});
    spooled.write(std::string(random.below(200), 'x'));
    (inner.name() / "deep").mkdir();
    (inner.name() / "deep" / "file").write_text("text");
    if (random.one_in(2)) file.close();
    if (random.one_in(2)) inner.close();
}

// Others come and go meanwhile, so that anything may be found, and nothing is an error.
void look_around(weft::path const& where, random_source& random) {
    std::size_t seen = 0;
    switch (random.below(3)) {
    case 0:
        for (weft::path const& each : where.rglob("*"))
            seen += each.exists();
        break;
    case 1:
        for (weft::path const& each : where.iterdir())
            seen += each.is_file();
        break;
    default:
        for (weft::walk_entry const& each : where.walk())
            seen += each.files.size();
    }
    progress();
}

} // namespace

void file_storm(trial& now) {
    std::uint64_t const tasks = now.random.between(1, 12);
    now.run([&] {
        weft::temporary_directory const place;
        weft::with_task_group([&](weft::task_group& group) {
            for (std::uint64_t task = 0; task < tasks; ++task)
                group.start_soon([&, task, random = now.random.split()]() mutable {
                    for (int round = 0; round < 5; ++round) {
                        if (random.one_in(2))
                            write_and_look(place.name() / ("file" + std::to_string(task)), random);
                        weft::move_on_after(microseconds(random.below(5000)), [&] {
                            if (random.one_in(2))
                                make_temporaries(place.name(), random);
                            else
                                look_around(place.name(), random);
                        });
                        progress();
                    }
                });
        });
        for (weft::path const& left : place.name().iterdir())
            violation("'" + left.name() + "' is left in the directory");
    });
}

} // namespace stress
