#include <doctest/doctest.h>
TEST_SUITE_BEGIN("io.fork");
TEST_CASE("placeholder") {}
TEST_SUITE_END();
