/* ONNX Runtime: found when it is needed, so that a program starts without it and runs with any version
 * from 1.29 on. (Linking would tie the program to one version: the library's symbols carry it.) */
#include "internal.h"
#include "platform.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { API_VERSION = 20, ALIGNMENT = 64 }; /* the oldest API with all that is used here; a cache line */

#ifdef _WIN32
static const char *const LIBRARIES[] = {"onnxruntime.dll"};
#elif defined(__APPLE__)
static const char *const LIBRARIES[] = {"libonnxruntime.dylib", "libonnxruntime.1.dylib"};
#else
static const char *const LIBRARIES[] = {"libonnxruntime.so.1", "libonnxruntime.so"};
#endif

static const struct {
    ONNXTensorElementDataType type;
    const char *name;
} TYPES[] = {
    [RNNX_FLOAT16] = {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, "float16"},
    [RNNX_FLOAT32] = {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, "float32"},
    [RNNX_FLOAT64] = {ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE, "float64"},
    [RNNX_INT8] = {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8, "int8"},
    [RNNX_INT16] = {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16, "int16"},
    [RNNX_INT32] = {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, "int32"},
    [RNNX_INT64] = {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, "int64"},
    [RNNX_UINT8] = {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, "uint8"},
    [RNNX_UINT16] = {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16, "uint16"},
    [RNNX_UINT32] = {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32, "uint32"},
    [RNNX_UINT64] = {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64, "uint64"},
    [RNNX_BOOL] = {ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL, "bool"},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16, "bfloat16"},
};

const char *rx_type_name(ONNXTensorElementDataType type)
{
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++)
        if (TYPES[i].type == type)
            return TYPES[i].name;
    return "something that is no tensor of numbers";
}

/* -- Loading */

static const OrtApi *find_api(const char *path, rnnx_error *error)
{
    void *library = NULL;
    char problem[300] = "";
    /* Official builds report their use over the network unless this says otherwise before they are loaded. */
    rx_environment_default("ORT_DISABLE_TELEMETRY", "1");
    path = path ? path : getenv("RNNX_ONNXRUNTIME");
    if (path && *path)
        library = rx_library_open(path, problem, sizeof problem);
    else
        for (size_t i = 0; !library && i < sizeof LIBRARIES / sizeof *LIBRARIES; i++)
            library = rx_library_open(LIBRARIES[i], problem, sizeof problem);
    /* The library is never let go of: it does not survive being loaded twice. */
    union {
        void *symbol;
        const OrtApiBase *(*call)(void);
    } base = {library ? rx_library_symbol(library, "OrtGetApiBase") : NULL};
    const OrtApi *api = base.symbol ? base.call()->GetApi(API_VERSION) : NULL;
    if (api)
        return api;
    rx_fail(error, "onnxruntime-missing", "expected ONNX Runtime's shared library; found %s; fix: %s",
            base.symbol ? "one that is too old" : problem,
            "set RNNX_ONNXRUNTIME to its path (it lies in the Python package onnxruntime, in capi/)");
    return NULL;
}

/* Says what an engine said, up to the end of its first line, and lets go of it. */
static void first_line(const OrtApi *api, OrtStatus *status, line *said)
{
    const char *text = api->GetErrorMessage(status);
    rx_add(said, "%.*s", (int)strcspn(text, "\r\n"), text);
    api->ReleaseStatus(status);
}

bool rx_engine_ok(ort_engine *engine, OrtStatus *status, rnnx_error *error)
{
    line said = {.used = 0};
    if (!status)
        return true;
    first_line(engine->api, status, &said);
    return rx_fail(error, "engine-failed",
                   "expected ONNX Runtime to compute the step; found %s; fix: the states are unchanged; "
                   "check that the contract fits the graph, or export the model again",
                   said.text);
}

static bool no_cuda(const char *found, rnnx_error *error)
{
    return rx_fail(error, "provider-unavailable",
                   "expected CUDA to work on this machine; found %s; fix: install ONNX Runtime with CUDA (in "
                   "Python: rnnx[cuda], without onnxruntime), or use provider cpu",
                   found);
}

static bool use_cuda(const OrtApi *api, OrtSessionOptions *settings, int device, rnnx_error *error)
{
    OrtCUDAProviderOptionsV2 *cuda = NULL;
    char number[16];
    const char *keys[] = {"device_id", "use_tf32"}, *values[] = {number, "0"};
    line said = {.used = 0};
    snprintf(number, sizeof number, "%d", device);
    OrtStatus *status = api->CreateCUDAProviderOptions(&cuda);
    if (status) {
        api->ReleaseStatus(status);
        return no_cuda("an ONNX Runtime built without CUDA", error);
    }
    status = api->UpdateCUDAProviderOptions(cuda, keys, values, 2);
    if (!status)
        status = api->SessionOptionsAppendExecutionProvider_CUDA_V2(settings, cuda);
    api->ReleaseCUDAProviderOptions(cuda);
    if (!status)
        return true;
    first_line(api, status, &said);
    return no_cuda(said.text, error);
}

static OrtSessionOptions *session_options(const OrtApi *api, const rnnx_options *options, rnnx_error *error)
{
    OrtSessionOptions *settings = NULL;
    const char *provider = options->provider ? options->provider : "cpu";
    bool cuda = strcmp(provider, "cuda") == 0;
    if (!cuda && strcmp(provider, "cpu") != 0) {
        rx_fail(error, "provider-unknown",
                "expected a provider out of cpu, cuda; found '%s'; fix: choose one of these", provider);
        return NULL;
    }
    OrtStatus *status = api->CreateSessionOptions(&settings);
    if (!status)
        status = api->SetIntraOpNumThreads(settings, options->threads > 0 ? options->threads : 1);
    if (!status)
        status = api->SetInterOpNumThreads(settings, 1);
    if (!status)
        status = api->AddSessionConfigEntry(settings, "session.intra_op.allow_spinning", "0");
    ort_engine engine = {.api = api};
    if (rx_engine_ok(&engine, status, error) && (!cuda || use_cuda(api, settings, options->device, error)))
        return settings;
    api->ReleaseSessionOptions(settings);
    return NULL;
}

/* Says why a model was not loaded. */
static bool refused(const OrtApi *api, OrtStatus *status, const char *path, bool cuda, rnnx_error *error)
{
    line said = {.used = 0};
    first_line(api, status, &said);
    if (cuda && strstr(said.text, "CUDA"))
        return no_cuda(said.text, error);
    return rx_fail(error, "engine-refused",
                   "expected %s to load in ONNX Runtime; found %s; fix: export it again, or install a newer "
                   "ONNX Runtime",
                   path ? path : "the model", said.text);
}

bool rx_engine_open(ort_engine *made, const char *path, const void *data, size_t size,
                    const rnnx_options *options, rnnx_error *error)
{
    const OrtApi *api = made->api = find_api(options->onnxruntime, error);
    if (!api || !rx_engine_ok(made, api->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "rnnx", &made->env), error))
        return false;
    OrtSessionOptions *settings = session_options(api, options, error);
    if (!settings)
        return false;
    bool cuda = options->provider && strcmp(options->provider, "cuda") == 0;
    void *native = data ? NULL : rx_path_native(path);
    OrtStatus *status = data ? api->CreateSessionFromArray(made->env, data, size, settings, &made->session)
                             : api->CreateSession(made->env, native, settings, &made->session);
    free(native);
    api->ReleaseSessionOptions(settings);
    if (status)
        return refused(api, status, path, cuda, error);
    status = api->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &made->memory);
    return rx_engine_ok(made, status, error);
}

void rx_engine_close(ort_engine *engine)
{
    if (!engine->api)
        return;
    if (engine->memory)
        engine->api->ReleaseMemoryInfo(engine->memory);
    if (engine->session)
        engine->api->ReleaseSession(engine->session);
    if (engine->env)
        engine->api->ReleaseEnv(engine->env);
}

/* -- Buffers */

bool rx_buffer_make(ort_engine *engine, rnnx_dtype dtype, int rank, const int64_t *shape, ort_buffer *made,
                    rnnx_error *error)
{
    made->rank = rank;
    made->bytes = rx_dtype_size(dtype);
    for (int axis = 0; axis < rank; axis++)
        if (__builtin_mul_overflow(made->bytes, (size_t)shape[axis], &made->bytes) ||
            made->bytes > PTRDIFF_MAX / 2)
            return rx_fail_memory(error);
    memcpy(made->shape, shape, (size_t)rank * sizeof *shape);
    size_t room = (made->bytes + ALIGNMENT) / ALIGNMENT * ALIGNMENT;
    made->data = rx_aligned_take(ALIGNMENT, room);
    if (!made->data)
        return rx_fail_memory(error);
    memset(made->data, 0, room);
    OrtStatus *status = engine->api->CreateTensorWithDataAsOrtValue(
        engine->memory, made->data, made->bytes, shape, (size_t)rank, TYPES[dtype].type, &made->value);
    return rx_engine_ok(engine, status, error);
}

void rx_buffer_free(ort_engine *engine, ort_buffer *buffer)
{
    if (buffer->value)
        engine->api->ReleaseValue(buffer->value);
    rx_aligned_free(buffer->data);
    *buffer = (ort_buffer){.data = NULL};
}
