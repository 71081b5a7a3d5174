#include "store.hpp"

#include <algorithm>
#include <charconv>
#include <utility>

namespace memcached {

std::optional<item> store::get(std::string const& key) const {
    std::lock_guard const guard(mutex_);
    auto const found = items_.find(key);
    if (found == items_.end()) return std::nullopt;
    return found->second;
}

outcome store::put(std::string const& key, item given, when condition, std::uint64_t version) {
    std::lock_guard const guard(mutex_);
    auto const found = items_.find(key);
    bool const there = found != items_.end();
    if (!there && (condition == when::present || version != 0)) return outcome::not_found;
    if (there && condition == when::absent) return outcome::exists;
    if (version != 0 && version != found->second.version) return outcome::exists;
    given.version = ++last_version_;
    items_.insert_or_assign(key, std::move(given));
    return outcome::done;
}

outcome store::extend(std::string const& key, std::string const& by, side where) {
    std::lock_guard const guard(mutex_);
    auto const found = items_.find(key);
    if (found == items_.end()) return outcome::not_stored;
    std::string& data = found->second.data;
    data.insert(where == side::front ? 0 : data.size(), by);
    found->second.version = ++last_version_;
    return outcome::done;
}

outcome store::remove(std::string const& key) {
    std::lock_guard const guard(mutex_);
    return items_.erase(key) != 0 ? outcome::done : outcome::not_found;
}

outcome store::count(std::string const& key, std::uint64_t by, bool upwards,
                     std::optional<std::uint64_t> initial, std::uint64_t& result) {
    std::lock_guard const guard(mutex_);
    auto const found = items_.find(key);
    if (found == items_.end()) {
        if (!initial) return outcome::not_found;
        result = *initial;
        items_.emplace(key, item{std::to_string(result), 0, ++last_version_});
        return outcome::done;
    }
    std::string& data = found->second.data;
    std::uint64_t value = 0;
    auto const [end, error] = std::from_chars(data.data(), data.data() + data.size(), value);
    if (error != std::errc() || end != data.data() + data.size()) return outcome::not_a_number;
    result = upwards ? value + by : value - std::min(value, by);
    data = std::to_string(result);
    found->second.version = ++last_version_;
    return outcome::done;
}

void store::clear() {
    std::lock_guard const guard(mutex_);
    items_.clear();
}

std::size_t store::size() const {
    std::lock_guard const guard(mutex_);
    return items_.size();
}

} // namespace memcached
