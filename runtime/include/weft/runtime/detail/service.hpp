#pragma once

#include <memory>
#include <mutex>
#include <typeinfo>
#include <vector>

namespace weft::detail {

/// Something that belongs to one run and that a layer above made on first use: a thread pool, a default
/// limiter. Closed in reverse order of creation before run() returns, then destroyed.
class service {
public:
    virtual ~service() = default;
    virtual void close() noexcept = 0;
};

/// The services of one run. Any thread.
class service_list {
public:
    service_list() = default;
    service_list(service_list const&) = delete;
    service_list& operator=(service_list const&) = delete;

    /// The run's one service of this type; made, if it is not there, by make().
    template <class Service, class Make> Service& get(Make&& make) {
        std::lock_guard const guard(mutex_);
        for (std::unique_ptr<service> const& known : services_)
            if (auto* const found = dynamic_cast<Service*>(known.get())) return *found;
        std::unique_ptr<Service> made = make();
        Service& reference = *made;
        services_.push_back(std::move(made));
        return reference;
    }

    void close_all() noexcept {
        for (auto place = services_.rbegin(); place != services_.rend(); ++place)
            (*place)->close();
        while (!services_.empty())
            services_.pop_back();
    }

private:
    std::recursive_mutex mutex_; // a service may use another one
    std::vector<std::unique_ptr<service>> services_;
};

/// Of the current run. Errors: no_event_loop_error outside a run, naming the call.
service_list& current_services(char const* call);

} // namespace weft::detail
