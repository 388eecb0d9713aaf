/* JSON, numbers and sampling: what needs no model. */
#include "../src/internal.h"
#include "check.h"

#include <locale.h>
#include <math.h>
#include <string.h>

static bool parses(const char *text)
{
    arena memory = {NULL};
    const char *why = NULL;
    const json *found = rx_json_parse(&memory, text, strlen(text), &why);
    CHECK((found == NULL) == (why != NULL));
    rx_arena_free(&memory);
    return found != NULL;
}

static void json_takes_what_is_json(void)
{
    static const char *const good[] = {
        "null",
        "true",
        " false ",
        "0",
        "-0",
        "12",
        "-1.5e+3",
        "1E5",
        "0.1",
        "[]",
        "[1]",
        "[1,[2,[]]]",
        "{}",
        "{\"a\":1,\"b\":{\"c\":[null]}}",
        "\"\"",
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\"",
        "\"\\ud83d\\ude00\"",
        "\"\xC3\xA9\xF0\x9F\x98\x80\"",
        "\t[ 1 ,\r\n2 ] ",
        "123456789012345678901234567890",
    };
    static const char *const bad[] = {
        "",
        " ",
        "nul",
        "nulls",
        "tru",
        "01",
        "-",
        "1.",
        ".5",
        "1e",
        "+1",
        "NaN",
        "Infinity",
        "[",
        "[1",
        "[1,",
        "[1,]",
        "[1 2]",
        "{",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,",
        "{\"a\":1,}",
        "{a:1}",
        "{1:1}",
        "]",
        "}",
        "1 2",
        "\"",
        "\"\\\"",
        "\"\\",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\\ud83d\"",
        "\"\\ud83dx\"",
        "\"\\ud83d\\u0041\"",
        "\"\\ude00\"",
        "\"a\nb\"",
        "\"\xC3\"",
        "\"\xFF\"",
        "\"\xC0\x80\"",
        "\"\xED\xA0\x80\"",
        "\"\xF4\x90\x80\x80\"",
        "{\"a\\u0000b\":1}",
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (!parses(good[i]))
            CHECK(!fprintf(stderr, "%s\n", good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (parses(bad[i]))
            CHECK(!fprintf(stderr, "%s\n", bad[i]));
}

static void json_means_what_it_says(void)
{
    static const char text[] =
        "{\"a\": [1, -2.5, true], \"s\": \"x\\u0000\\ud83d\\ude00\", \"a\": 7, \"big\": 1e400}";
    arena memory = {NULL};
    const char *why;
    const json *object = rx_json_parse(&memory, text, sizeof text - 1, &why);
    CHECK(object && object->type == JSON_OBJECT && object->length == 4);
    const json *list = object->first;
    CHECK(list->length == 3 && list->first->is_integer && list->first->integer == 1);
    CHECK(!list->first->next->is_integer && list->first->next->number == -2.5);
    CHECK(list->first->next->next->type == JSON_BOOL && list->first->next->next->integer == 1);
    CHECK(rx_json_get(object, "a")->integer == 7); /* the last one counts */
    CHECK(rx_json_get(object, "s")->length == 6 &&
          !memcmp(rx_json_get(object, "s")->text, "x\0\xF0\x9F\x98\x80", 7));
    CHECK(isinf(rx_json_get(object, "big")->number) && !rx_json_get(object, "none"));
    rx_arena_free(&memory);
}

static void json_of_any_depth_does_no_harm(void)
{
    for (size_t depth = 1; depth < 300000; depth *= 7) {
        char *text = malloc(2 * depth + 1);
        CHECK(text);
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        text[2 * depth] = 0;
        CHECK(parses(text) == (depth <= 512));
        text[depth] = 0;
        CHECK(!parses(text));
        free(text);
    }
}

/* Truncates, and spoils bytes of, a text that has everything in it; memory checkers watch. */
static void json_survives_damage(void)
{
    static const char whole[] = "{\"format\":\"rnnx\",\"n\":[-1.25e-3,[1,2,[true,false,null]]],\"\\u00e9\":"
                                "\"\xC3\xA9\\ud83d\\ude00\"}";
    rnnx_sampler random = {1, 1};
    CHECK(parses(whole));
    for (size_t size = 0; size < sizeof whole - 1; size++) {
        char *cut = malloc(size + 1); /* of its exact size, so that a read behind it is seen */
        arena memory = {NULL};
        const char *why;
        CHECK(cut);
        memcpy(cut, whole, size);
        CHECK(!rx_json_parse(&memory, cut, size, &why));
        rx_arena_free(&memory);
        free(cut);
    }
    for (int round = 0; round < 20000; round++) {
        char text[sizeof whole];
        memcpy(text, whole, sizeof whole);
        for (int i = 0; i < 3; i++)
            text[rnnx_next(&random) % (sizeof whole - 1)] = (char)(1 + rnnx_next(&random) % 255);
        parses(text);
    }
}

static void numbers_are_read_the_same_in_any_locale(void)
{
    arena memory = {NULL};
    const char *why;
    bool other = setlocale(LC_NUMERIC, "de_DE.UTF-8") != NULL;
    const json *number = rx_json_parse(&memory, "0.1", 3, &why);
    CHECK(number && number->number == 0.1);
    setlocale(LC_NUMERIC, "C");
    if (!other)
        fprintf(stderr, "not run: numbers in another locale (de_DE.UTF-8 is not installed)\n");
    rx_arena_free(&memory);
}

static void filled(const char *text, rnnx_dtype dtype, int rank, const int64_t *shape, void *data)
{
    arena memory = {NULL};
    const char *why;
    const json *value = rx_json_parse(&memory, text, strlen(text), &why);
    CHECK(value);
    rx_fill_values(value, dtype, rank, shape, data);
    rx_arena_free(&memory);
}

static void values_broadcast(void)
{
    const int64_t shape[] = {2, 2, 3};
    float got[12];
    filled("[[[1, 2, 3]], [[4, 5, 6]]]", RNNX_FLOAT32, 3, shape, got);
    CHECK(got[0] == 1 && got[3] == 1 && got[5] == 3 && got[6] == 4 && got[11] == 6);
    filled("[1, 2, 3]", RNNX_FLOAT32, 3, shape, got);
    CHECK(got[0] == 1 && got[10] == 2 && got[11] == 3);
    filled("\"-inf\"", RNNX_FLOAT32, 3, shape, got);
    CHECK(isinf(got[0]) && got[11] < 0);
    int64_t whole;
    filled("-9007199254740991", RNNX_INT64, 0, shape, &whole);
    CHECK(whole == -9007199254740991);
}

static uint16_t half(const char *text)
{
    uint16_t got;
    filled(text, RNNX_FLOAT16, 0, NULL, &got);
    return got;
}

static void half_precision_rounds_to_nearest(void)
{
    CHECK(half("0") == 0 && half("1") == 0x3C00 && half("-2") == 0xC000 && half("65504") == 0x7BFF);
    CHECK(half("65519.99") == 0x7BFF && half("65520") == 0x7C00 && half("-1e9") == 0xFC00);
    CHECK(half("5.9604644775390625e-8") == 1 && half("2.98023223876953125e-8") == 0 && half("3e-8") == 1);
    CHECK(half("6.103515625e-5") == 0x0400 && half("6.0975551605224609375e-5") == 0x03FF);
    CHECK(half("1.00048828125") == 0x3C00 && half("1.00146484375") == 0x3C02); /* ties go to even */
    CHECK(half("1.000488281250000001") == 0x3C00 && half("1.0004882812500003") == 0x3C01);
    for (unsigned bits = 0; bits < 0x7C00; bits++) { /* every finite number comes back as it was */
        char text[40];
        uint16_t given = (uint16_t)bits;
        snprintf(text, sizeof text, "%.17g", rx_value_at(RNNX_FLOAT16, &given, 0));
        CHECK(half(text) == bits);
    }
    uint16_t odd[] = {0x7C00, 0x7E00, 0xFBFF};
    CHECK(!rx_values_are_finite(RNNX_FLOAT16, odd, 1) && !rx_values_are_finite(RNNX_FLOAT16, odd + 1, 1));
    CHECK(rx_values_are_finite(RNNX_FLOAT16, odd + 2, 1));
}

static void samples_as_the_contract_says(void)
{
    static const double weights[] = {1, 2, 3, 4};
    static const size_t expected[] = {2, 0, 3, 2, 2, 1, 2, 2};
    rnnx_sampler sampler = {7, 1};
    rnnx_error error;
    size_t drawn;
    CHECK(rnnx_next(&sampler) == 0x63cbe1e459320dd7 && rnnx_next(&sampler) == 0x044c3cd7f43c661c);
    CHECK(rnnx_uniform(&sampler) == 0.9007606806068834);
    sampler.state = 7;
    for (size_t i = 0; i < 8; i++)
        CHECK(rnnx_sample_weights(&sampler, weights, 4, &drawn, &error) && drawn == expected[i]);

    /* Draws on a boundary: u is 0.5, and 0; a weight of zero is never drawn. */
    static const double even[] = {1, 1}, late[] = {0, 1};
    sampler.state = 0x2fedf1efce1d5545;
    CHECK(rnnx_sample_weights(&sampler, even, 2, &drawn, &error) && drawn == 1);
    sampler.state = 0x61c8864680b583eb;
    CHECK(rnnx_sample_weights(&sampler, late, 2, &drawn, &error) && drawn == 1);

    float scores[] = {0, 9, 1, 5, 5}; /* the last three count; the lowest index of the maximum is taken */
    rnnx_tensor tensor = {"logits", RNNX_FLOAT32, 1, {5}, scores};
    rnnx_sampler best = {3, 0};
    CHECK(rnnx_sample(&best, &tensor, 3, &drawn, &error) && drawn == 1 && best.state == 3);
    scores[2] = -INFINITY;
    scores[3] = -INFINITY;
    best.temperature = 1;
    for (int i = 0; i < 100; i++)
        CHECK(rnnx_sample(&best, &tensor, 3, &drawn, &error) && drawn == 2);
    uint64_t before = best.state;
    scores[4] = -INFINITY;
    CHECK(!rnnx_sample(&best, &tensor, 3, &drawn, &error) && !strcmp(error.code, "scores-invalid"));
    scores[4] = NAN;
    CHECK(!rnnx_sample(&best, &tensor, 3, &drawn, &error) && !strcmp(error.code, "scores-invalid"));
    best.temperature = -1;
    CHECK(!rnnx_sample(&best, &tensor, 3, &drawn, &error) && !strcmp(error.code, "temperature-invalid"));
    double odd[] = {1, NAN};
    CHECK(!rnnx_sample_weights(&best, odd, 2, &drawn, &error) && !strcmp(error.code, "weights-invalid"));
    CHECK(!rnnx_sample_weights(&best, odd, 0, &drawn, &error) && best.state == before);
}

int main(void)
{
    json_takes_what_is_json();
    json_means_what_it_says();
    json_of_any_depth_does_no_harm();
    json_survives_damage();
    numbers_are_read_the_same_in_any_locale();
    values_broadcast();
    half_precision_rounds_to_nearest();
    samples_as_the_contract_says();
    puts("values: all good");
    return 0;
}
