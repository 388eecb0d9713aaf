/* Tensors of a model whose values lie in other files: found wherever a tensor may stand, and read from the
 * model's own folder alone. Field numbers are those of onnx.proto. */
#include "internal.h"
#include "platform.h"
#include "protobuf.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEEPEST = 100, SHARED = 4 }; /* messages in messages; how many tensors may share values, on average */

/* A tensor whose values lie in another file. */
typedef struct external {
    const char *location;
    uint64_t offset, bytes;
} external;

typedef struct reading {
    arena *memory;
    rnnx_error *error;
    bool refused; /* `error` says why; else what is wrong is no model */
    external *found;
    size_t count, room;
} reading;

static bool refuse(reading *in, const char *expected, const char *found)
{
    in->refused = true;
    return rx_fail(in->error, "external-data-refused",
                   "expected %s; found %s; fix: export the model again, or ask whoever made it", expected,
                   found);
}

static bool missing(reading *in, const char *location, const char *found)
{
    in->refused = true;
    return rx_fail(
        in->error, "external-data-missing",
        "expected the model's weights in '%.80s' beside it; found %s; fix: keep both files together "
        "and load the model by its path",
        location, found);
}

static bool no_memory(reading *in)
{
    in->refused = true;
    return rx_fail_memory(in->error);
}

/* Of onnx.proto's TensorProto.DataType; 0 for those that have no size. */
static unsigned bits_of(uint64_t type)
{
    static const unsigned char bits[] = {0,  32, 8,   8,  16, 16, 32, 64, 0, 8, 16, 64, 32,
                                         64, 64, 128, 16, 8,  8,  8,  8,  4, 4, 4,  8};
    return type < sizeof bits ? bits[type] : 0;
}

static uint64_t times(uint64_t left, uint64_t right)
{
    return left && right > UINT64_MAX / left ? UINT64_MAX : left * right;
}

static uint64_t plus(uint64_t left, uint64_t right)
{
    return left > UINT64_MAX - right ? UINT64_MAX : left + right;
}

/* Reads offset or length of an external tensor: decimal, in less than 20 digits. */
static bool read_size(reading *in, const char *name, span text, uint64_t *size)
{
    line expected = {.used = 0}, found = {.used = 0};
    bool good = text.at < text.end && text.end - text.at < 20;
    *size = 0;
    for (const unsigned char *at = text.at; good && at < text.end; at++) {
        good = *at >= '0' && *at <= '9';
        *size = *size * 10 + (uint64_t)(*at - '0');
    }
    if (good)
        return true;
    rx_add(&expected, "a whole number of bytes as %s of an external tensor", name);
    rx_add(&found, "'%.*s'", (int)(text.end - text.at > 40 ? 40 : text.end - text.at), (const char *)text.at);
    return refuse(in, expected.text, found.text);
}

/* Whether a location leads out of a folder by its words alone, in the ways of any system. */
static bool leads_out(const char *location)
{
    if (!*location || *location == '/' || *location == '\\' || location[1] == ':')
        return true;
    for (const char *part = location; *part; part += strspn(part, "/\\")) {
        size_t length = strcspn(part, "/\\");
        if (length == 2 && part[0] == '.' && part[1] == '.')
            return true;
        part += length;
    }
    return false;
}

static bool keep(reading *in, span location, uint64_t offset, uint64_t bytes)
{
    size_t length = (size_t)(location.end - location.at);
    char *text = rx_arena_copy(in->memory, (const char *)location.at, length);
    if (in->count == in->room) {
        size_t room = in->room ? 2 * in->room : 16;
        external *grown = realloc(in->found, room * sizeof *grown);
        if (!grown)
            return no_memory(in);
        in->found = grown;
        in->room = room;
    }
    if (!text)
        return no_memory(in);
    if (strlen(text) != length)
        *text = 0; /* what holds a zero names no file */
    in->found[in->count++] = (external){text, offset, bytes};
    return true;
}

/* Adds the entries of one or more dimensions. */
static bool dimensions(const field *part, uint64_t *entries)
{
    span packed = part->bytes;
    uint64_t size;
    if (!part->is_bytes) {
        *entries = times(*entries, part->value);
        return true;
    }
    while (packed.at < packed.end) {
        if (!rx_next_varint(&packed, &size))
            return false;
        *entries = times(*entries, size);
    }
    return true;
}

static bool read_tensor(reading *in, span tensor)
{
    bool is_external = false, good = true, has_length = false, has_offset = false;
    span key, value, location = {tensor.end, tensor.end}, offset = location, length = location;
    uint64_t entries = 1, start = 0, stated;
    unsigned bits = 0;
    for (field part; tensor.at < tensor.end;) {
        if (!rx_next_field(&tensor, &part))
            return false;
        is_external |= part.number == 13 || (part.number == 14 && part.value == 1);
        if (part.number == 1)
            good &= dimensions(&part, &entries);
        else if (part.number == 2 && !part.is_bytes)
            bits = bits_of(part.value);
        if (part.number != 13 || !part.is_bytes)
            continue;
        if (!rx_text_entry(part.bytes, &key, &value))
            return false;
        if (rx_is_text(key, "location"))
            location = value;
        else if (rx_is_text(key, "offset"))
            has_offset = true, offset = value;
        else if (rx_is_text(key, "length"))
            has_length = true, length = value;
    }
    if (!is_external || !good)
        return good;
    if (!bits)
        return refuse(in, "an external tensor of a dtype with a size", "one of another");
    uint64_t bytes = entries > UINT64_MAX / 256 ? UINT64_MAX : (entries * bits + 7) / 8;
    if ((has_offset && !read_size(in, "offset", offset, &start)) ||
        (has_length && !read_size(in, "length", length, &stated)))
        return false;
    if (has_length && stated != bytes) {
        line expected = {.used = 0}, found = {.used = 0};
        rx_add(&expected, "an external tensor of %llu bytes, as its shape has", (unsigned long long)bytes);
        rx_add(&found, "length %llu", (unsigned long long)stated);
        return refuse(in, expected.text, found.text);
    }
    return keep(in, location, start, bytes);
}

/* Which messages hold which, as far as they lead to tensors. */
typedef enum kind { MODEL, TRAINING, FUNCTION, GRAPH, NODE, ATTRIBUTE, SPARSE, TENSOR } kind;

static const struct {
    kind outer;
    unsigned number;
    kind inner;
} INSIDE[] = {
    {MODEL, 7, GRAPH},       {MODEL, 20, TRAINING},   {MODEL, 25, FUNCTION},     {TRAINING, 1, GRAPH},
    {TRAINING, 2, GRAPH},    {FUNCTION, 7, NODE},     {FUNCTION, 11, ATTRIBUTE}, {GRAPH, 1, NODE},
    {GRAPH, 5, TENSOR},      {GRAPH, 15, SPARSE},     {NODE, 5, ATTRIBUTE},      {ATTRIBUTE, 5, TENSOR},
    {ATTRIBUTE, 6, GRAPH},   {ATTRIBUTE, 10, TENSOR}, {ATTRIBUTE, 11, GRAPH},    {ATTRIBUTE, 22, SPARSE},
    {ATTRIBUTE, 23, SPARSE}, {SPARSE, 1, TENSOR},     {SPARSE, 2, TENSOR},
};

/* Reads the tensors in a message, wherever they stand. False where it is malformed, or refused. */
static bool walk(reading *in, span message, kind outer, int left)
{
    if (left < 0)
        return false;
    if (outer == TENSOR)
        return read_tensor(in, message);
    for (field part; message.at < message.end;) {
        if (!rx_next_field(&message, &part))
            return false;
        for (size_t i = 0; part.is_bytes && i < sizeof INSIDE / sizeof *INSIDE; i++)
            if (INSIDE[i].outer == outer && INSIDE[i].number == part.number &&
                !walk(in, part.bytes, INSIDE[i].inner, left - 1))
                return false;
    }
    return true;
}

/* -- Their files */

/* Finds the size of the plain file that a location names, with all links followed: none may lead out of
 * `home`.
 */
static bool place(reading *in, const char *home, const char *location, uint64_t *size)
{
    line out = {.used = 0};
    rx_kind found = RX_OTHER;
    size_t length = strlen(home);
    rx_add(&out, "'%.80s'", location);
    if (leads_out(location))
        return refuse(in, "external data in a file of the model's folder", out.text);
    char *joined = rx_arena_take(in->memory, length + strlen(location) + 2);
    if (!joined)
        return no_memory(in);
    sprintf(joined, "%s/%s", home, location);
    char *real = rx_path_real(joined);
    if (!real || !rx_path_look(real, &found, size)) {
        bool absent = errno == ENOENT || errno == ENOTDIR;
        free(real);
        return missing(in, location, absent ? "no such file" : "one that cannot be read");
    }
    length -= home[length - 1] == '/'; /* the root */
    bool inside = strncmp(real, home, length) == 0 && (real[length] == '/' || !real[length]);
    free(real);
    out = (line){.used = 0};
    rx_add(&out, "a link out of it: '%.80s'", location);
    if (!inside)
        return refuse(in, "external data in a file of the model's folder", out.text);
    out = (line){.used = 0};
    rx_add(&out, "a plain file at '%.80s'", location);
    return found == RX_FILE || refuse(in, out.text, "a folder, pipe or device");
}

static bool fits(reading *in, const external *tensor, uint64_t size)
{
    line expected = {.used = 0}, found = {.used = 0};
    if (tensor->bytes <= size && tensor->offset <= size - tensor->bytes)
        return true;
    rx_add(&expected, "%llu bytes from %llu on in '%.80s'", (unsigned long long)tensor->bytes,
           (unsigned long long)tensor->offset, tensor->location);
    rx_add(&found, "a file of %llu", (unsigned long long)size);
    return refuse(in, expected.text, found.text);
}

static int by_location(const void *left, const void *right)
{
    return strcmp(((const external *)left)->location, ((const external *)right)->location);
}

static bool check_files(reading *in, const char *home)
{
    uint64_t held = 0, wanted = 0, size = 0;
    qsort(in->found, in->count, sizeof *in->found, by_location); /* each file is looked at once */
    for (size_t i = 0; i < in->count; i++) {
        const external *tensor = &in->found[i];
        bool is_first = !i || strcmp(tensor->location, tensor[-1].location) != 0;
        if (is_first && !place(in, home, tensor->location, &size))
            return false;
        if (!fits(in, tensor, size))
            return false;
        held += is_first ? size : 0;
        wanted = plus(wanted, tensor->bytes);
    }
    if (wanted <= times(SHARED, held))
        return true;
    line expected = {.used = 0}, found = {.used = 0};
    rx_add(&expected, "at most %d times the %llu bytes of the files that hold it", SHARED,
           (unsigned long long)held);
    rx_add(&found, "%llu", (unsigned long long)wanted);
    return refuse(in, expected.text, found.text);
}

/* Holds the tensors that were found against the files in the folder of the model. */
static bool check_external(reading *in, const char *path)
{
    if (!in->count)
        return true;
    if (!path)
        return missing(in, in->found->location, "bytes without a folder");
    size_t length = rx_path_folder(path);
    char *folder = rx_arena_copy(in->memory, length ? path : ".", length ? length : 1);
    if (!folder)
        return no_memory(in);
    char *home = rx_path_real(folder);
    bool good = home ? check_files(in, home) : missing(in, in->found->location, "no such file");
    free(home);
    return good;
}

rx_external rx_external_check(arena *memory, span model, const char *path, rnnx_error *error)
{
    reading in = {.memory = memory, .error = error};
    bool good = walk(&in, model, MODEL, DEEPEST) && check_external(&in, path);
    size_t count = in.count;
    free(in.found);
    if (good)
        return count ? RX_EXTERNAL : RX_INSIDE;
    return in.refused ? RX_REFUSED : RX_MALFORMED;
}
