// A client of the kind that asks for names: a question in a datagram with a number in front, asked
// again when no answer comes in time, and answers that do not belong to it passed over.

#include <weft/weft.hpp>

#include <cstdio>
#include <map>
#include <optional>
#include <string>

using namespace std::chrono_literals;

namespace {

class name_client {
public:
    explicit name_client(std::uint16_t port)
        : socket_(weft::create_connected_udp_socket("127.0.0.1", port)) {}

    // Nothing: there is no such name. Errors: weft::timeout_error (no answer, however often asked)
    std::optional<std::string> look_up(std::string const& name) {
        weft::duration patience = 100ms;
        for (int attempt = 0; attempt < attempts; ++attempt, patience *= 2) {
            std::string const number = std::to_string(++last_number_);
            std::optional<std::string> answer;
            weft::move_on_after(patience, [&] {
                try {
                    socket_.send(number + " " + name);
                    answer = wait_for(number + " ");
                } catch (weft::broken_resource_error const&) { // nobody there now; maybe later
                }
            });
            if (answer && answer->empty()) return std::nullopt;
            if (answer) return answer;
        }
        throw weft::timeout_error("no answer about " + name);
    }

private:
    static constexpr int attempts = 6; // each with twice the patience of the one before

    std::string wait_for(std::string const& number) {
        for (;;)
            if (weft::bytes const answer = socket_.receive(); answer.starts_with(number))
                return answer.substr(number.size());
    }

    weft::connected_udp_socket socket_;
    int last_number_ = 0;
};

// Loses every other question, and answers what it hears after an answer that nobody asked for.
void serve_badly(weft::udp_socket& socket) {
    std::map<std::string, std::string> const names{{"weft", "192.0.2.1"}, {"warp", "192.0.2.2"}};
    bool lost = false;
    for (weft::datagram question : socket) {
        lost = !lost;
        if (lost) continue;
        auto const space = question.data.find(' ');
        auto const found = names.find(question.data.substr(space + 1));
        std::string const number = question.data.substr(0, space + 1);
        socket.send({"0 of another question", question.address});
        socket.send({number + (found == names.end() ? "" : found->second), question.address});
    }
}

void expect(bool holds, char const* what) {
    if (!holds) throw std::runtime_error(what);
}

void try_out() {
    auto server = weft::create_udp_socket({.local_host = "127.0.0.1"});
    weft::with_task_group([&](weft::task_group& group) {
        group.start_soon([&] { serve_badly(server); });
        name_client client(server.extra(weft::socket_attribute::local_port));
        expect(client.look_up("weft") == "192.0.2.1", "the first name");
        expect(client.look_up("warp") == "192.0.2.2", "the second name");
        expect(!client.look_up("woof"), "a name that there is not");
        group.cancel("enough");
    });
    name_client nobody(server.extra(weft::socket_attribute::local_port));
    server.close();
    try {
        nobody.look_up("weft");
        expect(false, "nobody is there to answer");
    } catch (weft::timeout_error const&) {
    }
}

} // namespace

int main() try {
    weft::run([] { weft::fail_after(5min, try_out); });
} catch (std::exception const& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
}
