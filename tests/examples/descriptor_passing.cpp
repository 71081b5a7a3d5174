// A file that only one side may open: the server opens it and hands the descriptor over, after a look
// at who asks.

#include <weft/weft.hpp>

#include <array>
#include <cstdio>
#include <string>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

using namespace std::chrono_literals;

namespace {

constexpr std::size_t longest_name = 200;

// The name of something in the directory itself: "/" is a part of a path, too, and "letter/" one path with
// "letter"; what follows a NUL no system call would see.
bool is_name(std::string const& text) {
    return !text.empty() && text != ".." && text == weft::path(text).name() && text.find('\0') == std::string::npos;
}

// O_NONBLOCK: a FIFO must not hold the thread up. Nothing but files is handed out.
weft::unique_fd open_regular(weft::path const& name) {
    weft::unique_fd file(
        ::open(name.as_posix().c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY));
    struct ::stat about {};
    if (file && (::fstat(file.get(), &about) != 0 || !S_ISREG(about.st_mode))) file.reset();
    return file;
}

void hand_out(weft::unix_socket_stream& client, weft::path const& place) {
    if (client.extra(weft::socket_attribute::peer_credentials).uid != ::geteuid()) return;
    weft::buffered_byte_receive_stream from(client);
    std::string const name = from.receive_until("\n", longest_name);
    if (!is_name(name)) return client.send("no such name\n");
    weft::unique_fd const file = open_regular(place / name);
    if (!file) return client.send("no such file\n");
    client.send_fds("here\n", std::array{file.get()});
}

void attend(weft::unix_socket_stream client, weft::path const& place) {
    try {
        hand_out(client, place);
    } catch (weft::incomplete_read const&) { // the client left before it had asked
    } catch (weft::delimiter_not_found const&) {
    } catch (weft::broken_resource_error const&) { // or before it was answered
    }
}

std::string ask(weft::path const& socket, std::string const& name) {
    weft::unix_socket_stream server = weft::connect_unix(socket);
    server.send(name + "\n");
    auto const [answer, descriptors] = server.receive_fds(100, 1);
    if (descriptors.empty()) return answer;
    weft::file opened = weft::wrap_file(::dup(descriptors.front().get()));
    std::string const text = opened.read();
    opened.close();
    return text;
}

void expect(bool holds, char const* what) {
    if (!holds) throw std::runtime_error(what);
}

void try_out() {
    weft::temporary_directory const place;
    weft::path const socket = place.name() / "socket";
    (place.name() / "letter").write_text("Dear reader");
    (place.name() / "folder").mkdir();
    (place.name() / "link").symlink_to("/etc/passwd");
    expect(::mkfifo((place.name() / "pipe").as_posix().c_str(), 0600) == 0, "a FIFO, without a writer");
    auto listener = weft::create_unix_listener(socket, {.mode = 0600});
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] {
            weft::serve(listener, [&](weft::unix_socket_stream client) {
                attend(std::move(client), place.name());
            });
        });
        expect(ask(socket, "letter") == "Dear reader", "what is in the file");
        expect(ask(socket, "other") == "no such file\n", "a file that is not there");
        for (std::string const outside : {"../letter", "/", "//", ".", "..", "", "letter/", "/letter"})
            expect(ask(socket, outside) == "no such name\n", "nothing outside of the directory");
        expect(ask(socket, std::string("letter\0", 7)) == "no such name\n", "no name has a NUL");
        for (char const* const other_kind : {"pipe", "folder", "link", "socket"})
            expect(ask(socket, other_kind) == "no such file\n", "nothing but files");
        group.cancel("enough");
    });
}

} // namespace

int main() try {
    weft::run([] { weft::fail_after(5min, try_out); });
} catch (std::exception const& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
}
