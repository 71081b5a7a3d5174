#pragma once

namespace weft::detail {

class value_store;

/// The context variables of the task or thread that makes it, kept for another one.
class kept_context {
public:
    kept_context() noexcept;
    ~kept_context();
    kept_context(kept_context const&) = delete;
    kept_context& operator=(kept_context const&) = delete;

private:
    friend class context_in_use;
    value_store const* values_;
};

/// While it lives, the task or thread that made it has a copy of these variables. What it changes is gone
/// afterwards.
class context_in_use {
public:
    explicit context_in_use(kept_context const&) noexcept;
    ~context_in_use();
    context_in_use(context_in_use const&) = delete;
    context_in_use& operator=(context_in_use const&) = delete;

private:
    value_store const* before_;
};

} // namespace weft::detail
