/* JSON as Python's json module reads and prints it. */
#include "lib/check.h"

#include <locale.h>
#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "text/pyjson.h"

/* Parses and prints again. */
static char *reprint(bw_bytes *out, const char *text, size_t n)
{
    bw_pyjson *document;
    const bw_json *root;
    bw_error err;
    check_ok(bw_pyjson_parse(&document, &root, text, n, "test", &err), err);
    out->n = 0;
    bw_json_print(out, root);
    bw_pyjson_free(document);
    return out->data;
}

static void check_cases(const char *const (*cases)[2], size_t n)
{
    bw_bytes out = { 0 };
    for (size_t i = 0; i < n; i++)
        check_str(reprint(&out, cases[i][0], strlen(cases[i][0])), cases[i][1]);
    bw_bytes_fini(&out);
}

TEST(numbers_print_as_python_prints_them)
{
    /* right column: json.dumps(json.loads(left)) of CPython 3.11 */
    static const char *const cases[][2] = {
        { "0", "0" }, { "-0", "0" }, { "-7", "-7" },
        { "123456789012345678901234567890", "123456789012345678901234567890" },
        { "0.0", "0.0" }, { "-0.0", "-0.0" }, { "1.0", "1.0" }, { "1E2", "100.0" }, { "1e-7", "1e-07" },
        { "0.0001", "0.0001" }, { "0.00001", "1e-05" }, { "1e15", "1000000000000000.0" }, { "1e16", "1e+16" },
        { "1e22", "1e+22" }, { "123456789012345678.0", "1.2345678901234568e+17" }, { "0.1", "0.1" },
        { "0.30000000000000004", "0.30000000000000004" }, { "2.5e-310", "2.5e-310" }, { "5e-324", "5e-324" },
        { "1e-400", "0.0" }, { "1.7976931348623157e308", "1.7976931348623157e+308" },
        { "9007199254740993.0", "9007199254740992.0" }, { "5.684341886080802e-14", "5.684341886080802e-14" },
        { "5.960464477539063e-08", "5.960464477539063e-08" }, { "1.5e300", "1.5e+300" }, { "12.50", "12.5" },
        { "1e0000000000000000000000000000002", "100.0" }, { "0e99999999999999999999", "0.0" },
        { "4.35", "4.35" }, { "100.0", "100.0" }, { "123456.789e3", "123456789.0" },
    };
    check_cases(cases, BW_COUNT(cases));
}

TEST(numbers_do_not_depend_on_the_locale)
{
    if (!setlocale(LC_NUMERIC, "de_DE.UTF-8") && !setlocale(LC_NUMERIC, "it_IT.UTF-8") && !setlocale(LC_NUMERIC, "fr_FR.UTF-8"))
        skip_because("no locale with a decimal comma is installed");
    static const char *const cases[][2] = { { "0.5", "0.5" }, { "1.25e-10", "1.25e-10" } };
    check_cases(cases, BW_COUNT(cases));
    setlocale(LC_NUMERIC, "C");
}

TEST(every_double_survives_printing_and_no_shorter_form_would)
{
    for (int i = 0; i < 20000; i++) {
        union {
            uint64_t bits;
            double value;
        } x = { rnd_u64() };
        if (i % 4 == 0)
            x.value = ldexp(1.0, rnd_int(-1074, 1023));
        if (!isfinite(x.value))
            continue;
        char text[BW_JSON_NUMBER_BYTES];
        bw_json_format_double(text, x.value);
        check_that(strtod(text, NULL) == x.value, "%a printed as %s", x.value, text);
        check_that(bw_json_read_double(text, strlen(text)) == x.value, "%a read from %s", x.value, text);
        char shorter[48];
        size_t digits = 0;
        for (const char *p = text; *p && *p != 'e'; p++)
            digits += *p >= '0' && *p <= '9' && (digits || *p != '0');
        if (digits < 3 || digits > 17)
            continue;
        snprintf(shorter, sizeof shorter, "%.*e", (int)digits - 2, x.value);
        check_that(strtod(shorter, NULL) != x.value || text[strlen(text) - 1] == '0', "%s for %s", text, shorter);
    }
}

TEST(digits_beyond_what_fits_still_decide_a_tie)
{
    /* 1 + 2^-53 exactly, a tie that goes to 1.0; any more and it is the next double */
    static const char tie[] = "1.00000000000000011102230246251565404236316680908203125";
    char longer[1200];
    size_t n = strlen(tie);
    memcpy(longer, tie, n);
    memset(longer + n, '0', 1000);
    longer[n + 1000] = '1';
    check(bw_json_read_double(tie, n) == 1.0);
    check(bw_json_read_double(longer, n + 1000) == 1.0);
    check(bw_json_read_double(longer, n + 1001) == 1.0 + 0x1p-52);
}

TEST(strings_escape_only_what_json_must)
{
    static const char *const cases[][2] = {
        { "\"a/b\\/c\"", "\"a/b/c\"" },
        { "\"\\u00e8 \\u2028 \\u007f \\ud83d\\udc11\"", "\"\xc3\xa8 \xe2\x80\xa8 \x7f \xf0\x9f\x90\x91\"" },
        { "\"\\\"\\\\\\b\\f\\n\\r\\t\"", "\"\\\"\\\\\\b\\f\\n\\r\\t\"" },
        { "\"\\u0000\\u001F\\u000b\"", "\"\\u0000\\u001f\\u000b\"" },
        { "\"\\ud83d x \\udc11\\ud83d\\u0041\"", "\"\xef\xbf\xbd x \xef\xbf\xbd\xef\xbf\xbd" "A\"" },
        { "{\"a\\u0000b\": 1}", "{\"a\\u0000b\": 1}" },
    };
    check_cases(cases, BW_COUNT(cases));
}

TEST(containers_keep_their_order_and_the_last_of_equal_keys)
{
    static const char *const cases[][2] = {
        { " { \"b\" : [ 1 ,2.0, [ ] ,{ } ] , \"a\":null } \n", "{\"b\": [1, 2.0, [], {}], \"a\": null}" },
        { "{\"a\":1,\"b\":2,\"a\":{\"x\":3},\"c\":4,\"b\":5,\"a\":6}", "{\"a\": 6, \"b\": 5, \"c\": 4}" },
        { "{\"\":1,\"\":2}", "{\"\": 2}" },
        { "[true,false,null]", "[true, false, null]" },
    };
    check_cases(cases, BW_COUNT(cases));
}

TEST(malformed_utf8_is_replaced_as_python_does)
{
    /* right: bytes(left).decode('utf-8', 'replace') */
    static const char *const cases[][2] = {
        { "\"\xff\"", "\"\xef\xbf\xbd\"" },
        { "\"\xe2\x82\"", "\"\xef\xbf\xbd\"" },
        { "\"\xe2\x28\xa1\"", "\"\xef\xbf\xbd(\xef\xbf\xbd\"" },
        { "\"\xf0\x90\x80z\"", "\"\xef\xbf\xbdz\"" },
        { "\"\xed\xa0\x80\"", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"" },
        { "\"\xc0\xaf\"", "\"\xef\xbf\xbd\xef\xbf\xbd\"" },
        { "\"\xf4\x90\x80\x80\"", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"" },
        { "\"\xf4\x8f\xbf\xbf\"", "\"\xf4\x8f\xbf\xbf\"" },
    };
    check_cases(cases, BW_COUNT(cases));
}

TEST(what_is_no_json_is_refused_with_its_place)
{
    static const char *const cases[][2] = {
        { "", "ends at byte 0" },        { "  ", "ends at byte 2" },          { "[1,]", "']' at byte 3" },
        { "{\"a\"}", "':' after a key" }, { "{a:1}", "a key in double quotes" }, { "[1 2]", "',' or ']'" },
        { "01", "'1' at byte 1, expected the end" }, { "1.", "'.' at byte 1" }, { "-", "expected a JSON value" },
        { "1e", "'e' at byte 1" },       { "NaN", "expected a JSON value" },  { "Infinity", "expected a JSON value" },
        { "1e999", "larger than a double" }, { "-1e999", "larger than a double" }, { "\"a\nb\"", "byte 0x0a at byte 2" },
        { "\"\\x\"", "after a backslash" }, { "\"\\u12g4\"", "four hexadecimal digits" }, { "\"abc", "ends at byte 4" },
        { "\"a\\", "ends at byte 3" },   { "{} {}", "expected the end" },     { "nul", "expected a JSON value" },
        { "{\"a\":1 \"b\":2}", "',' or '}'" }, { "\"\\ud83d\\u\"", "four hexadecimal digits" },
    };
    for (size_t i = 0; i < BW_COUNT(cases); i++) {
        bw_pyjson *document;
        const bw_json *root;
        bw_error err;
        check_error(bw_pyjson_parse(&document, &root, cases[i][0], strlen(cases[i][0]), "test", &err), BW_E_FORMAT, err,
                    "test: ", cases[i][1]);
        check(document == NULL && root == NULL);
    }
}

TEST(nesting_has_a_limit)
{
    char text[2 * BW_JSON_MAX_DEPTH + 3];
    bw_bytes out = { 0 };
    memset(text, '[', BW_JSON_MAX_DEPTH);
    memset(text + BW_JSON_MAX_DEPTH, ']', BW_JSON_MAX_DEPTH);
    reprint(&out, text, 2 * BW_JSON_MAX_DEPTH);
    check_int(out.n, 2 * BW_JSON_MAX_DEPTH);
    bw_bytes_fini(&out);
    memset(text, '[', sizeof text);
    bw_pyjson *document;
    const bw_json *root;
    bw_error err;
    check_error(bw_pyjson_parse(&document, &root, text, sizeof text, "test", &err), BW_E_FORMAT, err, "nested deeper than 200");
}

TEST(equal_keys_among_very_many_are_merged)
{
    bw_bytes text = { 0 }, out = { 0 };
    bw_bytes_add_char(&text, '{');
    for (int i = 0; i < 100000; i++) {
        char item[48];
        snprintf(item, sizeof item, "%s\"k%d\": %d", i ? ", " : "", i % 50000, i);
        bw_bytes_add_str(&text, item);
    }
    bw_bytes_add_char(&text, '}');
    reprint(&out, text.data, text.n);
    check(strncmp(out.data, "{\"k0\": 50000, \"k1\": 50001, ", 27) == 0);
    check_str(out.data + out.n - 17, " \"k49999\": 99999}");
    bw_bytes_fini(&text);
    bw_bytes_fini(&out);
}

TEST(parsing_survives_any_allocation_failing)
{
    static const char text[] = "{\"a\": [1, 2.5, {\"b\": \"\\u00e8\", \"b\": 2}], \"c\": {\"x\": 1, \"y\": 2}}";
    uint64_t before = bw_mem_used(BW_MEM_TEXT);
    bool failed = true;
    for (long n = 1; failed; n++) {
        bw_pyjson *document;
        const bw_json *root;
        bw_mem_fail_at(n);
        bw_status st = bw_pyjson_parse(&document, &root, text, strlen(text), "test", NULL);
        failed = bw_mem_fail_at(0);
        check_int(st, failed ? BW_E_MEMORY : BW_OK);
        bw_pyjson_free(document);
        check_int(bw_mem_used(BW_MEM_TEXT), before);
    }
}

TESTS_MAIN(ENTRY(numbers_print_as_python_prints_them), ENTRY(numbers_do_not_depend_on_the_locale),
           ENTRY(every_double_survives_printing_and_no_shorter_form_would),
           ENTRY(digits_beyond_what_fits_still_decide_a_tie), ENTRY(strings_escape_only_what_json_must),
           ENTRY(containers_keep_their_order_and_the_last_of_equal_keys), ENTRY(malformed_utf8_is_replaced_as_python_does),
           ENTRY(what_is_no_json_is_refused_with_its_place), ENTRY(nesting_has_a_limit),
           ENTRY(equal_keys_among_very_many_are_merged), ENTRY(parsing_survives_any_allocation_failing))
