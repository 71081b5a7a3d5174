// A chat: what one says, all others hear. Each member has a task that listens to its connection and
// one that speaks to it, with a queue in between, so that who is slow holds nobody up.

#include <weft/weft.hpp>

#include <cstdio>
#include <map>
#include <mutex>
#include <string>
#include <vector>

using namespace std::chrono_literals;

namespace {

constexpr std::size_t longest_line = 1000;
constexpr double lines_to_wait = 100; // who is so far behind misses some

class room {
public:
    // Until the member leaves, or says too much at once.
    void attend(weft::socket_stream connection) {
        auto lines = weft::create_memory_object_stream<std::string>(lines_to_wait);
        membership const place(*this, std::move(lines.send));
        try {
            weft::with_task_group([&](weft::task_group& group) {
                group.start_soon([&] {
                    for (std::string const& line : lines.receive)
                        connection.send(line);
                });
                listen(place.number, connection);
                group.cancel("the member left");
            });
        } catch (weft::exception_group const& failures) {
            failures.handle([](weft::broken_resource_error const&) {}); // the member is gone
        }
    }

    std::size_t size() const {
        std::lock_guard const guard(mutex_);
        return members_.size();
    }

private:
    using queue = weft::memory_object_send_stream<std::string>;

    struct membership {
        membership(room& chat, queue lines) : in(chat) {
            std::lock_guard const guard(in.mutex_);
            number = ++in.last_;
            in.members_.emplace(number, std::move(lines));
        }
        membership(membership const&) = delete;
        membership& operator=(membership const&) = delete;
        ~membership() {
            std::lock_guard const guard(in.mutex_);
            in.members_.erase(number);
        }
        room& in;
        int number = 0;
    };

    void listen(int number, weft::socket_stream& connection) {
        weft::buffered_byte_receive_stream from(connection);
        try {
            for (;;)
                say(number, from.receive_until("\n", longest_line) + "\n");
        } catch (weft::incomplete_read const&) { // the end
        } catch (weft::delimiter_not_found const&) {
        }
    }

    void say(int speaker, std::string const& line) {
        std::lock_guard const guard(mutex_);
        for (auto& [number, lines] : members_) {
            std::string copy = line;
            if (number != speaker) lines.try_send(copy);
        }
    }

    mutable std::mutex mutex_; // nothing waits while it is held
    std::map<int, queue> members_;
    int last_ = 0;
};

void expect(bool holds, char const* what) {
    if (!holds) throw std::runtime_error(what);
}

// Three talk, one of them leaves, and the two others go on.
void talk(room& chat, std::uint16_t port) {
    std::vector<weft::socket_stream> members;
    for (int each = 0; each < 3; ++each)
        members.push_back(weft::connect_tcp("127.0.0.1", port));
    while (chat.size() < 3)
        weft::sleep(1ms);
    members[0].send("hello\n");
    expect(members[1].receive() == "hello\n" && members[2].receive() == "hello\n", "both hear it");
    members[2].close();
    while (chat.size() > 2)
        weft::sleep(1ms);
    members[1].send("are you there?\n");
    expect(members[0].receive() == "are you there?\n", "the others go on");
    members[1].send(std::string(2 * longest_line, 'x'));
    try {
        members[1].receive();
        expect(false, "nobody may say so much at once");
    } catch (weft::end_of_stream const&) {
    } catch (weft::broken_resource_error const&) { // there was more that nobody read
    }
}

} // namespace

int main() try {
    weft::run([] {
        room chat;
        auto listener = weft::create_tcp_listener({.local_host = "127.0.0.1"});
        weft::with_task_group([&](weft::task_group& group) {
            group.start_soon([&] {
                weft::serve(
                    listener, [&](weft::socket_stream member) { chat.attend(std::move(member)); },
                    {.drain = 0s, .on_stragglers = [](auto const&) {}});
            });
            weft::fail_after(5min,
                             [&] { talk(chat, listener.extra(weft::socket_attribute::local_port)); });
            group.cancel("enough");
        });
    });
} catch (std::exception const& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
}
