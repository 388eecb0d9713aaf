/* safetensors: 8 bytes with the length of a header of JSON, the header, then the data. Traces and snapshots
 * are stored so. */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const CODES[] = {
    [RNNX_FLOAT16] = "F16", [RNNX_FLOAT32] = "F32", [RNNX_FLOAT64] = "F64", [RNNX_INT8] = "I8",
    [RNNX_INT16] = "I16",   [RNNX_INT32] = "I32",   [RNNX_INT64] = "I64",   [RNNX_UINT8] = "U8",
    [RNNX_UINT16] = "U16",  [RNNX_UINT32] = "U32",  [RNNX_UINT64] = "U64",  [RNNX_BOOL] = "BOOL",
};

static bool is_little(void)
{
    const uint16_t one = 1;
    return *(const unsigned char *)&one == 1;
}

static bool not_one(const char *what, size_t size, const char *reason, rnnx_error *error)
{
    return rx_fail(error, "not-safetensors",
                   "expected %s, in safetensors format; found %zu bytes that are not: %s; fix: check the "
                   "path; if the file was copied, copy it again whole",
                   what, size, reason);
}

/* Reads what the header says of one tensor; returns NULL, or what is wrong. `data` are `room` bytes. */
static const char *read_tensor(const json *entry, char *data, size_t room, size_t *used, rnnx_tensor *tensor)
{
    const json *dtype = rx_json_get(entry, "dtype"), *shape = rx_json_get(entry, "shape");
    const json *offsets = rx_json_get(entry, "data_offsets");
    int known = 0;
    if (!dtype || dtype->type != JSON_STRING || !shape || shape->type != JSON_ARRAY || !offsets ||
        offsets->type != JSON_ARRAY || offsets->length != 2 || shape->length > RNNX_MAX_RANK)
        return "a malformed header";
    while (known <= RNNX_BOOL && strcmp(CODES[known], dtype->text) != 0)
        known++;
    if (known > RNNX_BOOL)
        return "a tensor of an unknown dtype";
    *tensor = (rnnx_tensor){.name = entry->key, .dtype = (rnnx_dtype)known};
    size_t bytes = rx_dtype_size(tensor->dtype);
    for (const json *size = shape->first; size; size = size->next) {
        if (!size->is_integer || size->integer < 0)
            return "a malformed header";
        tensor->shape[tensor->rank++] = size->integer;
        if (size->integer && bytes > SIZE_MAX / (size_t)size->integer)
            return "a tensor of another size than its shape";
        bytes *= (size_t)size->integer;
    }
    const json *begin = offsets->first, *end = begin->next;
    if (!begin->is_integer || !end->is_integer || begin->integer < 0 || end->integer < begin->integer ||
        (uint64_t)(end->integer - begin->integer) != bytes)
        return "a tensor of another size than its shape";
    if ((uint64_t)end->integer > room)
        return "cut short in a tensor";
    if ((size_t)end->integer > *used)
        *used = (size_t)end->integer;
    tensor->data = data + begin->integer;
    return NULL;
}

/* Moves the tensors into memory of their own, each at an address that its dtype may stand at. */
static const char *align(tensor_file *file)
{
    size_t room = 1;
    for (size_t i = 0; i < file->count; i++)
        room += rx_count_of(file->tensors[i].rank, file->tensors[i].shape) *
                    rx_dtype_size(file->tensors[i].dtype) +
                8;
    char *to = file->data = malloc(room);
    if (!to)
        return "no memory to hold them";
    for (size_t i = 0; i < file->count; i++) {
        rnnx_tensor *tensor = &file->tensors[i];
        size_t bytes = rx_count_of(tensor->rank, tensor->shape) * rx_dtype_size(tensor->dtype);
        memcpy(to, tensor->data, bytes);
        tensor->data = to;
        to += (bytes + 7) / 8 * 8;
    }
    return NULL;
}

static const char *read_header(tensor_file *file, const char *data, size_t size)
{
    size_t length = 0, used = 0, total = 0;
    const char *why = NULL;
    if (!is_little())
        return "little-endian, and this machine is not";
    if (size < 8)
        return "too short for a header";
    for (int i = 7; i >= 0; i--)
        length = length << 8 | (unsigned char)data[i];
    if (length > size - 8)
        return "cut short in the header";
    const json *header = rx_json_parse(&file->memory, data + 8, length, &why);
    if (!header || header->type != JSON_OBJECT)
        return "a malformed header";
    file->tensors = rx_arena_take(&file->memory, header->length * sizeof *file->tensors + 1);
    if (!file->tensors)
        return "no memory to hold them";
    for (const json *entry = header->first; entry; entry = entry->next) {
        if (strcmp(entry->key, "__metadata__") == 0)
            file->metadata = entry;
        else if ((why = read_tensor(entry, (char *)data + 8 + length, size - 8 - length, &used,
                                    &file->tensors[file->count++])))
            return why;
    }
    for (const json *text = file->metadata ? file->metadata->first : NULL; text; text = text->next)
        if (text->type != JSON_STRING)
            return "metadata that is not text";
    if (used != size - 8 - length)
        return "bytes behind the last tensor";
    /* Every byte belongs to one tensor, so that a file costs what it is long. */
    for (size_t i = 0; i < file->count; i++) {
        total += rx_count_of(file->tensors[i].rank, file->tensors[i].shape) *
                 rx_dtype_size(file->tensors[i].dtype);
        if (total > used)
            return "tensors that share bytes";
    }
    return total == used ? align(file) : "bytes between tensors";
}

bool rx_tensor_file_read(tensor_file *file, const void *data, size_t size, const char *what,
                         rnnx_error *error)
{
    *file = (tensor_file){.count = 0};
    const char *why = read_header(file, data, size);
    if (!why)
        return true;
    rx_tensor_file_free(file);
    return not_one(what, size, why, error);
}

const rnnx_tensor *rx_tensor_file_get(const tensor_file *file, const char *prefix, const char *name)
{
    size_t length = strlen(prefix);
    for (size_t i = 0; i < file->count; i++) {
        const char *full = file->tensors[i].name;
        if (strncmp(full, prefix, length) == 0 && full[length] == '.' && strcmp(full + length + 1, name) == 0)
            return &file->tensors[i];
    }
    return NULL;
}

const char *rx_tensor_file_text(const tensor_file *file, const char *key)
{
    const json *text = file->metadata ? rx_json_get(file->metadata, key) : NULL;
    return text ? text->text : NULL;
}

bool rx_tensor_file_is(const tensor_file *file, const char *kind, const char *model, rnnx_error *error)
{
    const char *format = rx_tensor_file_text(file, "format"), *version = rx_tensor_file_text(file, "version");
    const char *owner = rx_tensor_file_text(file, "model");
    char wanted[32], code[40];
    snprintf(wanted, sizeof wanted, "rnnx-%s", kind);
    bool number = version && *version && strspn(version, "0123456789") == strlen(version);
    if (!format || strcmp(format, wanted) != 0 || !number) {
        snprintf(code, sizeof code, "not-a-%s", kind);
        return rx_fail(error, code,
                       "expected a %s (metadata format '%s' and a version); found safetensors of format "
                       "'%s'; fix: name a %s that rnnx wrote",
                       kind, wanted, format ? format : "", kind);
    }
    if (strlen(version) > 1 || *version > '1') {
        snprintf(code, sizeof code, "%s-newer", kind);
        return rx_fail(error, code,
                       "expected a %s of version 1 at most; found version %s; fix: install a newer rnnx",
                       kind, version);
    }
    if (owner && strcmp(owner, model) == 0)
        return true;
    snprintf(code, sizeof code, "%s-of-another-model", kind);
    return rx_fail(
        error, code,
        "expected a %s of the model %s; found one of %s; fix: use the model file that it was made with", kind,
        model, owner ? owner : "no model");
}

void rx_tensor_file_free(tensor_file *file)
{
    rx_arena_free(&file->memory);
    free(file->data);
    *file = (tensor_file){.count = 0};
}

/* -- Writing */

/* Bytes that are only counted while `bytes` is NULL. */
typedef struct output {
    char *bytes;
    size_t used;
} output;

static void put(output *to, const void *data, size_t size)
{
    if (to->bytes)
        memcpy(to->bytes + to->used, data, size);
    to->used += size;
}

static void put_text(output *to, const char *text)
{
    put(to, text, strlen(text));
}

/* As JSON, with no escape that is not needed. */
static void put_string(output *to, const char *text, const char *more)
{
    static const char names[] = "\"\\\b\f\n\r\t", escapes[] = "\"\\bfnrt";
    char escape[8];
    put_text(to, "\"");
    for (const char *part = text; part; part = part == text ? more : NULL)
        for (const char *at = part; *at; at++) {
            const char *found = strchr(names, *at);
            if (found)
                snprintf(escape, sizeof escape, "\\%c", escapes[found - names]);
            else if ((unsigned char)*at < 0x20)
                snprintf(escape, sizeof escape, "\\u%04x", (unsigned char)*at);
            else
                snprintf(escape, sizeof escape, "%c", *at);
            put_text(to, escape);
        }
    put_text(to, "\"");
}

static size_t put_entry(output *to, const rnnx_tensor *tensor, const char *prefix, size_t begin)
{
    char number[32];
    size_t end = begin + rx_count_of(tensor->rank, tensor->shape) * rx_dtype_size(tensor->dtype);
    put_text(to, ",");
    put_string(to, prefix, tensor->name);
    put_text(to, ":{\"dtype\":\"");
    put_text(to, CODES[tensor->dtype]);
    put_text(to, "\",\"shape\":[");
    for (int axis = 0; axis < tensor->rank; axis++) {
        snprintf(number, sizeof number, "%s%lld", axis ? "," : "", (long long)tensor->shape[axis]);
        put_text(to, number);
    }
    snprintf(number, sizeof number, "],\"data_offsets\":[%zu,", begin);
    put_text(to, number);
    snprintf(number, sizeof number, "%zu]}", end);
    put_text(to, number);
    return end;
}

static void put_file(output *to, const rnnx_tensor *tensors, const char *const *prefixes, size_t count,
                     const char *const *keys, size_t header)
{
    unsigned char length[8];
    size_t end = 0;
    for (int i = 0; i < 8; i++)
        length[i] = (unsigned char)((uint64_t)header >> (8 * i));
    put(to, length, 8);
    put_text(to, "{\"__metadata__\":{");
    for (size_t i = 0; keys[i]; i += 2) {
        put_text(to, i ? "," : "");
        put_string(to, keys[i], NULL);
        put_text(to, ":");
        put_string(to, keys[i + 1], NULL);
    }
    put_text(to, "}");
    for (size_t size = 8; size; size /= 2) /* larger entries first, so that all are aligned */
        for (size_t i = 0; i < count; i++)
            if (rx_dtype_size(tensors[i].dtype) == size)
                end = put_entry(to, &tensors[i], prefixes[i], end);
    put_text(to, "}");
    while (to->used % 8)
        put_text(to, " ");
    for (size_t size = 8; size; size /= 2)
        for (size_t i = 0; i < count; i++)
            if (rx_dtype_size(tensors[i].dtype) == size)
                put(to, tensors[i].data, rx_count_of(tensors[i].rank, tensors[i].shape) * size);
}

void *rx_tensor_file_write(const rnnx_tensor *tensors, const char *const *prefixes, size_t count,
                           const char *const *keys, size_t *size)
{
    output to = {.bytes = NULL};
    size_t data = 0;
    for (size_t i = 0; i < count; i++)
        data += rx_count_of(tensors[i].rank, tensors[i].shape) * rx_dtype_size(tensors[i].dtype);
    put_file(&to, tensors, prefixes, count, keys, 0); /* to see how long it gets */
    size_t header = to.used - data - 8;
    to = (output){.bytes = malloc(to.used)};
    if (to.bytes)
        put_file(&to, tensors, prefixes, count, keys, header);
    *size = to.used;
    return to.bytes;
}
