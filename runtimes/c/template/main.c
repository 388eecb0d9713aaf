/* Opens a model and runs it: text if it has a vocabulary, else steps on zeros.
 *
 *     build/app [MODEL] [PROMPT]
 */
#include <rnnx.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    STEPS = 5,
    SYMBOLS = 200,
    BATCH = 0,
    TIME = 1
}; /* BATCH and TIME are indices into a contract's dims */

/* Zeros for an input of batch 1, in the shape of one step, or of a chunk of `steps`. The caller frees its
 * data. */
static rnnx_tensor zeros(const rnnx_spec *spec, int64_t steps)
{
    rnnx_tensor made = {.name = spec->name, .dtype = spec->dtype};
    size_t count = 1;
    for (int axis = 0; axis < spec->rank; axis++) {
        rnnx_dim dim = spec->shape[axis];
        if (dim.index == TIME && !steps && strcmp(dim.text, "time") == 0)
            continue; /* a step has no time axis */
        int64_t size = dim.factor * (dim.index == TIME && steps ? steps : 1);
        made.shape[made.rank++] = size;
        count *= (size_t)size;
    }
    made.data = calloc(count, 8); /* no entry takes more than 8 bytes */
    return made;
}

static void print_outputs(const rnnx_stream *stream, size_t count)
{
    const rnnx_tensor *outputs = rnnx_outputs(stream);
    for (size_t i = 0; i < count; i++) {
        printf("%s [", outputs[i].name);
        for (int axis = 0; axis < outputs[i].rank; axis++)
            printf(axis ? ", %lld" : "%lld", (long long)outputs[i].shape[axis]);
        printf("]");
        if (outputs[i].dtype == RNNX_FLOAT32)
            printf(" begins with %g", (double)*(float *)outputs[i].data);
        printf(i + 1 < count ? ", " : "\n");
    }
}

/* Prints the outputs of some steps on zeros; a model of whole sequences takes them as one chunk. */
static bool step_on_zeros(rnnx_session *session, rnnx_error *error)
{
    const rnnx_contract *contract = rnnx_session_contract(session);
    bool whole = contract->whole_only != NULL, good = true;
    rnnx_size *dims = calloc(contract->free_count + 1, sizeof *dims);
    rnnx_tensor *inputs = calloc(contract->input_count + 1, sizeof *inputs);
    size_t count = 0;
    for (size_t i = 0; i < contract->free_count; i++)
        dims[i] = (rnnx_size){contract->dims[2 + i], 1};
    for (size_t i = 0; i < contract->input_count; i++)
        if (!contract->inputs[i].value && !contract->inputs[i].is_length)
            inputs[count++] = zeros(&contract->inputs[i], whole ? STEPS : 0);
    rnnx_stream_options options = {.dims = dims, .dim_count = contract->free_count};
    rnnx_stream *stream = rnnx_stream_open(session, &options, error);
    good = stream != NULL;
    for (int step = 0; good && step < (whole ? 1 : STEPS); step++) {
        good = (whole ? rnnx_run : rnnx_step)(stream, inputs, count, error);
        if (good)
            print_outputs(stream, contract->output_count);
    }
    rnnx_stream_free(stream);
    while (count)
        free(inputs[--count].data);
    free(inputs);
    free(dims);
    return good;
}

/* Runs one symbol as a step: an int64 of batch 1. */
static bool read_symbol(rnnx_stream *stream, const rnnx_contract *contract, int64_t id, rnnx_error *error)
{
    const rnnx_spec *spec = &contract->inputs[contract->vocabulary_input];
    rnnx_tensor token = zeros(spec, 0);
    if (token.data)
        memcpy(token.data, &id, sizeof id);
    bool good = rnnx_step(stream, &token, 1, error);
    free(token.data);
    return good;
}

/* Prints symbols that continue the prompt. */
static bool write_text(rnnx_session *session, const char *prompt, rnnx_error *error)
{
    const rnnx_contract *contract = rnnx_session_contract(session);
    rnnx_sampler sampler = {.state = 7, .temperature = 0.8};
    char symbol[5];
    size_t count, drawn;
    if (!prompt && rnnx_decode(contract, 0, symbol, error))
        prompt = symbol;
    int64_t *ids = malloc((strlen(prompt) + 1) * sizeof *ids);
    rnnx_stream *stream = rnnx_stream_open(session, NULL, error);
    bool good = ids && stream && rnnx_encode(contract, prompt, strlen(prompt), ids, &count, error);
    for (size_t i = 0; good && i < count; i++)
        good = read_symbol(stream, contract, ids[i], error);
    if (good)
        printf("%s", prompt);
    for (int i = 0; good && i < SYMBOLS; i++) {
        const rnnx_tensor *scores = &rnnx_outputs(stream)[contract->vocabulary_output];
        good = rnnx_sample(&sampler, scores, contract->symbol_count, &drawn, error) &&
               rnnx_decode(contract, (int64_t)drawn, symbol, error) &&
               read_symbol(stream, contract, (int64_t)drawn, error);
        if (good)
            printf("%s", symbol);
    }
    printf("\n");
    rnnx_stream_free(stream);
    free(ids);
    return good;
}

int main(int count, char **arguments)
{
    rnnx_error error = {.code = ""};
    rnnx_session *session = rnnx_open(count > 1 ? arguments[1] : "model.onnx", NULL, &error);
    bool good = session != NULL;
    if (good && rnnx_session_contract(session)->symbols)
        good = write_text(session, count > 2 ? arguments[2] : NULL, &error);
    else if (good)
        good = step_on_zeros(session, &error);
    if (!good)
        fprintf(stderr, "error[%s]: %s\n", error.code, error.text);
    rnnx_close(session);
    return good ? 0 : 2;
}
