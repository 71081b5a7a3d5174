#pragma once

#include "certificates.hpp"
#include "sockets.hpp"
#include "tls_pair.hpp"

#include <weft/runtime/cancel_scope.hpp>
#include <weft/streams/process.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

/// Other implementations of TLS, to talk to.
namespace weft::test {

using words = std::vector<std::string>;

inline constexpr auto patience = std::chrono::seconds(20) * slowdown;

/// Where it is missing, the test is skipped; but not in CI (where $CI is set), since tools/setup installs
/// each program that is asked for here.
inline bool is_there(std::string const& program) {
    if (std::system(("command -v " + program + " >/dev/null 2>&1").c_str()) == 0) return true;
    char const* const ci = std::getenv("CI");
    if (ci != nullptr && *ci != '\0')
        FAIL_CHECK(program << " is not installed");
    else
        MESSAGE(program << " is not installed: skipped");
    return false;
}

/// The program of peers/tls.go; empty if Go was missing, also in CI: it comes only with tools/setup --clients.
inline std::optional<std::string> go_peer() {
    auto const path =
        std::filesystem::read_symlink("/proc/self/exe").parent_path() / "streams/weft-tls-go";
    if (std::filesystem::exists(path)) return path.string();
    MESSAGE("there was no Go when this was built: skipped");
    return std::nullopt;
}

/// A program with its standard streams at hand, killed when this is destroyed.
class program {
public:
    explicit program(words what)
        : process_(open_process(command(std::move(what)),
                                {.stdin_ = stdio::pipe, .stderr_ = stdio::standard_output})) {}

    /// What it says next, up to this and including it; or until it has ended.
    std::string read_until(std::string const& text) {
        std::size_t const begin = read_;
        std::size_t at = said_.find(text, begin);
        while (at == said_.npos && read_some())
            at = said_.find(text, begin);
        read_ = at == said_.npos ? said_.size() : at + text.size();
        return said_.substr(begin, read_ - begin);
    }
    void say(std::string const& text) {
        try {
            process_.stdin_stream()->send(text);
        } catch (broken_resource_error const&) { // it has ended: finish() tells
        }
    }
    /// Ends its input and waits for its end. Gives its exit status.
    int finish() {
        process_.stdin_stream()->close();
        while (read_some()) {
        }
        return process_.wait();
    }
    /// All that it has said.
    std::string const& said() const { return said_; }

private:
    bool read_some() {
        try {
            said_ += process_.stdout_stream()->receive();
            return true;
        } catch (end_of_stream const&) {
            return false;
        }
    }

    process process_;
    std::string said_;
    std::size_t read_ = 0; // by read_until()
};

/// A database of NSS's, new and empty, by the name that its programs want; in a run.
inline std::string make_nss_database(std::string const& name) {
    std::string const folder = certificates::get().folder() + "/nss-" + name;
    std::filesystem::create_directory(folder);
    run_process({"certutil", "-N", "-d", "sql:" + folder, "--empty-password"});
    return "sql:" + folder;
}

/// A port that is free, and given to nobody who does not ask for it by its number with
/// SO_REUSEADDR: for servers that cannot choose one.
class reserved_port {
public:
    reserved_port() : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        ::sockaddr_in address{};
        ::socklen_t size = sizeof address;
        auto* const generic = reinterpret_cast<::sockaddr*>(&address);
        int const on = 1;
        address.sin_family = AF_INET;
        ::setsockopt(fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (::bind(fd_, generic, size) != 0 || ::getsockname(fd_, generic, &size) != 0)
            throw std::runtime_error("there is no port");
        number_ = ntohs(address.sin_port);
    }
    reserved_port(reserved_port const&) = delete;
    reserved_port& operator=(reserved_port const&) = delete;
    ~reserved_port() { ::close(fd_); }

    std::uint16_t number() const { return number_; }

private:
    int fd_;
    std::uint16_t number_;
};

/// What a certificate has in it. NSS knows no Ed25519 yet.
struct certificate_case {
    std::string name;
    certificate_files files;
};

inline std::vector<certificate_case> const& certificate_cases() {
    static std::vector<certificate_case> const made = [] {
        auto const& authority = certificates::get();
        std::vector<certificate_case> cases;
        cases.push_back({"ECDSA", authority.server});
        cases.push_back({"RSA", authority.issue_server("rsa", key_kind::rsa)});
        cases.push_back({"Ed25519", authority.issue_server("ed25519", key_kind::ed25519)});
        cases.push_back({"a chain", authority.issue_server_with_chain("chained")});
        return cases;
    }();
    return made;
}

/// "1.2" is "TLSv1.2" elsewhere.
inline std::vector<std::string> const tls_versions{"1.2", "1.3"};

} // namespace weft::test
