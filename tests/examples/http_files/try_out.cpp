// Tries the file server out: what it answers, what it refuses, and how it ends.

#include "server.hpp"

#include <weft/weft.hpp>

#include <cerrno>
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

using namespace std::chrono_literals;

namespace {

struct answer {
    std::string head;
    std::string body;

    bool is(int status) const { return head.starts_with("HTTP/1.1 " + std::to_string(status)); }
    bool says(char const* text) const { return head.find(text) != std::string::npos; }
};

void expect(bool holds, std::string const& what) {
    if (!holds) throw std::runtime_error(what);
}

class client {
public:
    explicit client(std::uint16_t port) : connection_(weft::connect_tcp("127.0.0.1", port)) {}

    void send(std::string const& text) { connection_.send(text); }
    void ask(std::string const& method, std::string const& target) {
        send(method + " " + target + " HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }
    answer receive_head() { return {.head = connection_.receive_until("\r\n\r\n", 10'000), .body = {}}; }
    void receive_body(answer& got) {
        auto const place = got.head.find("Content-Length: ") + 16;
        got.body = connection_.receive_exactly(std::stoul(got.head.substr(place)));
    }
    answer receive() {
        answer got = receive_head();
        receive_body(got);
        return got;
    }
    answer get(std::string const& target) {
        ask("GET", target);
        return receive();
    }
    bool at_the_end() {
        std::byte octet[1];
        return connection_.receive_some(octet) == 0;
    }
    std::size_t count_rest() {
        std::size_t count = 0;
        try {
            for (weft::bytes const& chunk : connection_)
                count += chunk.size();
        } catch (weft::broken_resource_error const&) { // a reset is an end, too
        }
        return count;
    }

private:
    weft::buffered_byte_stream connection_;
};

void gets_files(std::uint16_t port, std::string const& large) {
    client one(port);
    answer const page = one.get("/");
    expect(page.is(200) && page.body == "<p>Hello" && page.says("text/html"), "the index");
    expect(one.get("/a%20name.txt?query").body == "text", "an encoded name");
    expect(one.get("/large").body == large, "a large file, on the same connection");
    expect(one.get("/empty").body.empty(), "an empty one");
    one.ask("HEAD", "/large");
    expect(one.receive_head().says(("Content-Length: " + std::to_string(large.size())).c_str()),
           "its head alone");
    expect(one.get("http://localhost/a%20name.txt").body == "text", "an absolute target");
    expect(one.get("HTTP://localhost?query").body == "<p>Hello", "with nothing behind the host");
    expect(one.get("/inside").body == "text", "a link that stays inside");
    one.send("\r\n");
    expect(one.get("/").is(200), "an empty line before a request");
    one.ask("GET", "/");
    one.ask("GET", "/none");
    expect(one.receive().is(200) && one.receive().is(404), "two requests at once, in order");
}

void keeps_to_its_directory(std::uint16_t port) {
    client one(port);
    for (char const* const target : {"/../secret", "/%2e%2e/secret", "/.hidden", "/a/../../secret",
                                     "//../secret", "/none", "/a%20name.txt/x",
                                     "/index.html/", "/outside", "/above/secret", "/absolute"})
        expect(one.get(target).is(404), target);
    for (char const* const target : {"/%", "/%zz", "/%00", "*"})
        expect(one.get(target).is(400), target);
}

void refuses(std::uint16_t port) {
    struct refused {
        std::string request;
        int status;
    };
    std::vector<refused> const all{
        {"nonsense\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n\r\n", 400}, // no Host
        {"POST / HTTP/1.1\r\nHost: x\r\n\r\n", 405},
        {"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", 413},
        {"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 413},
        {"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n", 413},
        {"GET /" + std::string(9000, 'x') + " HTTP/1.1\r\n", 431},
        {"GET / HTTP/1.1\r\nHost: x\r\nX: " + std::string(9000, 'x') + "\r\n\r\n", 431},
    };
    for (refused const& each : all) {
        client one(port);
        one.send(each.request);
        answer const got = one.receive();
        expect(got.is(each.status), std::to_string(each.status) + " and not " + got.head);
        expect(got.says("Connection: close") && one.at_the_end(), "that was the last");
    }
    client old(port);
    old.send("GET / HTTP/1.0\r\n\r\n");
    expect(old.receive().is(200) && old.at_the_end(), "HTTP/1.0 has one request");
}

// What follows would be taken for the body by some, and for a request by others.
void refuses_ambiguous_bodies(std::uint16_t port) {
    for (std::string const fields :
         {"Transfer-Encoding: gzip", "Transfer-Encoding: identity", "Transfer-Encoding: xchunked",
          "Transfer-Encoding: chunked, identity", "Transfer-Encoding: gzip, chunked",
          "Transfer-Encoding:", "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
          "Content-Length: 4\r\nTransfer-Encoding: chunked", "Content-Length: 0\r\nContent-Length: 5"}) {
        client one(port);
        one.send("GET / HTTP/1.1\r\nHost: x\r\n" + fields + "\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n");
        expect(one.receive().is(400) && one.at_the_end(), fields);
    }
}

// Whoever writes there waits for a reader, and this is none.
void opens_no_fifo(std::uint16_t port, weft::path const& fifo) {
    weft::unique_fd const watch(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    expect(::inotify_add_watch(watch.get(), fifo.as_posix().c_str(), IN_OPEN) >= 0, "the FIFO is watched");
    expect(client(port).get("/pipe").is(404), "a FIFO");
    char event[200];
    expect(::read(watch.get(), event, sizeof event) < 0 && errno == EAGAIN, "it was not opened");
}

// Two servers: what is to come in time must not be what the other one waits for.
void gives_up_on_the_slow(weft::path const& root) {
    auto const try_limits = [&root](http_files::limits allowed, auto const& be_slow) {
        auto listener = weft::create_tcp_listener({.local_host = "127.0.0.1"});
        http_files::server server(http_files::site(root), allowed);
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] { server.serve(listener); });
            client slow(listener.extra(weft::socket_attribute::local_port));
            be_slow(slow);
            group.cancel("enough");
        });
    };
    try_limits({.idle = 1h, .head = 100ms}, [](client& slow) {
        slow.send("GET / HTT");
        expect(slow.receive().is(408), "half a request");
    });
    try_limits({.idle = 100ms, .head = 1h}, [](client& silent) { expect(silent.at_the_end(), "none at all"); });
}

// Those that are idle, ask or were refused end at once, the one that has begun to receive gets all of it.
void ends_gracefully(weft::path const& root, std::string const& large) {
    auto listener = weft::create_tcp_listener({.local_host = "127.0.0.1"});
    std::uint16_t const port = listener.extra(weft::socket_attribute::local_port);
    http_files::server server(http_files::site(root), {.idle = 1h, .head = 1h, .piece = 1h, .drain = 1h});
    client refused(port); // and stays to the end
    weft::with_task_group([&](weft::task_group& group) {
        auto serving = group.create_task([&] { server.serve(listener); });
        refused.send("nonsense\r\n\r\n");
        expect(refused.receive().is(400), "nonsense");
        client idle(port);
        expect(idle.get("/").is(200), "served");
        client half(port);
        expect(half.get("/").is(200), "served");
        half.send("GET / HTT");
        client busy(port);
        busy.ask("GET", "/large");
        busy.ask("GET", "/large"); // more than the buffers of both ends take
        busy.ask("GET", "/large");
        answer const first = busy.receive();
        answer second = busy.receive_head(); // so it has been begun
        serving.cancel();
        expect(idle.at_the_end(), "nothing to wait for");
        expect(half.at_the_end(), "nor for the rest of a request");
        busy.receive_body(second);
        expect(first.body == large && second.body == large, "all of what was begun");
    });
}

void serves_so_many_at_once(weft::path const& root) {
    auto listener = weft::create_tcp_listener({.local_host = "127.0.0.1"});
    std::uint16_t const port = listener.extra(weft::socket_attribute::local_port);
    http_files::server server(http_files::site(root), {.connections = 1, .idle = 1h});
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] { server.serve(listener); });
        std::optional<client> first(port);
        expect(first->get("/").is(200), "the first has the place");
        client second(port);
        second.ask("GET", "/");
        expect(!weft::move_on_after(100ms, [&] { second.receive(); }), "there is none for a second");
        first.reset();
        expect(second.receive().is(200), "when the first has gone there is");
        group.cancel("enough");
    });
}

// Another one has its place then.
void gives_up_on_who_takes_nothing(weft::path const& root, std::size_t size) {
    constexpr std::size_t wanted = 20; // more than the buffers of both ends take
    auto listener = weft::create_tcp_listener({.local_host = "127.0.0.1"});
    std::uint16_t const port = listener.extra(weft::socket_attribute::local_port);
    http_files::server server(http_files::site(root), {.connections = 1, .idle = 1h, .piece = 100ms});
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] { server.serve(listener); });
        client stalled(port);
        std::string all; // at once: it may be given up before it asks again
        for (std::size_t each = 0; each < wanted; ++each)
            all += "GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stalled.send(all);
        expect(client(port).get("/").is(200), "the next one is served");
        expect(stalled.count_rest() < wanted * size, "the one before was given up");
        group.cancel("enough");
    });
}

void try_out(weft::path const& place) {
    std::string large(5'000'000, '\0');
    for (std::size_t each = 0; each < large.size(); ++each)
        large[each] = char('a' + each % 23);
    (place / "secret").write_text("secret");
    weft::path const root = place / "root";
    root.mkdir();
    (root / "index.html").write_text("<p>Hello");
    (root / "a name.txt").write_text("text");
    (root / ".hidden").write_text("hidden");
    (root / "empty").write_text("");
    (root / "large").write_bytes(large);
    (root / "inside").symlink_to("a name.txt");
    (root / "outside").symlink_to("../secret");
    (root / "above").symlink_to("..");
    (root / "absolute").symlink_to(place / "secret");
    expect(::mkfifo((root / "pipe").as_posix().c_str(), 0600) == 0, "a FIFO");

    auto listener = weft::create_tcp_listener({.local_host = "127.0.0.1"});
    std::uint16_t const port = listener.extra(weft::socket_attribute::local_port);
    http_files::server server(http_files::site(root), {.idle = 1h, .head = 1h});
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] { server.serve(listener); });
        gets_files(port, large);
        keeps_to_its_directory(port);
        opens_no_fifo(port, root / "pipe");
        refuses(port);
        refuses_ambiguous_bodies(port);
        group.cancel("enough");
    });
    gives_up_on_the_slow(root);
    serves_so_many_at_once(root);
    gives_up_on_who_takes_nothing(root, large.size());
    ends_gracefully(root, large);
}

} // namespace

int main() try {
    weft::run([] {
        weft::temporary_directory const place;
        weft::fail_after(10min, [&] { try_out(place.name()); });
    });
} catch (std::exception const& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
}
