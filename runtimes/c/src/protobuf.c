#include "protobuf.h"
#include "json.h"

#include <string.h>

bool rx_next_varint(span *in, uint64_t *number)
{
    *number = 0;
    for (int shift = 0; in->at < in->end && shift < 64; shift += 7) {
        unsigned char byte = *in->at++;
        *number |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80)
            return true;
    }
    return false;
}

bool rx_next_field(span *in, field *found)
{
    uint64_t tag, size = 0;
    if (!rx_next_varint(in, &tag) || !(tag >> 3))
        return false;
    *found = (field){.number = tag >> 3, .is_bytes = (tag & 7) == 2};
    switch (tag & 7) {
    case 0:
        return rx_next_varint(in, &found->value);
    case 1:
        size = 8;
        break;
    case 2:
        if (!rx_next_varint(in, &size))
            return false;
        break;
    case 5:
        size = 4;
        break;
    default:
        return false;
    }
    if (size > (uint64_t)(in->end - in->at))
        return false;
    found->bytes = (span){in->at, in->at + size};
    in->at += size;
    return true;
}

static bool is_utf8(span text)
{
    const char *at = (const char *)text.at, *end = (const char *)text.end;
    while (at < end)
        if (rx_utf8_next(&at, end) == UINT32_MAX)
            return false;
    return true;
}

bool rx_text_entry(span message, span *key, span *value)
{
    field part;
    *key = *value = (span){message.end, message.end};
    while (message.at < message.end) {
        if (!rx_next_field(&message, &part))
            return false;
        if (part.is_bytes && part.number == 1)
            *key = part.bytes;
        if (part.is_bytes && part.number == 2)
            *value = part.bytes;
    }
    return is_utf8(*key) && is_utf8(*value);
}

bool rx_is_text(span text, const char *expected)
{
    size_t length = strlen(expected);
    return (size_t)(text.end - text.at) == length && memcmp(text.at, expected, length) == 0;
}
