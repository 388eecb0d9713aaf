/* Text to ids and back, and drawing symbols from scores, the same in every language (docs/contract.md). */
#include "internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t rnnx_next(rnnx_sampler *sampler)
{
    uint64_t z = sampler->state += 0x9E3779B97F4A7C15;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
}

double rnnx_uniform(rnnx_sampler *sampler)
{
    return (double)(rnnx_next(sampler) >> 11) * 0x1p-53;
}

/* Says which number spoils weights or scores. */
static void offender(line *to, const double *values, size_t count)
{
    rx_add(to, "shape [%zu] with ", count);
    size_t nan = 0, infinite = 0, negative = 0, zero = 0;
    while (nan < count && !isnan(values[nan]))
        nan++;
    while (infinite < count && !(isinf(values[infinite]) && values[infinite] > 0))
        infinite++;
    while (negative < count && !(values[negative] < 0))
        negative++;
    while (zero < count && values[zero] == 0)
        zero++;
    size_t at = nan < count ? nan : infinite < count ? infinite : negative;
    if (!count)
        rx_add(to, "no entries");
    else if (at < count)
        rx_add(to, "%g at index %zu", values[at], at);
    else
        rx_add(to, zero == count ? "all zero" : "a sum out of range");
}

bool rnnx_sample_weights(rnnx_sampler *sampler, const double *weights, size_t count, size_t *drawn,
                         rnnx_error *error)
{
    double sum = 0, running = 0;
    bool valid = count > 0;
    for (size_t i = 0; i < count; i++) {
        valid &= weights[i] >= 0;
        sum += weights[i];
    }
    /* Near the smallest float64 the product below could round up to the sum, and no index would be found. */
    if (!valid || !(sum >= 0x1p-1000) || isinf(sum)) {
        line found = {.used = 0};
        offender(&found, weights, count);
        return rx_fail(error, "weights-invalid",
                       "expected weights [symbols], none negative, with a finite sum of at least 2^-1000; "
                       "found %s; fix: check what the weights were computed from",
                       found.text);
    }
    double threshold = rnnx_uniform(sampler) * sum;
    for (*drawn = 0; (running += weights[*drawn]) <= threshold && *drawn + 1 < count;)
        ++*drawn;
    return true;
}

/* Draws from `values`, which are scores and are turned into weights. */
static bool draw(rnnx_sampler *sampler, double *values, size_t count, size_t *drawn, rnnx_error *error)
{
    size_t best = 0;
    bool odd = !count;
    for (size_t i = 0; i < count; i++) {
        odd |= isnan(values[i]);
        if (values[i] > values[best])
            best = i;
    }
    if (odd || isinf(values[best])) {
        line found = {.used = 0};
        offender(&found, values, count);
        return rx_fail(error, "scores-invalid",
                       "expected scores [symbols] below infinity with at least one finite; found %s; fix: "
                       "check the model's weights and inputs for NaN",
                       found.text);
    }
    *drawn = best; /* the first, where several are equal */
    if (sampler->temperature == 0)
        return true;
    double highest = values[best];
    for (size_t i = 0; i < count; i++)
        values[i] = exp((values[i] - highest) / sampler->temperature);
    return rnnx_sample_weights(sampler, values, count, drawn, error);
}

bool rnnx_sample(rnnx_sampler *sampler, const rnnx_tensor *scores, size_t symbols, size_t *drawn,
                 rnnx_error *error)
{
    double few[256], *values = symbols <= sizeof few / sizeof *few ? few : malloc(symbols * sizeof *values);
    size_t count = rx_count_of(scores->rank, scores->shape);
    if (!values)
        return rx_fail_memory(error);
    bool good = isfinite(sampler->temperature) && sampler->temperature >= 0;
    if (!good)
        rx_fail(error, "temperature-invalid",
                "expected a finite temperature of 0 or more; found %g; fix: try 0.7; 0 always takes the best "
                "symbol",
                sampler->temperature);
    for (size_t i = 0; good && i < symbols && symbols <= count; i++)
        values[i] = rx_value_at(scores->dtype, scores->data, count - symbols + i);
    good = good && draw(sampler, values, symbols <= count ? symbols : 0, drawn, error);
    if (values != few)
        free(values);
    return good;
}

/* -- Vocabulary */

static bool no_vocabulary(rnnx_error *error)
{
    return rx_fail(error, "not-symbols",
                   "expected a model with a vocabulary, to make text with; found one without, which takes "
                   "arrays; fix: give it arrays: 'rnnx run MODEL --input x.npy --output y.npy'");
}

bool rnnx_encode(const rnnx_contract *contract, const char *text, size_t size, int64_t *ids, size_t *count,
                 rnnx_error *error)
{
    const char *at = text, *end = text + size;
    if (!contract->symbols)
        return no_vocabulary(error);
    for (*count = 0; at < end; ++*count) {
        const char *begin = at;
        uint32_t point = rx_utf8_next(&at, end);
        size_t id = 0;
        while (id < contract->symbol_count && contract->symbols[id] != point)
            id++;
        if (id == contract->symbol_count)
            return rx_fail(error, "character-outside-vocabulary",
                           "expected a prompt of the vocabulary's %zu characters; found '%.*s' (U+%04X) at "
                           "character %zu (from 0); fix: leave it out or replace it; 'rnnx inspect MODEL "
                           "--json' lists the vocabulary",
                           contract->symbol_count, (int)(at - begin), begin,
                           (unsigned)(point == UINT32_MAX ? 0xFFFD : point), *count);
        ids[*count] = (int64_t)id;
    }
    return true;
}

bool rnnx_decode(const rnnx_contract *contract, int64_t id, char text[5], rnnx_error *error)
{
    if (!contract->symbols)
        return no_vocabulary(error);
    if (id < 0 || (size_t)id >= contract->symbol_count)
        return rx_fail(error, "id-outside-vocabulary",
                       "expected ids in 0..%zu; found %lld at position 0 (from 0); fix: use the ids of the "
                       "vocabulary this model was trained with",
                       contract->symbol_count - 1, (long long)id);
    text[rx_utf8_write(contract->symbols[id], text)] = 0;
    return true;
}
