#pragma once

#include <weft/streams/error.hpp>

#include <concepts>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace weft {

/// The key of an attribute that holds a T. A key is itself: another one of the same name is another
/// key.
///
/// Threads  immutable: any
/// Source   AnyIO typed_attribute
template <class T> class typed_attribute {
public:
    constexpr explicit typed_attribute(char const* name) : name_(name) {}
    typed_attribute(typed_attribute const&) = delete;
    typed_attribute& operator=(typed_attribute const&) = delete;

    constexpr char const* name() const { return name_; }

private:
    char const* name_;
};

/// Keys and how to get their values: `{{key, getter}, ...}`. A getter is called each time it is
/// asked, by whoever asks. It must not wait for anything (suspend its task): wrappers call it with
/// a lock held. Under TLS one that does ends the process and names the call.
///
/// Threads  a value
/// Source   AnyIO TypedAttributeProvider.extra_attributes
class attribute_map {
public:
    /// Calls what it is given, or throws instead. Must not wait, as getters must not.
    using surrounding = std::function<void(std::function<void()> const& ask)>;

    class entry {
    public:
        template <class T, std::invocable Getter>
            requires std::convertible_to<std::invoke_result_t<Getter&>, T>
        entry(typed_attribute<T> const& key, Getter getter)
            : key_(&key), getter_(std::make_shared<std::function<T()>>(std::move(getter))),
              surround_(&surround<T>) {}

    private:
        friend class attribute_map;

        template <class T>
        static std::shared_ptr<void const> surround(std::shared_ptr<void const> const& getter,
                                                    surrounding const& by) {
            auto known = std::static_pointer_cast<std::function<T()> const>(getter);
            return std::make_shared<std::function<T()>>([known = std::move(known), by] {
                std::optional<T> value;
                by([&] { value.emplace((*known)()); });
                return *std::move(value);
            });
        }

        void const* key_;
        std::shared_ptr<void const> getter_; // a std::function<T()>, as the key says
        std::shared_ptr<void const> (*surround_)(std::shared_ptr<void const> const&,
                                                 surrounding const&);
    };

    attribute_map() = default;
    attribute_map(std::initializer_list<entry> entries) {
        for (entry const& each : entries)
            set(each);
    }

    /// Adds what the other map has; where both have a key, the other's getter stays.
    attribute_map& update(attribute_map const& other) {
        for (entry const& each : other.entries_)
            set(each);
        return *this;
    }

    /// Has each getter called by this, in its time. For wrappers whose stream may go away while it is
    /// asked.
    attribute_map& surround(surrounding const& by) {
        for (entry& each : entries_)
            each.getter_ = each.surround_(each.getter_, by);
        return *this;
    }

    /// Null: no such key.
    template <class T> std::function<T()> const* find(typed_attribute<T> const& key) const {
        for (entry const& each : entries_)
            if (each.key_ == &key)
                return static_cast<std::function<T()> const*>(each.getter_.get());
        return nullptr;
    }

private:
    void set(entry const& added) {
        for (entry& known : entries_)
            if (known.key_ == added.key_) {
                known = added;
                return;
            }
        entries_.push_back(added);
    }

    std::vector<entry> entries_;
};

/// Something that can be asked for attributes, its own and those of what it wraps.
///
/// Threads  extra() by any task, also while the object is in use
/// Errors   typed_attribute_lookup_error (no such attribute, and no fallback given); whatever a
///          getter throws, a fallback does not hide it
/// Source   AnyIO TypedAttributeProvider
class typed_attribute_provider {
public:
    typed_attribute_provider() = default;
    typed_attribute_provider(typed_attribute_provider const&) = default;
    typed_attribute_provider& operator=(typed_attribute_provider const&) = default;
    virtual ~typed_attribute_provider() = default;

    /// What there is, by key. Wrappers update() the map of what they wrap. Must not wait, nor may
    /// the getters in it.
    virtual attribute_map extra_attributes() const { return {}; }

    template <class T> T extra(typed_attribute<T> const& key) const {
        attribute_map const attributes = extra_attributes();
        if (auto const* const getter = attributes.find(key)) return (*getter)();
        throw typed_attribute_lookup_error(std::string("there is no attribute '") + key.name() +
                                           "'");
    }

    template <class T>
    T extra(typed_attribute<T> const& key, std::type_identity_t<T> fallback) const {
        attribute_map const attributes = extra_attributes();
        if (auto const* const getter = attributes.find(key)) return (*getter)();
        return fallback;
    }
};

} // namespace weft
