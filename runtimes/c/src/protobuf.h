/* protobuf, read without a library of it: just enough to look into a model, no byte beyond its end. */
#ifndef RNNX_PROTOBUF_H
#define RNNX_PROTOBUF_H

#include <stdbool.h>
#include <stdint.h>

typedef struct span {
    const unsigned char *at, *end;
} span;

/* A field of a message: a number, or bytes. */
typedef struct field {
    uint64_t number, value;
    span bytes;
    bool is_bytes;
} field;

/* Takes the next field of a message that is not at its end; false where it is malformed. */
bool rx_next_field(span *in, field *found);
bool rx_next_varint(span *in, uint64_t *number);

/* Reads a message of two texts in UTF-8, key (1) and value (2); false where it is malformed. */
bool rx_text_entry(span message, span *key, span *value);
bool rx_is_text(span text, const char *expected);

#endif
