#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include "support/child_process.hpp"

#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace {

unsigned cases_run = 0;

/// Counts the cases that ran: doctest calls a filter that matches nothing a success.
struct case_counter final : doctest::IReporter {
    explicit case_counter(doctest::ContextOptions const&) {}

    void test_run_end(doctest::TestRunStats const& stats) override {
        cases_run = stats.numTestCasesPassingFilters;
    }

    void report_query(doctest::QueryData const&) override {}
    void test_run_start() override {}
    void test_case_start(doctest::TestCaseData const&) override {}
    void test_case_reenter(doctest::TestCaseData const&) override {}
    void test_case_end(doctest::CurrentTestCaseStats const&) override {}
    void test_case_exception(doctest::TestCaseException const&) override {}
    void subcase_start(doctest::SubcaseSignature const&) override {}
    void subcase_end() override {}
    void log_assert(doctest::AssertData const&) override {}
    void log_message(doctest::MessageData const&) override {}
    void test_case_skipped(doctest::TestCaseData const&) override {}
};

REGISTER_LISTENER("case_counter", 0, case_counter);

} // namespace

int main(int argc, char** argv) {
    if (argc == 3 && std::string_view(argv[1]) == "--child") return weft::test::child_main(argv[2]);
    doctest::Context context(argc, argv);
    int const status = context.run();
    if (context.shouldExit()) return status; // a query such as --list-test-cases
    if (cases_run == 0) {
        std::fputs("no test case matches: is the suite spelled as in its TEST_SUITE?\n", stderr);
        return EXIT_FAILURE;
    }
    return status;
}
