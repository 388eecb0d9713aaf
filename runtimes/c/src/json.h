/* JSON (RFC 8259) into a tree, in memory of its own that goes all at once. Contracts, and the headers of
 * safetensors, are JSON; C has no reader of it, and one small file is less to carry than a library. */
#ifndef RNNX_JSON_H
#define RNNX_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Memory that grows by blocks and is freed as a whole. Set all of it to zero to begin. */
typedef struct arena {
    struct arena_block *blocks;
} arena;

void *rx_arena_take(arena *memory, size_t size);                   /* zeroed; NULL if there is no memory */
char *rx_arena_copy(arena *memory, const char *text, size_t size); /* as a string, a zero put behind it */
void rx_arena_free(arena *memory);

typedef enum json_type { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT } json_type;

/* One value. Children of arrays and objects are a list from `first` over `next`. */
typedef struct json {
    json_type type;
    bool is_integer;  /* a number without fraction or exponent that fits `integer` */
    int64_t integer;  /* its value; 1 for true, 0 for false */
    double number;    /* the same as float64 */
    const char *text; /* a string in UTF-8, a zero behind it */
    size_t length;    /* of `text` in bytes (a string may hold zeros), or the number of children */
    const char *key;  /* of a member of an object */
    struct json *first;
    struct json *next;
} json;

/* Returns the value in `text`, or NULL; *why then says what is wrong. Strings are valid UTF-8. */
const json *rx_json_parse(arena *memory, const char *text, size_t size, const char **why);

/* Returns the member of an object; the last one, if there are several of that name; NULL if there is none. */
const json *rx_json_get(const json *object, const char *key);

/* Returns the code point at *text and moves behind it, or UINT32_MAX if that is no UTF-8. */
uint32_t rx_utf8_next(const char **text, const char *end);

/* Writes a code point as UTF-8; returns the number of bytes, 1 to 4. */
size_t rx_utf8_write(uint32_t point, char *to);

#endif
