/* One shape of call, prepared: buffers for what goes in and comes out, bound to the graph in both directions.
 */
#include "stream.h"

#include <stdlib.h>
#include <string.h>

static bool known(const rnnx_spec *spec, const int64_t *sizes)
{
    for (int axis = 0; axis < spec->rank; axis++)
        if (spec->shape[axis].index >= 0 && !sizes[spec->shape[axis].index])
            return false;
    return true;
}

static bool bind_all(ort_engine *engine, const rnnx_contract *contract, const call_plan *plan,
                     const ort_buffer *from, const ort_buffer *to, OrtIoBinding *binding, rnnx_error *error)
{
    const OrtApi *api = engine->api;
    OrtStatus *status = NULL;
    for (size_t i = 0; !status && i < contract->input_count; i++)
        status = api->BindInput(binding, contract->inputs[i].takes, plan->inputs[i].value);
    for (size_t i = 0; !status && i < contract->output_count; i++) {
        const char *name = contract->outputs[i].gives;
        OrtValue *value = plan->outputs[i].value;
        status = value ? api->BindOutput(binding, name, value)
                       : api->BindOutputToDevice(binding, name, engine->memory);
    }
    for (size_t i = 0; !status && i < contract->state_count; i++) {
        status = api->BindInput(binding, contract->states[i].takes, from[i].value);
        if (!status)
            status = api->BindOutput(binding, contract->states[i].gives, to[i].value);
    }
    return rx_engine_ok(engine, status, error);
}

static bool make_buffers(rnnx_stream *stream, call_plan *made, rnnx_error *error)
{
    ort_engine *engine = &stream->session->engine;
    const rnnx_contract *contract = &stream->session->contract;
    int64_t shape[RNNX_MAX_RANK];
    for (size_t i = 0; i < contract->input_count; i++) {
        const rnnx_spec *spec = &contract->inputs[i];
        rx_resolve(spec->rank, spec->shape, made->sizes, shape);
        if (!rx_buffer_make(engine, spec->dtype, spec->rank, shape, &made->inputs[i], error))
            return false;
    }
    for (size_t i = 0; i < contract->output_count; i++) {
        const rnnx_spec *spec = &contract->outputs[i];
        rnnx_tensor *result = &made->results[i];
        rnnx_dim seen[RNNX_MAX_RANK];
        *result = (rnnx_tensor){.name = spec->name, .dtype = spec->dtype};
        if (!known(spec, made->sizes))
            continue; /* ONNX Runtime allocates it */
        rx_resolve(spec->rank, spec->shape, made->sizes, shape);
        if (!rx_buffer_make(engine, spec->dtype, spec->rank, shape, &made->outputs[i], error))
            return false;
        result->rank = rx_caller_shape(contract, spec, made->whole && contract->has_time, seen);
        rx_resolve(result->rank, seen, made->sizes, result->shape);
        result->data = made->outputs[i].data;
    }
    return true;
}

bool rx_plan_make(rnnx_stream *stream, call_plan *made, bool whole, rnnx_error *error)
{
    ort_engine *engine = &stream->session->engine;
    const rnnx_contract *contract = &stream->session->contract;
    size_t bytes = contract->dim_count * sizeof *stream->wanted;
    if (made->made && memcmp(made->sizes, stream->wanted, bytes) == 0)
        return true;
    if (stream->latest == made->results)
        stream->latest = NULL;
    rx_plan_free(engine, contract, made);
    made->whole = whole;
    made->sizes = malloc(bytes);
    made->inputs = calloc(contract->input_count + 1, sizeof *made->inputs);
    made->outputs = calloc(contract->output_count + 1, sizeof *made->outputs);
    made->results = calloc(contract->output_count + 1, sizeof *made->results);
    bool good = made->sizes && made->inputs && made->outputs && made->results;
    if (!good)
        rx_fail_memory(error);
    else
        memcpy(made->sizes, stream->wanted, bytes);
    good = good && make_buffers(stream, made, error);
    for (int side = 0; good && side < 2; side++)
        good = rx_engine_ok(engine, engine->api->CreateIoBinding(engine->session, &made->binding[side]),
                            error) &&
               bind_all(engine, contract, made, stream->sides[side], stream->sides[1 - side],
                        made->binding[side], error);
    made->made = good;
    if (!good)
        rx_plan_free(engine, contract, made);
    return good;
}

static void free_loose(ort_engine *engine, call_plan *plan)
{
    OrtAllocator *allocator = NULL;
    for (size_t i = 0; i < plan->loose_count; i++)
        engine->api->ReleaseValue(plan->loose[i]);
    if (plan->loose && !engine->api->GetAllocatorWithDefaultOptions(&allocator))
        engine->api->ReleaseStatus(engine->api->AllocatorFree(allocator, plan->loose));
    plan->loose = NULL;
    plan->loose_count = 0;
}

void rx_plan_free(ort_engine *engine, const rnnx_contract *contract, call_plan *plan)
{
    free_loose(engine, plan);
    for (int side = 0; side < 2; side++)
        if (plan->binding[side])
            engine->api->ReleaseIoBinding(plan->binding[side]);
    for (size_t i = 0; plan->inputs && i < contract->input_count; i++)
        rx_buffer_free(engine, &plan->inputs[i]);
    for (size_t i = 0; plan->outputs && i < contract->output_count; i++)
        rx_buffer_free(engine, &plan->outputs[i]);
    free(plan->sizes);
    free(plan->inputs);
    free(plan->outputs);
    free(plan->results);
    memset(plan, 0, sizeof *plan);
}

void rx_plan_defaults(rnnx_stream *stream, call_plan *plan)
{
    const rnnx_contract *contract = &stream->session->contract;
    for (size_t i = 0; i < contract->input_count; i++) {
        const rnnx_spec *spec = &contract->inputs[i];
        ort_buffer *to = &plan->inputs[i];
        if (stream->given[i])
            continue;
        if (spec->value)
            rx_fill_values(spec->value, spec->dtype, to->rank, to->shape, to->data);
        else
            for (size_t row = 0; row < to->bytes / sizeof(int64_t); row++)
                ((int64_t *)to->data)[row] = plan->sizes[TIME];
    }
}

void rx_plan_fill(rnnx_stream *stream, call_plan *plan)
{
    rx_plan_defaults(stream, plan);
    for (size_t i = 0; i < stream->session->contract.input_count; i++)
        if (stream->given[i])
            memcpy(plan->inputs[i].data, stream->given[i]->data, plan->inputs[i].bytes);
}

/* Takes the outputs whose shape is known only now from the binding. They are in the order in which they were
 * bound. */
static bool take_loose(rnnx_stream *stream, call_plan *plan, int side, rnnx_error *error)
{
    ort_engine *engine = &stream->session->engine;
    const rnnx_contract *contract = &stream->session->contract;
    const OrtApi *api = engine->api;
    OrtAllocator *allocator = NULL;
    OrtStatus *status = api->GetAllocatorWithDefaultOptions(&allocator);
    if (!status)
        status = api->GetBoundOutputValues(plan->binding[side], allocator, &plan->loose, &plan->loose_count);
    for (size_t i = 0; !status && i < contract->output_count; i++) {
        const rnnx_spec *spec = &contract->outputs[i];
        rnnx_tensor *result = &plan->results[i];
        OrtTensorTypeAndShapeInfo *info = NULL;
        int64_t shape[RNNX_MAX_RANK];
        if (plan->outputs[i].value)
            continue;
        status = api->GetTensorTypeAndShape(plan->loose[i], &info);
        if (!status)
            status = api->GetDimensions(info, shape, (size_t)spec->rank);
        if (!status)
            status = api->GetTensorMutableData(plan->loose[i], &result->data);
        if (info)
            api->ReleaseTensorTypeAndShapeInfo(info);
        result->rank = 0;
        for (int axis = 0; axis < spec->rank; axis++)
            if (plan->whole || strcmp(spec->shape[axis].text, "time") != 0)
                result->shape[result->rank++] = shape[axis];
    }
    return rx_engine_ok(engine, status, error);
}

bool rx_plan_run(rnnx_stream *stream, call_plan *plan, rnnx_error *error)
{
    ort_engine *engine = &stream->session->engine;
    const rnnx_contract *contract = &stream->session->contract;
    bool loose = false;
    for (size_t i = 0; i < contract->output_count; i++)
        loose |= !plan->outputs[i].value;
    if (loose)
        free_loose(engine, plan);
    OrtStatus *status = engine->api->RunWithBinding(engine->session, NULL, plan->binding[stream->now]);
    if (!rx_engine_ok(engine, status, error) || (loose && !take_loose(stream, plan, stream->now, error)))
        return false;
    stream->now = 1 - stream->now;
    stream->position += (uint64_t)plan->sizes[TIME];
    return true;
}
