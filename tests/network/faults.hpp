#pragma once

#include "support/run_test.hpp"

#include <weft/streams/tcp.hpp>

#include <cstdint>
#include <fstream>
#include <functional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <stdlib.h>

/// What tests of this directory do to their network. They run in a namespace of their own, one at a time; these
/// calls block the thread for some milliseconds.
namespace weft::test {

inline void shell(std::string const& command) {
    if (::system(command.c_str()) != 0) throw std::runtime_error("failed: " + command);
}

/// What comes in is treated by these rules of nftables, as long as the object lives.
class faults {
public:
    explicit faults(std::string const& rules) {
        shell("nft 'table inet weft {\nchain in {\ntype filter hook input priority 0\n" + rules +
              "\n}\n}'");
    }
    faults(faults const&) = delete;
    faults& operator=(faults const&) = delete;
    ~faults() { std::ignore = ::system("nft delete table inet weft"); }
};

/// So many bits a second, for all together.
class slow_link {
public:
    explicit slow_link(std::string const& rate) {
        shell("tc qdisc replace dev lo root tbf rate " + rate + " burst 128kb latency 500ms");
    }
    slow_link(slow_link const&) = delete;
    slow_link& operator=(slow_link const&) = delete;
    ~slow_link() { std::ignore = ::system("tc qdisc delete dev lo root"); }
};

/// A setting beneath /proc/sys/net, until the end of the scope.
class kernel_setting {
public:
    kernel_setting(std::string const& name, int value) : file_("/proc/sys/net/" + name) {
        std::ifstream(file_) >> before_;
        write(value);
    }
    kernel_setting(kernel_setting const&) = delete;
    kernel_setting& operator=(kernel_setting const&) = delete;
    ~kernel_setting() { write(before_); }

private:
    void write(int value) const { std::ofstream(file_) << value; }

    std::string file_;
    int before_ = 0;
};

inline std::string port_text(typed_attribute_provider const& listener) {
    return std::to_string(listener.extra(socket_attribute::local_port));
}

/// On threads only: there is a network. `workers` for what takes seconds.
inline void run_over_network(std::function<void()> const& body,
                             std::vector<unsigned> workers = {1, 2, 4}) {
    run_test({.workers = std::move(workers), .seeds = {}}, body);
}

} // namespace weft::test
