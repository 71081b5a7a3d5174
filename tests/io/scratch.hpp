#pragma once

#include <weft/io/path.hpp>

#include <filesystem>
#include <stdexcept>
#include <string>

#include <stdlib.h>

/// A directory for a test, gone with the object. Needs no fiber.
class scratch {
public:
    scratch() {
        std::string name = std::filesystem::temp_directory_path() / "weft-test-XXXXXX";
        if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no scratch directory");
        where_ = std::filesystem::canonical(name);
    }
    ~scratch() {
        std::error_code ignored;
        std::filesystem::remove_all(where_, ignored);
    }
    scratch(scratch const&) = delete;
    scratch& operator=(scratch const&) = delete;

    weft::path operator/(std::string_view name) const { return weft::path(where_) / name; }
    std::filesystem::path const& where() const { return where_; }

private:
    std::filesystem::path where_;
};
