#pragma once

#include "relacy_atomics.hpp"

namespace weft { namespace model {

/// An ordinary variable that notices when two threads use it and nothing orders them. Used like one,
/// so that a header may have it where it has its own.
template <class T> class modelled_field {
public:
    modelled_field() : inner_(T()) {}
    modelled_field(T value) : inner_(value) {}
    modelled_field(modelled_field const&) = delete;

    operator T() const { return inner()($); }
    T operator->() const { return inner()($); }
    modelled_field& operator=(T value) {
        inner_($) = value;
        return *this;
    }
    modelled_field& operator=(modelled_field const& other) { return *this = T(other); }

    /// As who takes its memory for something else would.
    void overwrite() { inner_($) = T(); }

private:
    rl::var<T>& inner() const { return const_cast<rl::var<T>&>(inner_); } // a load is an event, too

    rl::var<T> inner_;
};

}} // namespace weft::model
