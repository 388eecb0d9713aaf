#include "json.h"
#include "platform.h"

#include <stdlib.h>
#include <string.h>

enum { DEEPEST = 512, BLOCK = 4096 }; /* nested arrays and objects; bytes */

struct arena_block {
    struct arena_block *next;
    size_t used, size;
    max_align_t data[];
};

void *rx_arena_take(arena *memory, size_t size)
{
    const size_t align = sizeof(max_align_t);
    struct arena_block *block = memory->blocks;
    if (size > SIZE_MAX / 2)
        return NULL;
    size = (size + align - 1) / align * align;
    if (!block || block->size - block->used < size) {
        size_t room = size > BLOCK ? size : BLOCK;
        block = calloc(1, sizeof *block + room);
        if (!block)
            return NULL;
        *block = (struct arena_block){.next = memory->blocks, .size = room};
        memory->blocks = block;
    }
    void *taken = (char *)block->data + block->used;
    block->used += size;
    return taken;
}

char *rx_arena_copy(arena *memory, const char *text, size_t size)
{
    char *copy = rx_arena_take(memory, size + 1);
    if (copy && size)
        memcpy(copy, text, size);
    return copy;
}

void rx_arena_free(arena *memory)
{
    while (memory->blocks) {
        struct arena_block *next = memory->blocks->next;
        free(memory->blocks);
        memory->blocks = next;
    }
}

uint32_t rx_utf8_next(const char **text, const char *end)
{
    static const uint32_t smallest[] = {0, 0x80, 0x800, 0x10000};
    unsigned char head = (unsigned char)*(*text)++;
    int more = head < 0x80 ? 0 : head < 0xC0 ? -1 : head < 0xE0 ? 1 : head < 0xF0 ? 2 : head < 0xF8 ? 3 : -1;
    if (more < 0 || end - *text < more)
        return UINT32_MAX;
    uint32_t point = more ? head & (0x3Fu >> more) : head;
    for (int i = 0; i < more; i++, (*text)++) {
        if (((unsigned char)**text & 0xC0) != 0x80)
            return UINT32_MAX;
        point = point << 6 | ((unsigned char)**text & 0x3F);
    }
    bool surrogate = point >= 0xD800 && point < 0xE000;
    return point < smallest[more] || point > 0x10FFFF || surrogate ? UINT32_MAX : point;
}

size_t rx_utf8_write(uint32_t point, char *to)
{
    if (point < 0x80)
        return to[0] = (char)point, 1;
    int more = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
    static const unsigned char heads[] = {0, 0xC0, 0xE0, 0xF0};
    to[0] = (char)(heads[more] | point >> (6 * more));
    for (int i = 1; i <= more; i++)
        to[i] = (char)(0x80 | (point >> (6 * (more - i)) & 0x3F));
    return (size_t)more + 1;
}

typedef struct reader {
    arena *memory;
    const char *at, *end;
    const char *why;
} reader;

static json *value(reader *in, int depth);

static void *wrong(reader *in, const char *why)
{
    if (!in->why)
        in->why = why;
    return NULL;
}

static void skip_space(reader *in)
{
    while (in->at < in->end && (*in->at == ' ' || *in->at == '\t' || *in->at == '\n' || *in->at == '\r'))
        in->at++;
}

static bool accept(reader *in, char expected)
{
    skip_space(in);
    if (in->at == in->end || *in->at != expected)
        return false;
    in->at++;
    return true;
}

static bool hex4(reader *in, uint32_t *unit)
{
    if (in->end - in->at < 4)
        return false;
    *unit = 0;
    for (int i = 0; i < 4; i++) {
        char digit = *in->at++;
        int worth = digit >= '0' && digit <= '9'   ? digit - '0'
                    : digit >= 'a' && digit <= 'f' ? digit - 'a' + 10
                    : digit >= 'A' && digit <= 'F' ? digit - 'A' + 10
                                                   : -1;
        if (worth < 0)
            return false;
        *unit = *unit << 4 | (uint32_t)worth;
    }
    return true;
}

/* Reads what follows "\u"; two surrogates are one code point. */
static bool unicode_escape(reader *in, uint32_t *point)
{
    uint32_t low;
    if (!hex4(in, point) || (*point >= 0xDC00 && *point < 0xE000))
        return false;
    if (*point < 0xD800 || *point >= 0xE000)
        return true;
    if (in->end - in->at < 2 || in->at[0] != '\\' || in->at[1] != 'u')
        return false;
    in->at += 2;
    if (!hex4(in, &low) || low < 0xDC00 || low >= 0xE000)
        return false;
    *point = 0x10000 + ((*point - 0xD800) << 10) + (low - 0xDC00);
    return true;
}

static bool escape(reader *in, uint32_t *point)
{
    static const char names[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    if (in->at == in->end)
        return false;
    char name = *in->at++;
    if (name == 'u')
        return unicode_escape(in, point);
    const char *found = name ? strchr(names, name) : NULL;
    *point = found ? (uint32_t)meant[found - names] : 0;
    return found != NULL;
}

/* Reads a string behind its opening quote. What it stands for is never longer than how it is written. */
static char *string(reader *in, size_t *length)
{
    const char *close = in->at;
    while (close < in->end && *close != '"')
        close += *close == '\\' && close + 1 < in->end ? 2 : 1;
    char *text = rx_arena_take(in->memory, (size_t)(close - in->at) + 1), *to = text;
    if (!text)
        return wrong(in, "no memory");
    while (in->at < in->end && *in->at != '"') {
        uint32_t point;
        if (*in->at == '\\') {
            in->at++;
            if (!escape(in, &point))
                return wrong(in, "a bad escape");
        } else if ((unsigned char)*in->at < 0x20) {
            return wrong(in, "a control character in a string");
        } else if ((point = rx_utf8_next(&in->at, in->end)) == UINT32_MAX) {
            return wrong(in, "a string that is not UTF-8");
        }
        to += rx_utf8_write(point, to);
    }
    if (in->at == in->end)
        return wrong(in, "a string without an end");
    in->at++;
    *length = (size_t)(to - text);
    return text;
}

static size_t digits(reader *in)
{
    const char *begin = in->at;
    while (in->at < in->end && *in->at >= '0' && *in->at <= '9')
        in->at++;
    return (size_t)(in->at - begin);
}

static json *number(reader *in, json *made)
{
    const char *begin = in->at;
    bool whole = true;
    in->at += *in->at == '-';
    bool zero = in->at < in->end && *in->at == '0';
    size_t count = digits(in);
    if (!count || (zero && count > 1))
        return wrong(in, "a bad number");
    if (in->at < in->end && *in->at == '.') {
        in->at++;
        whole = false;
        if (!digits(in))
            return wrong(in, "a bad number");
    }
    if (in->at < in->end && (*in->at == 'e' || *in->at == 'E')) {
        in->at++;
        in->at += in->at < in->end && (*in->at == '+' || *in->at == '-');
        whole = false;
        if (!digits(in))
            return wrong(in, "a bad number");
    }
    char *text = rx_arena_copy(in->memory, begin, (size_t)(in->at - begin));
    if (!text)
        return wrong(in, "no memory");
    made->type = JSON_NUMBER;
    made->is_integer = whole && count <= 18;
    made->integer = made->is_integer ? strtoll(text, NULL, 10) : 0;
    made->number = made->is_integer ? (double)made->integer : rx_to_double(text);
    return made;
}

static json *word(reader *in, json *made, const char *expected, json_type type, int64_t meant)
{
    size_t length = strlen(expected);
    if ((size_t)(in->end - in->at) < length || memcmp(in->at, expected, length) != 0)
        return wrong(in, "an unknown word");
    in->at += length;
    made->type = type;
    made->integer = meant;
    made->number = (double)meant;
    return made;
}

/* Reads an array, or an object, behind its opening bracket. */
static json *children(reader *in, json *made, char close, int depth)
{
    json **last = &made->first;
    made->type = close == ']' ? JSON_ARRAY : JSON_OBJECT;
    if (depth > DEEPEST)
        return wrong(in, "nested too deeply");
    if (accept(in, close))
        return made;
    do {
        const char *key = NULL;
        size_t length;
        if (close == '}') {
            if (!accept(in, '"') || !(key = string(in, &length)) || !accept(in, ':'))
                return wrong(in, "a member without a name");
            if (strlen(key) != length)
                return wrong(in, "a zero in a name");
        }
        if (!(*last = value(in, depth)))
            return NULL;
        (*last)->key = key;
        last = &(*last)->next;
        made->length++;
    } while (accept(in, ','));
    return accept(in, close) ? made : wrong(in, "no comma or closing bracket where one should be");
}

static json *value(reader *in, int depth)
{
    json *made = rx_arena_take(in->memory, sizeof *made);
    skip_space(in);
    if (!made)
        return wrong(in, "no memory");
    if (in->at == in->end)
        return wrong(in, "cut short");
    switch (*in->at) {
    case '{':
        in->at++;
        return children(in, made, '}', depth + 1);
    case '[':
        in->at++;
        return children(in, made, ']', depth + 1);
    case '"':
        in->at++;
        made->type = JSON_STRING;
        made->text = string(in, &made->length);
        return made->text ? made : NULL;
    case 't':
        return word(in, made, "true", JSON_BOOL, 1);
    case 'f':
        return word(in, made, "false", JSON_BOOL, 0);
    case 'n':
        return word(in, made, "null", JSON_NULL, 0);
    default:
        return number(in, made);
    }
}

const json *rx_json_parse(arena *memory, const char *text, size_t size, const char **why)
{
    reader in = {.memory = memory, .at = text, .end = text + size};
    json *found = value(&in, 0);
    skip_space(&in);
    if (found && in.at != in.end)
        found = wrong(&in, "something behind the end");
    *why = in.why;
    return found;
}

const json *rx_json_get(const json *object, const char *key)
{
    const json *found = NULL;
    for (const json *member = object->type == JSON_OBJECT ? object->first : NULL; member;
         member = member->next)
        if (strcmp(member->key, key) == 0)
            found = member;
    return found;
}
