#include <weft/io/path.hpp>

#include "io/paths.hpp"
#include "io/scratch.hpp"
#include "support/child_process.hpp"

#include <weft/io/descriptor.hpp>
#include <weft/io/file.hpp>
#include <weft/io/temp.hpp>
#include <weft/runtime/run.hpp>

#include <doctest/doctest.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <future>
#include <iterator>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

using weft::path;
using namespace weft::test;

// Nothing is forbidden to root.
bool become_nobody() {
    constexpr unsigned nobody = 65534;
    return ::geteuid() != 0 ||
           (::setgroups(0, nullptr) == 0 && ::setresgid(nobody, nobody, nobody) == 0 &&
            ::setresuid(nobody, nobody, nobody) == 0);
}

void ask_for_what_is_forbidden() {
    scratch const place;
    path const dark = place / "dark";
    path const file = dark / "file";
    dark.mkdir();
    file.write_bytes("x");
    (dark / "sub").mkdir();
    auto const expect_refused = [](char const* what, path const& name, auto call) {
        std::string text;
        int const error = error_of(call);
        try {
            call();
        } catch (std::system_error const& failure) {
            text = failure.what();
        }
        check(error == EACCES && text.find(name.as_posix()) != std::string::npos,
              std::string(what) + ": " + std::to_string(error) + ", " + text);
    };

    file.chmod(0);
    expect_refused("open", file, [&] { file.open(); });
    expect_refused("open to write", file, [&] { weft::open_file(file, "w"); });
    expect_refused("read_text", file, [&] { file.read_text(); });

    dark.chmod(0500); // to be looked at, not to be changed
    expect_refused("make a file", dark / "new", [&] { (dark / "new").write_bytes("x"); });
    expect_refused("touch", dark / "new", [&] { (dark / "new").touch(); });
    expect_refused("mkdir", dark / "new", [&] { (dark / "new").mkdir({.parents = true}); });
    expect_refused("unlink", file, [&] { file.unlink({.missing_ok = true}); });
    expect_refused("rename", file, [&] { file.rename(place / "moved"); });
    expect_refused("symlink", dark / "new", [&] { (dark / "new").symlink_to("file"); });
    expect_refused("rmdir", dark / "sub", [&] { (dark / "sub").rmdir(); });
    expect_refused("temporary file", dark,
                   [&] { weft::named_temporary_file({.directory = dark}); });
    check(file.exists() && file.is_file(), "nothing has changed");

    dark.chmod(0300); // names that are known may be used
    expect_refused("iterdir", dark, [&] { (void)dark.iterdir().begin(); });
    check(file.exists(), "a name that is known");
    check(names((place / "").glob("dark/*")).empty(), "not listed");
    check(names((place / "").glob("*/file")).size() == 1, "known");

    dark.chmod(0);
    expect_refused("stat", file, [&] { file.stat(); });
    expect_refused("exists", file, [&] { file.exists(); });
    expect_refused("is_dir", file, [&] { file.is_dir(); });
    expect_refused("strict resolve", file, [&] { file.resolve({.strict = true}); });
    std::vector<std::string> told;
    std::size_t walked = 0;
    auto const note = [&told](std::system_error const& error) { told.push_back(error.what()); };
    for (weft::walk_entry const& each : (place / "").walk({.on_error = note}))
        walked += each.directories.size();
    check(walked == 1 && told.size() == 1 && told[0].find("dark") != std::string::npos,
          "walk() tells of it and goes on");
    dark.chmod(0700);
}

child_program const forbidden("forbidden", [] {
    if (!become_nobody()) {
        std::puts("not held: the user cannot be changed");
        return;
    }
    weft::run({.workers = 2}, ask_for_what_is_forbidden);
    std::puts("held");
});

// The kernel asks here before any thread that is made later changes a mode by name.
weft::unique_fd ask_about_modes() {
    ::sock_filter steps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(::seccomp_data, nr)),
#ifdef SYS_chmod
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_chmod, 2, 0),
#endif
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fchmodat, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
    };
    ::sock_fprog const filter{std::size(steps), steps};
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return weft::unique_fd();
    return weft::unique_fd(int(::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                                         SECCOMP_FILTER_FLAG_NEW_LISTENER, &filter)));
}

// Once there is a directory to replace, who is about to change a mode finds a link in its place.
struct replacement {
    std::mutex mutex;
    std::string directory; // under mutex
    std::string target;    //  "
    bool done = false;     //  "

    bool is_done() {
        std::lock_guard const lock(mutex);
        return done;
    }
    void perform() {
        std::lock_guard const lock(mutex);
        std::string const name = std::exchange(directory, {});
        if (name.empty()) return;
        done = ::rename(name.c_str(), (name + " moved").c_str()) == 0 &&
               ::symlink(target.c_str(), name.c_str()) == 0;
    }
    void answer(int asks) { // until it is closed
        ::seccomp_notif question{};
        while (::ioctl(asks, SECCOMP_IOCTL_NOTIF_RECV, &question) == 0) {
            perform();
            ::seccomp_notif_resp answer{};
            answer.id = question.id;
            answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
            ::ioctl(asks, SECCOMP_IOCTL_NOTIF_SEND, &answer);
            question = {};
        }
    }
};

void remove_what_becomes_a_link(replacement& by) {
    scratch const place;
    path const target = place / "target";
    target.mkdir();
    target.chmod(0);
    weft::temporary_directory going({.directory = place / ""});
    path const dark = going.name() / "dark";
    (dark / "inside").mkdir({.parents = true}); // an empty one goes without being opened
    dark.chmod(0);
    {
        std::lock_guard const lock(by.mutex);
        by.target = target.as_posix();
        by.directory = dark.as_posix();
    }
    error_of([&] { going.close(); }); // it may not find what it looks for
    check(by.is_done(), "replaced before its mode was changed");
    auto const mode = target.stat().st_mode;
    target.chmod(0700); // to be removed
    check((mode & 0777) == 0, "what a link names keeps its mode");
}

child_program const exchanged("links instead of directories", [] {
    replacement by;
    std::promise<int> asks;
    std::thread([&by, asks = asks.get_future()]() mutable { by.answer(asks.get()); }).detach();
    weft::unique_fd const questions = become_nobody() ? ask_about_modes() : weft::unique_fd();
    if (!questions) {
        std::puts("the user cannot be changed, or system calls not be asked about");
        std::fflush(stdout);
        ::_exit(0);
    }
    asks.set_value(questions.get());
    weft::run({.workers = 1}, [&by] { remove_what_becomes_a_link(by); });
    std::puts("held");
    std::fflush(stdout);
    ::_exit(0); // the thread that answers is told by nobody
});

} // namespace

TEST_SUITE_BEGIN("io.path_forbidden");

TEST_CASE("PH5, PH6, PH7, AF2, NX10: what is forbidden is EACCES with the path in the text") {
    auto const end = weft::test::run_child("forbidden");
    INFO(end.output);
    CHECK(end.exit_code == 0);
    CHECK(end.says("held"));
}

TEST_CASE("NX10: a link put in the place of a forbidden directory leaves what it names alone") {
    auto const end = weft::test::run_child("links instead of directories");
    INFO(end.output);
    CHECK(end.exit_code == 0);
    if (end.says("cannot be")) {
        MESSAGE("not tried: ", end.output);
        return;
    }
    CHECK(end.says("held"));
}

TEST_SUITE_END();
