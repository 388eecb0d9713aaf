/* Sessions: a loaded model and its contract, shared by whoever holds it. */
#include "platform.h"
#include "stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool missing(const char *path, const char *what, rnnx_error *error)
{
    if (errno == ENOENT || errno == ENOTDIR)
        return rx_fail(error, "file-missing", "expected %s at %s; found no such file; fix: check the path",
                       what, path);
    return rx_fail(error, "cannot-read", "expected %s at %s; found %s; fix: name a readable file", what, path,
                   errno == EISDIR ? "a folder" : strerror(errno));
}

static bool size_of_file(const char *path, const char *what, size_t *size, rnnx_error *error)
{
    rx_kind kind;
    uint64_t bytes;
    if (!rx_path_look(path, &kind, &bytes))
        return missing(path, what, error);
    if (kind == RX_FOLDER) {
        errno = EISDIR;
        return missing(path, what, error);
    }
    *size = (size_t)bytes;
    return true;
}

void *rx_read_file(const char *path, const char *what, size_t *size, rnnx_error *error)
{
    if (!size_of_file(path, what, size, error))
        return NULL;
    FILE *file = rx_path_read(path);
    if (!file)
        return missing(path, what, error), NULL;
    void *data = malloc(*size + 1);
    size_t got = data ? fread(data, 1, *size, file) : 0;
    fclose(file);
    if (data && got == *size)
        return data;
    free(data);
    errno = EIO;
    return data ? missing(path, what, error) : rx_fail_memory(error), NULL;
}

static bool load_bytes(rnnx_session *session, const char *path, const void *data, size_t size,
                       const rnnx_options *options, rnnx_error *error)
{
    static const rnnx_options defaults = {.provider = "cpu"};
    rx_model model;
    if (!rx_model_read(&model, &session->memory, path, data, size, error) ||
        !rx_contract_read(&session->contract, &session->memory, model.contract, model.size, error))
        return false;
    /* With weights beside the file, ONNX Runtime has to find them by the file's place. */
    const void *known = model.is_external ? NULL : data;
    return rx_engine_open(&session->engine, path, known, size, options ? options : &defaults, error) &&
           rx_engine_agrees(&session->engine, &session->contract, path ? path : "the model", &session->memory,
                            error);
}

/* Loads a model from a path, or from bytes where `data` is not NULL. */
static bool load(rnnx_session *session, const char *path, const void *data, size_t size,
                 const rnnx_options *options, rnnx_error *error)
{
    if (data)
        return load_bytes(session, NULL, data, size, options, error);
    void *read = rx_read_file(path, "an ONNX model", &size, error);
    bool good = read && load_bytes(session, path, read, size, options, error);
    free(read);
    return good;
}

static rnnx_session *open_any(const char *path, const void *data, size_t size, const rnnx_options *options,
                              rnnx_error *error)
{
    rnnx_session *session = calloc(1, sizeof *session);
    if (!session)
        return rx_fail_memory(error), NULL;
    atomic_init(&session->owners, 1);
    if (load(session, path, data, size, options, error))
        return session;
    rnnx_close(session);
    return NULL;
}

rnnx_session *rnnx_open(const char *path, const rnnx_options *options, rnnx_error *error)
{
    return open_any(path, NULL, 0, options, error);
}

rnnx_session *rnnx_open_bytes(const void *data, size_t size, const rnnx_options *options, rnnx_error *error)
{
    return open_any(NULL, data ? data : "", size, options, error);
}

void rnnx_close(rnnx_session *session)
{
    if (!session || atomic_fetch_sub(&session->owners, 1) > 1)
        return;
    rx_engine_close(&session->engine);
    rx_arena_free(&session->memory);
    free(session);
}

const rnnx_contract *rnnx_session_contract(const rnnx_session *session)
{
    return &session->contract;
}
