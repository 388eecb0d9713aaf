/* Proves a model on its trace, then runs it: over raw values, frame by frame, or as a writer of text.
 *
 *     build/app [MODEL]                 prove it, and say what a frame is
 *     build/app MODEL INPUT > OUTPUT    read frame, step, write frame; INPUT is a file, or - for standard input
 *     build/app MODEL "Once"            a model over symbols continues a prompt
 *
 * Standard error is for people; standard output is for what the model gives. */
#include <rnnx.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SYMBOLS = 200, TIME = 1 }; /* TIME is an index into a contract's dims */

static const char *const DTYPES[] = {"float16", "float32", "float64", "int8",   "int16",  "int32",
                                     "int64",   "uint8",   "uint16",  "uint32", "uint64", "bool"};
static const size_t SIZES[] = {2, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 1};

static bool is_required(const rnnx_spec *spec)
{
    return !spec->value && !spec->is_length;
}

/* Zeros in the shape of one step, batch 1; *bytes says how many they take. The caller frees the data. */
static rnnx_tensor step_of(const rnnx_spec *spec, size_t *bytes)
{
    rnnx_tensor made = {.name = spec->name, .dtype = spec->dtype};
    *bytes = SIZES[spec->dtype];
    for (int axis = 0; axis < spec->rank; axis++) {
        rnnx_dim dim = spec->shape[axis];
        if (dim.index == TIME && strcmp(dim.text, "time") == 0)
            continue; /* a step has no time axis; N*time has N entries */
        made.shape[made.rank++] = dim.factor;
        *bytes *= (size_t)dim.factor;
    }
    made.data = calloc(*bytes, 1);
    return made;
}

static size_t bytes_of(const rnnx_tensor *tensor)
{
    size_t bytes = SIZES[tensor->dtype];
    for (int axis = 0; axis < tensor->rank; axis++)
        bytes *= (size_t)tensor->shape[axis];
    return bytes;
}

/* Says what one step takes or gives, one tensor behind the other. */
static void describe(const char *what, const rnnx_spec *specs, size_t count)
{
    fprintf(stderr, "%s", what);
    for (size_t i = 0; i < count; i++) {
        size_t bytes;
        if (!is_required(&specs[i]))
            continue;
        rnnx_tensor step = step_of(&specs[i], &bytes);
        fprintf(stderr, " %s %s[", specs[i].name, DTYPES[specs[i].dtype]);
        for (int axis = 0; axis < step.rank; axis++)
            fprintf(stderr, axis ? ", %lld" : "%lld", (long long)step.shape[axis]);
        fprintf(stderr, "]");
        free(step.data);
    }
    fprintf(stderr, "\n");
}

/* Replays the trace beside the model; *agrees is false if it gives something else. */
static bool prove(rnnx_session *session, const char *model, bool *agrees, rnnx_error *error)
{
    char path[4096];
    size_t stem = strlen(model);
    if (stem > 5 && strcmp(model + stem - 5, ".onnx") == 0)
        stem -= 5;
    snprintf(path, sizeof path, "%.*s.trace.safetensors", (int)stem, model);
    FILE *trace = fopen(path, "rb");
    if (!trace) {
        fprintf(stderr, "not proved: there is no trace at %s\n", path);
        return true;
    }
    fclose(trace);
    rnnx_verdict told;
    if (!rnnx_replay(session, path, &told, error))
        return false;
    *agrees = told.agrees;
    if (told.agrees) {
        fprintf(stderr, "agrees: %lld steps, %.1e\n", (long long)told.steps, told.max_error);
        return true;
    }
    fprintf(stderr, "disagrees: %s at step %lld, index [", told.tensor, (long long)told.step);
    for (int axis = 0; axis < told.rank; axis++)
        fprintf(stderr, axis ? ", %lld" : "%lld", (long long)told.index[axis]);
    fprintf(stderr, "]: expected %s, got %s\n", told.expected, told.got);
    return true;
}

/* Reads a frame, steps, writes a frame, until the input ends; then a frame that is not whole gets zeros. */
static bool run_frames(rnnx_stream *stream, const rnnx_contract *contract, FILE *in, rnnx_tensor *inputs,
                       rnnx_error *error)
{
    size_t count = 0, size = 0, got, bytes;
    bool good = true;
    for (size_t i = 0; i < contract->input_count; i++)
        if (is_required(&contract->inputs[i])) {
            inputs[count++] = step_of(&contract->inputs[i], &bytes);
            size += bytes;
        }
    char *frame = malloc(size + 1);
    while (good && frame && (got = fread(frame, 1, size, in)) > 0) {
        if (got < size) {
            fprintf(stderr, "the last frame had %zu of %zu bytes: zeros stand for the others\n", got, size);
            memset(frame + got, 0, size - got);
        }
        const char *from = frame;
        for (size_t i = 0; i < count; from += bytes_of(&inputs[i]), i++)
            memcpy(inputs[i].data, from, bytes_of(&inputs[i]));
        good = rnnx_step(stream, inputs, count, error); /* here your data goes through the model */
        for (size_t i = 0; good && i < contract->output_count; i++) {
            const rnnx_tensor *output = &rnnx_outputs(stream)[i];
            fwrite(output->data, 1, bytes_of(output), stdout);
        }
    }
    fprintf(stderr, "%llu steps\n", (unsigned long long)rnnx_position(stream));
    free(frame);
    while (count)
        free(inputs[--count].data);
    return good;
}

static bool open_frames(rnnx_session *session, const char *source, rnnx_error *error)
{
    const rnnx_contract *contract = rnnx_session_contract(session);
    rnnx_size *dims = calloc(contract->free_count + 1, sizeof *dims);
    rnnx_tensor *inputs = calloc(contract->input_count + 1, sizeof *inputs);
    for (size_t i = 0; i < contract->free_count; i++)
        dims[i] = (rnnx_size){contract->dims[2 + i], 1};
    rnnx_stream_options options = {.dims = dims, .dim_count = contract->free_count};
    FILE *in = strcmp(source, "-") == 0 ? stdin : fopen(source, "rb");
    rnnx_stream *stream = in ? rnnx_stream_open(session, &options, error) : NULL;
    if (!in) {
        snprintf(error->code, sizeof error->code, "file-missing");
        snprintf(error->text, sizeof error->text,
                 "expected frames at %s; found no file that can be read; fix: "
                 "check the path",
                 source);
    }
    bool good = stream && run_frames(stream, contract, in, inputs, error);
    rnnx_stream_free(stream);
    if (in && in != stdin)
        fclose(in);
    free(inputs);
    free(dims);
    return good;
}

/* Runs one symbol as a step: an int64 of batch 1. */
static bool read_symbol(rnnx_stream *stream, const rnnx_contract *contract, int64_t id, rnnx_error *error)
{
    size_t bytes;
    rnnx_tensor token = step_of(&contract->inputs[contract->vocabulary_input], &bytes);
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
    const char *model = count > 1 ? arguments[1] : "model.onnx", *source = count > 2 ? arguments[2] : NULL;
    rnnx_error error = {.code = ""};
    rnnx_session *session = rnnx_open(model, NULL, &error);
    bool agrees = true, good = session && prove(session, model, &agrees, &error);
    if (good && agrees) {
        const rnnx_contract *contract = rnnx_session_contract(session);
        if (contract->symbols)
            good = write_text(session, source, &error);
        else if (contract->whole_only)
            fprintf(stderr, "it takes whole sequences: give them to rnnx_run, not to rnnx_step (%s)\n",
                    contract->whole_only);
        else if (source)
            good = open_frames(session, source, &error);
        else {
            describe("a frame in: ", contract->inputs, contract->input_count);
            describe("a frame out:", contract->outputs, contract->output_count);
            if (contract->steps_per_second > 0)
                fprintf(stderr, "frames a second: %g\n", contract->steps_per_second);
            fprintf(stderr, "run it: %s %s in.raw > out.raw\n", arguments[0], model);
        }
    }
    if (!good)
        fprintf(stderr, "error[%s]: %s\n", error.code, error.text);
    rnnx_close(session);
    return !good ? 2 : !agrees;
}
