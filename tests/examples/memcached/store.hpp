#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>

/// A server of memcached's protocols, text and binary. What is stored stays until it is deleted.
namespace memcached {

struct item {
    std::string data;
    std::uint32_t flags = 0;
    std::uint64_t version = 0; ///< another one after each change
};

enum class outcome { done, not_found, exists, not_stored, not_a_number };

enum class when { always, absent, present };
enum class side { front, back };

/// Threads  any task; nothing waits
class store {
public:
    std::optional<item> get(std::string const& key) const;
    /// With a version other than 0 only over just that one.
    outcome put(std::string const& key, item given, when condition, std::uint64_t version = 0);
    outcome extend(std::string const& key, std::string const& by, side where);
    outcome remove(std::string const& key);
    /// Downwards it stops at 0. Where there is nothing it starts with `initial`, if there is one.
    outcome count(std::string const& key, std::uint64_t by, bool upwards,
                  std::optional<std::uint64_t> initial, std::uint64_t& result);
    void clear();
    std::size_t size() const;

private:
    mutable std::mutex mutex_;
    std::map<std::string, item> items_;
    std::uint64_t last_version_ = 0;
};

} // namespace memcached
