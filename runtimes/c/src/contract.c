/* The contract inside the model: read, and held against its own rules (docs/contract.md). */
#include "internal.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* What is being read, and what was wrong first. */
typedef struct reading {
    rnnx_contract *contract;
    arena *memory;
    rnnx_error *error;
} reading;

RX_PRINTF(2, 3) static bool invalid(reading *in, const char *format, ...)
{
    line found = {.used = 0};
    va_list values;
    va_start(values, format);
    vsnprintf(found.text, sizeof found.text, format, values);
    va_end(values);
    return rx_fail(in->error, "contract-invalid",
                   "expected a contract as docs/contract.md describes; found %s; fix: export the model again "
                   "with 'rnnx export'",
                   found.text);
}

/* Finds a member of the right type; absent or null is fine where it is not needed, and *found is NULL then.
 */
static bool member(reading *in, const json *object, const char *key, json_type type, bool needed,
                   const json **found)
{
    const json *value = rx_json_get(object, key);
    *found = value && value->type == JSON_NULL && !needed ? NULL : value;
    if (!*found && needed)
        return invalid(in, "no field '%s'", key);
    return !*found || (*found)->type == type || invalid(in, "a field '%s' of another type", key);
}

static bool text(reading *in, const json *object, const char *key, bool needed, const char **found)
{
    const json *value;
    if (!member(in, object, key, JSON_STRING, needed, &value))
        return false;
    *found = value ? value->text : NULL;
    return !value || strlen(value->text) == value->length || invalid(in, "a zero in the field '%s'", key);
}

/* -- Shapes */

static int dim_index(reading *in, const char *name, size_t length)
{
    rnnx_contract *contract = in->contract;
    for (size_t i = 0; i < contract->dim_count; i++)
        if (strlen(contract->dims[i]) == length && memcmp(contract->dims[i], name, length) == 0)
            return (int)i;
    contract->dims[contract->dim_count] = name;
    return (int)contract->dim_count++;
}

/* "batch", "160*time", "memory": a factor only before time. */
static bool parse_dim(reading *in, const char *spelt, rnnx_dim *dim)
{
    const char *name = spelt;
    int64_t factor = 0;
    if (*name >= '1' && *name <= '9') {
        while (*name >= '0' && *name <= '9' && factor < INT64_MAX / 100)
            factor = factor * 10 + (*name++ - '0');
        if (strcmp(name, "*time") != 0)
            return false;
        name++;
    }
    if (!*name || (*name >= '0' && *name <= '9'))
        return false;
    for (const char *at = name; *at; at++)
        if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_", *at))
            return false;
    *dim = (rnnx_dim){factor ? factor : 1, dim_index(in, name, strlen(name)), spelt};
    return true;
}

static bool read_shape(reading *in, const json *array, rnnx_spec *spec)
{
    int seen[2] = {0, 0};
    if (array->length > RNNX_MAX_RANK - 1) /* a chunk or a trace has one more */
        return invalid(in, "%zu axes in the shape of '%s', more than this runtime takes", array->length,
                       spec->name);
    for (const json *entry = array->first; entry; entry = entry->next, spec->rank++) {
        rnnx_dim *dim = &spec->shape[spec->rank];
        bool good = false;
        if (entry->type == JSON_NUMBER && entry->is_integer && entry->integer > 0) {
            char digits[24];
            int length = snprintf(digits, sizeof digits, "%lld", (long long)entry->integer);
            *dim = (rnnx_dim){entry->integer, -1, rx_arena_copy(in->memory, digits, (size_t)length)};
            good = dim->text != NULL;
        } else if (entry->type == JSON_STRING) {
            good = strlen(entry->text) == entry->length && parse_dim(in, entry->text, dim);
        }
        if (!good)
            return invalid(in, "a dimension that is no number, name or multiple of time in the shape of '%s'",
                           spec->name);
        if ((dim->index == BATCH || dim->index == TIME) && seen[dim->index]++)
            return invalid(in, "'%s' has two %s axes", spec->name, in->contract->dims[dim->index]);
    }
    return true;
}

/* Whether a number, once it is rounded, is an integer that an input takes. */
static bool in_range(const rnnx_spec *spec, double number)
{
    double whole = nearbyint(number);
    return !spec->has_range || rx_dtype_is_float(spec->dtype) ||
           (whole >= spec->least && whole <= spec->largest);
}

/* A start or default broadcasts to its shape, varies along no named axis, and fits its dtype and range. */
static bool fits(const json *value, int depth, const rnnx_spec *spec)
{
    if (value->type == JSON_ARRAY) {
        int axis = spec->rank - depth;
        if (depth < 1 || axis < 0)
            return false;
        bool named = spec->shape[axis].index >= 0;
        if (value->length != 1 && (named || (int64_t)value->length != spec->shape[axis].factor))
            return false;
        for (const json *child = value->first; child; child = child->next)
            if (!fits(child, depth - 1, spec))
                return false;
        return true;
    }
    if (depth)
        return false;
    if (value->type == JSON_NUMBER || value->type == JSON_BOOL)
        return rx_dtype_holds(spec->dtype, value->number) && in_range(spec, value->number);
    return rx_dtype_is_float(spec->dtype) && value->type == JSON_STRING &&
           (!strcmp(value->text, "inf") || !strcmp(value->text, "-inf") || !strcmp(value->text, "nan"));
}

static bool check_value(reading *in, const rnnx_spec *spec)
{
    int depth = 0;
    for (const json *inner = spec->value; inner && inner->type == JSON_ARRAY; inner = inner->first)
        depth++;
    line shape = {.used = 0};
    if (!spec->value || fits(spec->value, depth, spec))
        return true;
    for (int axis = 0; axis < spec->rank; axis++)
        rx_add_name(&shape, spec->shape[axis].text);
    return invalid(in, "initial or default of '%s' does not fit %s[%s]", spec->name,
                   rx_dtype_name(spec->dtype), shape.text);
}

/* -- Inputs, outputs, states */

static bool is_bound(rnnx_dtype dtype, double number)
{
    if (rx_dtype_is_float(dtype))
        return isfinite(number);
    /* Below 2^53 whole numbers are exact. */
    return fabs(number) < ldexp(1, 53) && number == nearbyint(number) && rx_dtype_holds(dtype, number);
}

static bool read_range(reading *in, const json *entry, rnnx_spec *spec)
{
    const json *range;
    if (!member(in, entry, "range", JSON_ARRAY, false, &range))
        return false;
    if (!range)
        return true;
    const json *least = range->first, *largest = least ? least->next : NULL;
    if (range->length != 2 || least->type != JSON_NUMBER || largest->type != JSON_NUMBER)
        return invalid(in, "a range of '%s' that is not two numbers", spec->name);
    spec->has_range = true;
    spec->least = least->number;
    spec->largest = largest->number;
    if (spec->dtype == RNNX_BOOL || spec->is_length)
        return invalid(in, "a range of '%s', which takes %s", spec->name,
                       spec->is_length ? "lengths" : "truth values");
    bool good = is_bound(spec->dtype, spec->least) && is_bound(spec->dtype, spec->largest);
    return (good && spec->least <= spec->largest) ||
           invalid(in, "a range of '%s' that is not the least and the largest of %s", spec->name,
                   rx_dtype_name(spec->dtype));
}

static bool read_spec(reading *in, const json *entry, const char *kind, rnnx_spec *spec)
{
    const json *shape;
    const char *dtype, *role = NULL;
    if (entry->type != JSON_OBJECT)
        return invalid(in, "an entry of '%s' that is no object", kind);
    if (!text(in, entry, "name", true, &spec->name) || !text(in, entry, "dtype", true, &dtype) ||
        !member(in, entry, "shape", JSON_ARRAY, true, &shape))
        return false;
    if (!rx_dtype_named(dtype, &spec->dtype))
        return invalid(in, "dtype '%s' of '%s'", dtype, spec->name);
    if (!read_shape(in, shape, spec))
        return false;
    if (kind[0] == 's') {
        static const json zero = {.type = JSON_NUMBER, .is_integer = true};
        spec->value = rx_json_get(entry, "initial") ? rx_json_get(entry, "initial") : &zero;
        if (!text(in, entry, "input", true, &spec->takes) || !text(in, entry, "output", true, &spec->gives))
            return false;
        if (!text(in, entry, "role", false, &role))
            return false;
        spec->is_end = role != NULL;
        if (role && strcmp(role, "ended") != 0)
            return invalid(in, "role '%s' of '%s'", role, spec->name);
        return rx_axis_of(spec->rank, spec->shape, TIME) < 0 ||
               invalid(in, "state '%s' has a time axis", spec->name);
    }
    if (kind[0] == 'o') {
        const json *delay;
        spec->gives = spec->name;
        if (!member(in, entry, "delay", JSON_NUMBER, false, &delay))
            return false;
        spec->delay = delay ? delay->integer : 0;
        return !delay || delay->is_integer || invalid(in, "a delay that is no number of steps");
    }
    spec->takes = spec->name;
    spec->value = rx_json_get(entry, "default");
    if (spec->value && spec->value->type == JSON_NULL)
        spec->value = NULL;
    if (!text(in, entry, "role", false, &role))
        return false;
    spec->is_length = role != NULL;
    if (role && strcmp(role, "length") != 0)
        return invalid(in, "role '%s' of '%s'", role, spec->name);
    bool good =
        spec->dtype == RNNX_INT64 && (!spec->rank || (spec->rank == 1 && spec->shape[0].index == BATCH));
    if (role && !good)
        return invalid(in, "length input '%s' is not int64[batch]", spec->name);
    return read_range(in, entry, spec);
}

static bool read_specs(reading *in, const json *object, const char *kind, const rnnx_spec **specs,
                       size_t *count)
{
    const json *array;
    if (!member(in, object, kind, JSON_ARRAY, true, &array))
        return false;
    rnnx_spec *made = rx_arena_take(in->memory, array->length * sizeof *made + 1);
    if (!made)
        return rx_fail_memory(in->error);
    *specs = made;
    *count = array->length;
    for (const json *entry = array->first; entry; entry = entry->next)
        if (!read_spec(in, entry, kind, made++))
            return false;
    return true;
}

/* No name is empty, and none stands twice among names of one kind. */
static bool unique(reading *in, const char *kind, const char *name, const char *const *seen, size_t count)
{
    if (!*name)
        return invalid(in, "an %s without a name", kind);
    for (size_t i = 0; i < count; i++)
        if (strcmp(seen[i], name) == 0)
            return invalid(in, "two entries for %s '%s'", kind, name);
    return true;
}

static bool check_names(reading *in)
{
    const rnnx_contract *contract = in->contract;
    size_t most = contract->input_count + contract->output_count + contract->state_count;
    const char **names = rx_arena_take(in->memory, 3 * most * sizeof *names + 1);
    const char **inputs = names, **outputs = names + most, **states = names + 2 * most;
    size_t taken = 0, given = 0;
    if (!names)
        return rx_fail_memory(in->error);
    for (size_t i = 0; i < contract->input_count; inputs[taken++] = contract->inputs[i++].name)
        if (!unique(in, "input", contract->inputs[i].name, inputs, taken))
            return false;
    for (size_t i = 0; i < contract->output_count; outputs[given++] = contract->outputs[i++].name)
        if (!unique(in, "output", contract->outputs[i].name, outputs, given))
            return false;
    for (size_t i = 0; i < contract->state_count; i++) {
        const rnnx_spec *state = &contract->states[i];
        if (!unique(in, "input", state->takes, inputs, taken) ||
            !unique(in, "output", state->gives, outputs, given) ||
            !unique(in, "state", state->name, states, i))
            return false;
        inputs[taken++] = state->takes;
        outputs[given++] = state->gives;
        states[i] = state->name;
    }
    return true;
}

static bool read_vocabulary(reading *in, const json *object)
{
    rnnx_contract *contract = in->contract;
    const json *vocabulary, *symbols;
    const char *input, *output, *scores = NULL, *unit = NULL;
    if (!member(in, object, "vocabulary", JSON_OBJECT, false, &vocabulary))
        return false;
    if (!vocabulary)
        return true;
    if (!text(in, vocabulary, "input", true, &input) || !text(in, vocabulary, "output", true, &output) ||
        !text(in, vocabulary, "scores", false, &scores) || !text(in, vocabulary, "unit", false, &unit) ||
        !member(in, vocabulary, "symbols", JSON_ARRAY, true, &symbols))
        return false;
    if ((scores && strcmp(scores, "logits")) || (unit && strcmp(unit, "codepoint")))
        return invalid(in, "scores or a unit of the vocabulary that are unknown");
    const rnnx_spec *taken = rx_spec_named(contract->inputs, contract->input_count, input);
    const rnnx_spec *given = rx_spec_named(contract->outputs, contract->output_count, output);
    if (!taken)
        return invalid(in, "vocabulary input '%s' is no input", input);
    if (taken->has_range)
        return invalid(in, "a range of '%s', which takes symbols", input);
    if (!given)
        return invalid(in, "vocabulary output '%s' is no output", output);
    if (taken->dtype != RNNX_INT64)
        return invalid(in, "vocabulary input '%s' is not int64", input);
    const rnnx_dim *last = given->rank ? &given->shape[given->rank - 1] : NULL;
    if (!last || last->index != -1 || last->factor != (int64_t)symbols->length)
        return invalid(in, "%zu symbols, and not as many scores in '%s'", symbols->length, output);
    uint32_t *points = rx_arena_take(in->memory, (symbols->length + 1) * sizeof *points);
    if (!points)
        return rx_fail_memory(in->error);
    for (const json *symbol = symbols->first; symbol; symbol = symbol->next) {
        const char *at = symbol->text;
        if (symbol->type != JSON_STRING || !symbol->length)
            return invalid(in, "a symbol that is not one code point");
        uint32_t point = rx_utf8_next(&at, symbol->text + symbol->length);
        if (at != symbol->text + symbol->length)
            return invalid(in, "a symbol that is not one code point");
        for (size_t i = 0; i < contract->symbol_count; i++)
            if (points[i] == point)
                return invalid(in, "two entries for symbol '%s'", symbol->text);
        points[contract->symbol_count++] = point;
    }
    contract->symbols = points;
    contract->vocabulary_input = (size_t)(taken - contract->inputs);
    contract->vocabulary_output = (size_t)(given - contract->outputs);
    return true;
}

/* -- The whole */

static bool read_header(reading *in, const json *object)
{
    const json *version, *requires;
    const char *format = NULL;
    if (object->type != JSON_OBJECT)
        return invalid(in, "JSON that is no object");
    if (!text(in, object, "format", true, &format) ||
        !member(in, object, "version", JSON_NUMBER, true, &version) ||
        !member(in, object, "requires", JSON_ARRAY, false, &requires))
        return false;
    if (strcmp(format, "rnnx") != 0)
        return invalid(in, "format '%s'", format);
    if (!version->is_integer || version->integer < 1)
        return invalid(in, "a version that is no number of 1 or more");
    if (version->integer > 1)
        return rx_fail(in->error, "contract-newer",
                       "expected a contract of version 1 at most; found version %lld; fix: install a newer "
                       "rnnx, or export the model again with this one",
                       (long long)version->integer);
    line unknown = {.used = 0};
    for (const json *name = requires ? requires->first : NULL; name; name = name->next) {
        if (name->type != JSON_STRING)
            return invalid(in, "a requirement that is no text");
        rx_add_name(&unknown, name->text);
    }
    if (requires && requires->length)
        return rx_fail(in->error, "contract-requires",
                       "expected a contract that requires only what this rnnx knows; found requires %s; fix: "
                       "install a newer rnnx",
                       unknown.text);
    return true;
}

/* Reads the lists in the order in which free dimensions are counted: inputs, states, outputs. */
static bool read_lists(reading *in, const json *object, size_t most)
{
    rnnx_contract *contract = in->contract;
    contract->dims = rx_arena_take(in->memory, most * sizeof *contract->dims);
    if (!contract->dims)
        return rx_fail_memory(in->error);
    contract->dims[BATCH] = "batch";
    contract->dims[TIME] = "time";
    contract->dim_count = 2;
    if (!read_specs(in, object, "inputs", &contract->inputs, &contract->input_count) ||
        !read_specs(in, object, "states", &contract->states, &contract->state_count))
        return false;
    contract->free_count = contract->dim_count - 2;
    if (!read_specs(in, object, "outputs", &contract->outputs, &contract->output_count) || !check_names(in))
        return false;
    for (size_t i = 0; i < contract->input_count; i++) {
        const rnnx_spec *spec = &contract->inputs[i];
        contract->has_time |= rx_axis_of(spec->rank, spec->shape, TIME) >= 0;
        contract->has_batch |= rx_axis_of(spec->rank, spec->shape, BATCH) >= 0;
        if (!check_value(in, spec))
            return false;
    }
    for (size_t i = 0; i < contract->state_count; i++) {
        contract->has_batch |= rx_axis_of(contract->states[i].rank, contract->states[i].shape, BATCH) >= 0;
        if (!check_value(in, &contract->states[i]))
            return false;
    }
    return true;
}

bool rx_contract_read(rnnx_contract *contract, arena *memory, const char *said, size_t size,
                      rnnx_error *error)
{
    reading in = {contract, memory, error};
    const char *why, *id = NULL, *name = NULL;
    const json *object = rx_json_parse(memory, said, size, &why);
    if (!object)
        return invalid(&in, "JSON with %s", why);
    contract->json = said;
    if (!read_header(&in, object) || !text(&in, object, "id", false, &id) ||
        !text(&in, object, "name", false, &name) ||
        !text(&in, object, "whole_only", false, &contract->whole_only))
        return false;
    contract->id = id ? id : "";
    contract->name = name ? name : "";
    const json *rate = rx_json_get(object, "steps_per_second");
    contract->steps_per_second = rate && rate->type == JSON_NUMBER ? rate->number : 0;
    /* Every name of a dimension takes three bytes of the text or more. */
    return read_lists(&in, object, size / 3 + 2) && read_vocabulary(&in, object);
}
