/* The contract held against the graph: names, dtypes and shapes must agree. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

/* An input or output as the graph declares it. */
typedef struct declared {
    const char *dtype;
    size_t rank;
    int64_t numbers[RNNX_MAX_RANK];
    const char *names[RNNX_MAX_RANK]; /* of dimensions without a number; "" for one left open */
    OrtTypeInfo *owner;
} declared;

static OrtStatus *declaration(ort_engine *engine, bool input, size_t index, declared *found)
{
    const OrtApi *api = engine->api;
    const OrtTensorTypeAndShapeInfo *info = NULL;
    ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    OrtStatus *status = input ? api->SessionGetInputTypeInfo(engine->session, index, &found->owner)
                              : api->SessionGetOutputTypeInfo(engine->session, index, &found->owner);
    if (!status)
        status = api->CastTypeInfoToTensorInfo(found->owner, &info);
    if (!status && info)
        status = api->GetTensorElementType(info, &type);
    if (!status && info)
        status = api->GetDimensionsCount(info, &found->rank);
    if (!status && info && found->rank <= RNNX_MAX_RANK)
        status = api->GetDimensions(info, found->numbers, found->rank);
    if (!status && info && found->rank <= RNNX_MAX_RANK)
        status = api->GetSymbolicDimensions(info, found->names, found->rank);
    found->dtype = rx_type_name(type);
    return status;
}

/* Whether the contract's dtype and shape are the graph's; a dimension that the graph leaves open agrees with
 * any. */
static bool same(const rnnx_contract *contract, const rnnx_spec *spec, const declared *graph)
{
    if (strcmp(rx_dtype_name(spec->dtype), graph->dtype) != 0 || (size_t)spec->rank != graph->rank)
        return false;
    for (int axis = 0; axis < spec->rank; axis++) {
        bool open = graph->numbers[axis] < 0;
        /* ONNX Runtime shows what it inferred. A name that only outputs have says nothing that could differ.
         */
        if (spec->shape[axis].index >= (int)(2 + contract->free_count))
            continue;
        if (open && *graph->names[axis] && strcmp(graph->names[axis], spec->shape[axis].text) != 0)
            return false;
        if (!open && (spec->shape[axis].index >= 0 || spec->shape[axis].factor != graph->numbers[axis]))
            return false;
    }
    return true;
}

static bool disagree(const char *label, const char *on, const char *ours, const char *theirs,
                     rnnx_error *error)
{
    return rx_fail(error, "contract-graph",
                   "expected contract and graph of %s to agree on %s; found %s in the contract, %s in the "
                   "graph; fix: export the model again with 'rnnx export'",
                   label, on, ours, theirs);
}

static bool value_agrees(const rnnx_contract *contract, const rnnx_spec *spec, const char *name, bool input,
                         const declared *graph, const char *label, rnnx_error *error)
{
    line on = {.used = 0}, ours = {.used = 0}, theirs = {.used = 0};
    if (same(contract, spec, graph))
        return true;
    rx_add(&on, "%s '%s'", input ? "input" : "output", name);
    rx_add_dims(&ours, spec, spec->rank, spec->shape, NULL);
    rx_add(&theirs, "%s[", graph->dtype);
    for (size_t axis = 0; axis < graph->rank && axis < RNNX_MAX_RANK; axis++) {
        rx_add(&theirs, "%s", axis ? ", " : "");
        if (graph->numbers[axis] < 0)
            rx_add(&theirs, "%s", graph->names[axis]);
        else
            rx_add(&theirs, "%lld", (long long)graph->numbers[axis]);
    }
    rx_add(&theirs, "]");
    return disagree(label, on.text, ours.text, theirs.text, error);
}

static int by_name(const void *one, const void *other)
{
    return strcmp(*(const char *const *)one, *(const char *const *)other);
}

/* One side of the model, what it takes or what it gives, as the contract or the graph names it. */
typedef struct side {
    const char **names;
    const rnnx_spec **specs; /* of the contract */
    size_t count;
} side;

static bool side_of_contract(const rnnx_contract *contract, bool input, arena *memory, side *found)
{
    const rnnx_spec *own = input ? contract->inputs : contract->outputs;
    size_t own_count = input ? contract->input_count : contract->output_count;
    found->count = own_count + contract->state_count;
    found->names = rx_arena_take(memory, found->count * sizeof *found->names + 1);
    found->specs = rx_arena_take(memory, found->count * sizeof *found->specs + 1);
    for (size_t i = 0; found->names && found->specs && i < found->count; i++) {
        const rnnx_spec *spec = i < own_count ? &own[i] : &contract->states[i - own_count];
        found->specs[i] = spec;
        found->names[i] = input ? spec->takes : spec->gives;
    }
    return found->names && found->specs;
}

static OrtStatus *side_of_graph(ort_engine *engine, bool input, arena *memory, side *found)
{
    const OrtApi *api = engine->api;
    OrtAllocator *allocator = NULL;
    OrtStatus *status = api->GetAllocatorWithDefaultOptions(&allocator);
    if (!status)
        status = input ? api->SessionGetInputCount(engine->session, &found->count)
                       : api->SessionGetOutputCount(engine->session, &found->count);
    found->names = rx_arena_take(memory, found->count * sizeof *found->names + 1);
    for (size_t i = 0; !status && found->names && i < found->count; i++) {
        char *name = NULL;
        status = input ? api->SessionGetInputName(engine->session, i, allocator, &name)
                       : api->SessionGetOutputName(engine->session, i, allocator, &name);
        if (status)
            break;
        found->names[i] = rx_arena_copy(memory, name, strlen(name));
        api->ReleaseStatus(api->AllocatorFree(allocator, name));
        if (!found->names[i])
            found->names = NULL;
    }
    return status;
}

static const rnnx_spec *spec_of(const side *contract, const char *name)
{
    for (size_t i = 0; i < contract->count; i++)
        if (strcmp(contract->names[i], name) == 0)
            return contract->specs[i];
    return NULL;
}

/* Lists names in the order of the alphabet; sorts them. */
static void list(line *to, side *of)
{
    qsort(of->names, of->count, sizeof *of->names, by_name);
    for (size_t i = 0; i < of->count; i++)
        rx_add_name(to, of->names[i]);
    if (!of->count)
        rx_add(to, "none");
}

static bool side_agrees(ort_engine *engine, const rnnx_contract *contract, bool input, const char *label,
                        arena *memory, rnnx_error *error)
{
    side ours = {.count = 0}, theirs = {.count = 0};
    line known = {.used = 0}, found = {.used = 0};
    if (!rx_engine_ok(engine, side_of_graph(engine, input, memory, &theirs), error))
        return false;
    if (!theirs.names || !side_of_contract(contract, input, memory, &ours))
        return rx_fail_memory(error);
    bool good = ours.count == theirs.count;
    for (size_t i = 0; good && i < theirs.count; i++)
        good = spec_of(&ours, theirs.names[i]) != NULL;
    if (!good) {
        list(&known, &ours);
        list(&found, &theirs);
        return disagree(label, input ? "the inputs" : "the outputs", known.text, found.text, error);
    }
    for (size_t i = 0; good && i < theirs.count; i++) {
        declared graph = {.rank = 0};
        good = rx_engine_ok(engine, declaration(engine, input, i, &graph), error) &&
               value_agrees(contract, spec_of(&ours, theirs.names[i]), theirs.names[i], input, &graph, label,
                            error);
        if (graph.owner)
            engine->api->ReleaseTypeInfo(graph.owner);
    }
    return good;
}

bool rx_engine_agrees(ort_engine *engine, const rnnx_contract *contract, const char *label, arena *memory,
                      rnnx_error *error)
{
    return side_agrees(engine, contract, true, label, memory, error) &&
           side_agrees(engine, contract, false, label, memory, error);
}
