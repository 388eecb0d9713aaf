#include "trace.h"

#include <stdlib.h>
#include <string.h>

static bool invalid(const char *expected, const char *found, rnnx_error *error)
{
    return rx_fail(error, "trace-invalid",
                   "expected a trace with %s; found %s; fix: record it again with 'rnnx export', or use the "
                   "trace that belongs to this model",
                   expected, found);
}

bool rx_has_steps(const rnnx_contract *contract, const rnnx_spec *spec)
{
    rnnx_dim shape[RNNX_MAX_RANK];
    return rx_axis_of(rx_caller_shape(contract, spec, true, shape), shape, TIME) >= 0;
}

/* Takes the tensor kind.NAME, whose first axis counts steps (and `extra` more) if `stepped`. */
static bool take(recording *trace, const rnnx_contract *contract, const char *kind, const rnnx_spec *spec,
                 bool stepped, int64_t extra, const rnnx_tensor **taken, rnnx_error *error)
{
    const rnnx_tensor *found = rx_tensor_file_get(&trace->file, kind, spec->name);
    line wanted = {.used = 0}, given = {.used = 0}, known = {.used = 0};
    rnnx_dim shape[RNNX_MAX_RANK];
    if (!found) {
        rx_add(&wanted, "a tensor '%s.%s'", kind, spec->name);
        for (size_t i = 0; i < trace->file.count; i++)
            rx_add_name(&given, trace->file.tensors[i].name);
        return invalid(wanted.text, trace->file.count ? given.text : "no tensors", error);
    }
    int rank = rx_caller_shape(contract, spec, false, shape);
    rnnx_tensor row = *found;
    int64_t steps = stepped && row.rank ? row.shape[0] - extra : 1;
    if (stepped && row.rank)
        memmove(row.shape, row.shape + 1, (size_t)--row.rank * sizeof *row.shape);
    bool good = found->dtype == spec->dtype && found->rank == rank + stepped && steps > 0;
    good = good && (!stepped || !trace->steps || trace->steps == steps);
    memcpy(trace->before, trace->sizes, contract->dim_count * sizeof *trace->sizes);
    if (good && rx_fit(rank, shape, &row, trace->sizes)) {
        if (stepped)
            trace->steps = steps;
        *taken = found;
        return true;
    }
    memcpy(trace->sizes, trace->before, contract->dim_count * sizeof *trace->sizes);
    rx_add(&wanted, "'%s.%s' as %s[%s", kind, spec->name, rx_dtype_name(spec->dtype),
           !stepped ? ""
           : extra  ? "step+1"
                    : "step");
    for (int axis = 0; axis < rank; axis++) {
        rx_add(&wanted, "%s", axis || stepped ? ", " : "");
        if (shape[axis].index < 0)
            rx_add(&wanted, "%lld", (long long)shape[axis].factor);
        else
            rx_add(&wanted, "%s", shape[axis].text);
    }
    rx_add(&wanted, "]");
    for (size_t i = 0; i < contract->dim_count; i++)
        if (trace->sizes[i])
            rx_add(&known, "%s%s %lld", known.used ? ", " : "", contract->dims[i],
                   (long long)trace->sizes[i]);
    if (trace->steps)
        rx_add(&known, "%sstep %lld", known.used ? ", " : "", (long long)trace->steps);
    if (known.used)
        rx_add(&wanted, " where %s", known.text);
    rx_add(&given, "%s", rx_dtype_name(found->dtype));
    rx_add_shape(&given, found->rank, found->shape);
    return invalid(wanted.text, given.text, error);
}

static bool take_all(recording *trace, const rnnx_contract *contract, rnnx_error *error)
{
    bool good = true;
    for (size_t i = 0; good && i < contract->input_count; i++) {
        const rnnx_spec *spec = &contract->inputs[i];
        bool optional = spec->value || spec->is_length;
        if (!optional || rx_tensor_file_get(&trace->file, "input", spec->name))
            good =
                take(trace, contract, "input", spec, rx_has_steps(contract, spec), 0, &trace->inputs[i], error);
    }
    for (size_t i = 0; good && i < contract->output_count; i++)
        good = take(trace, contract, "output", &contract->outputs[i], true, 0, &trace->outputs[i], error);
    for (size_t i = 0; good && i < contract->state_count; i++)
        good = take(trace, contract, "state", &contract->states[i], true, 1, &trace->states[i], error);
    return good;
}

static bool take_bound(const json *tolerances, const char *kind, const rnnx_spec *spec, bound *taken,
                       rnnx_error *error)
{
    line name = {.used = 0}, wanted = {.used = 0}, known = {.used = 0};
    rx_add(&name, "%s.%s", kind, spec->name);
    const json *entry = rx_json_get(tolerances, name.text);
    const json *atol = entry ? rx_json_get(entry, "atol") : NULL,
               *rtol = entry ? rx_json_get(entry, "rtol") : NULL;
    if (atol && rtol && atol->type == JSON_NUMBER && rtol->type == JSON_NUMBER) {
        *taken = (bound){atol->number, rtol->number};
        return true;
    }
    rx_add(&wanted, "a tolerance for '%s'", name.text);
    for (const json *other = tolerances->first; other; other = other->next)
        rx_add_name(&known, other->key);
    return invalid(wanted.text, known.used ? known.text : "none", error);
}

static bool take_bounds(recording *trace, const rnnx_contract *contract, rnnx_error *error)
{
    const char *text = rx_tensor_file_text(&trace->file, "tolerances"), *why;
    const json *tolerances = text ? rx_json_parse(&trace->file.memory, text, strlen(text), &why) : NULL;
    line found = {.used = 0};
    rx_add(&found, "'%.60s'", text ? text : "");
    if (!tolerances || tolerances->type != JSON_OBJECT)
        return invalid("tolerances as JSON", found.text, error);
    for (size_t i = 0; i < contract->output_count; i++)
        if (!take_bound(tolerances, "output", &contract->outputs[i], &trace->output_bounds[i], error))
            return false;
    for (size_t i = 0; i < contract->state_count; i++)
        if (!take_bound(tolerances, "state", &contract->states[i], &trace->state_bounds[i], error))
            return false;
    return true;
}

bool rx_trace_read(recording *made, const char *path, const rnnx_contract *contract, rnnx_error *error)
{
    size_t size;
    *made = (recording){.steps = 0};
    void *data = rx_read_file(path, "a trace", &size, error);
    if (!data)
        return false;
    bool good = rx_tensor_file_read(&made->file, data, size, "a trace", error);
    free(data);
    arena *memory = &made->file.memory;
    made->sizes = rx_arena_take(memory, contract->dim_count * sizeof *made->sizes);
    made->before = rx_arena_take(memory, contract->dim_count * sizeof *made->before);
    made->inputs = rx_arena_take(memory, contract->input_count * sizeof *made->inputs + 1);
    made->outputs = rx_arena_take(memory, contract->output_count * sizeof *made->outputs + 1);
    made->states = rx_arena_take(memory, contract->state_count * sizeof *made->states + 1);
    made->output_bounds = rx_arena_take(memory, contract->output_count * sizeof(bound) + 1);
    made->state_bounds = rx_arena_take(memory, contract->state_count * sizeof(bound) + 1);
    if (good && !(made->sizes && made->before && made->inputs && made->outputs && made->states &&
                  made->output_bounds && made->state_bounds))
        good = rx_fail_memory(error);
    good = good && rx_tensor_file_is(&made->file, "trace", contract->id, error) &&
           take_all(made, contract, error) && take_bounds(made, contract, error);
    if (!good)
        rx_trace_free(made);
    return good;
}

void rx_trace_free(recording *trace)
{
    rx_tensor_file_free(&trace->file);
}
