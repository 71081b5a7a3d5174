#include "tls_sessions.hpp"

#include <utility>

namespace weft::detail {

void tls_sessions::put(std::string const& name, ssl_session session) {
    std::lock_guard const guard(mutex_);
    auto const known = by_name_.find(name);
    if (known == by_name_.end()) {
        hosts_.push_front({name, {}});
        by_name_.emplace(name, hosts_.begin());
    } else {
        hosts_.splice(hosts_.begin(), hosts_, known->second);
    }
    std::vector<ssl_session>& sessions = hosts_.front().sessions;
    if (sessions.size() == most_of_a_host) sessions.erase(sessions.begin());
    sessions.push_back(std::move(session));
    if (hosts_.size() > most_hosts) {
        by_name_.erase(hosts_.back().name);
        hosts_.pop_back();
    }
}

ssl_session tls_sessions::take(std::string const& name) {
    std::lock_guard const guard(mutex_);
    auto const known = by_name_.find(name);
    if (known == by_name_.end()) return nullptr;
    hosts_.splice(hosts_.begin(), hosts_, known->second);
    std::vector<ssl_session>& sessions = hosts_.front().sessions;
    while (!sessions.empty()) {
        SSL_SESSION* const newest = sessions.back().get();
        if (::SSL_SESSION_is_resumable(newest) != 1) {
            sessions.pop_back();
            continue;
        }
        if (::SSL_SESSION_get_protocol_version(newest) != TLS1_3_VERSION) {
            ::SSL_SESSION_up_ref(newest);
            return ssl_session(newest);
        }
        ssl_session result = std::move(sessions.back());
        sessions.pop_back();
        return result;
    }
    return nullptr;
}

} // namespace weft::detail
