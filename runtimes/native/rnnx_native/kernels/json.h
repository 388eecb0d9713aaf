/* Reading the header of a safetensors file: JSON, walked in place. */
#ifndef RNNX_JSON_H
#define RNNX_JSON_H
#include "unused.h"

typedef struct {
  const char *text;
  size_t size;
} rnnx_slice;

static RNNX_UNUSED int rnnx_is(rnnx_slice found, const char *text) {
  return found.size == strlen(text) && memcmp(found.text, text, found.size) == 0;
}

/* Return the place behind the string that begins at `at` with a quote; `size` if it does not end. */
static RNNX_UNUSED size_t rnnx_string_end(rnnx_slice json, size_t at) {
  for (at++; at < json.size && json.text[at] != '"'; at++) {
    if (json.text[at] == '\\') at++;
  }
  return at < json.size ? at + 1 : json.size;
}

/* Return the place behind the value that begins at `at`. */
static RNNX_UNUSED size_t rnnx_value_end(rnnx_slice json, size_t at) {
  int depth = 0;
  while (at < json.size) {
    const char c = json.text[at];
    if (c == '"') {
      at = rnnx_string_end(json, at);
    } else if (depth == 0 && (c == ',' || c == '}' || c == ']')) {
      break;
    } else {
      depth += c == '{' || c == '[' ? 1 : c == '}' || c == ']' ? -1 : 0;
      at++;
    }
    if (depth == 0 && (c == '"' || c == '}' || c == ']')) break;
  }
  return at;
}

static RNNX_UNUSED size_t rnnx_skip(rnnx_slice json, size_t at, const char *letters) {
  while (at < json.size && json.text[at] != '\0' && strchr(letters, json.text[at])) at++;
  return at;
}

/* Return the member `key` (as JSON spells it, without quotes) of an object; size 0 if there is none. */
static RNNX_UNUSED rnnx_slice rnnx_member(rnnx_slice object, const char *key) {
  rnnx_slice found = {NULL, 0}, name;
  size_t at = rnnx_skip(object, 0, " \t\r\n"), begin;
  if (at >= object.size || object.text[at] != '{') return found;
  for (at++; at < object.size;) {
    at = rnnx_skip(object, at, " \t\r\n,");
    if (at >= object.size || object.text[at] != '"') return found;
    begin = at;
    at = rnnx_string_end(object, at);
    name.text = object.text + begin + 1;
    name.size = at - begin >= 2 ? at - begin - 2 : 0;
    begin = rnnx_skip(object, at, " \t\r\n:");
    at = rnnx_value_end(object, begin);
    if (rnnx_is(name, key)) {
      found.text = object.text + begin;
      found.size = at - begin;
      return found;
    }
  }
  return found;
}

/* Read a number in decimal, from at[0..]; return 0 if there is none or it is too large. */
static RNNX_UNUSED int rnnx_decimal(rnnx_slice text, size_t *at, uint64_t *value) {
  const size_t begin = *at;
  *value = 0;
  for (; *at < text.size && text.text[*at] >= '0' && text.text[*at] <= '9'; ++*at) {
    if (*value > (UINT64_MAX - 9) / 10) return 0;
    *value = *value * 10 + (uint64_t)(text.text[*at] - '0');
  }
  return *at > begin;
}

/* Return a tensor's bytes if it is there with this dtype and shape (as the header spells it) and lies whole
 * within the file; else NULL. */
static RNNX_UNUSED const unsigned char *rnnx_tensor(rnnx_slice header, const unsigned char *data, size_t size,
                                        const char *name, const char *dtype, const char *shape, size_t bytes) {
  const rnnx_slice entry = rnnx_member(header, name);
  const rnnx_slice place = rnnx_member(entry, "data_offsets");
  uint64_t begin, end;
  size_t at = 1;
  if (!rnnx_is(rnnx_member(entry, "dtype"), dtype) || !rnnx_is(rnnx_member(entry, "shape"), shape)) return NULL;
  if (place.size < 2 || !rnnx_decimal(place, &at, &begin)) return NULL;
  at = rnnx_skip(place, at, ", ");
  if (!rnnx_decimal(place, &at, &end)) return NULL;
  return begin <= end && end <= size && end - begin == bytes ? data + begin : NULL;
}

/* Find the header of a safetensors file; return 0 if there is none. */
static RNNX_UNUSED int rnnx_header(const unsigned char *bytes, size_t size, rnnx_slice *header, size_t *data) {
  uint64_t length = 0;
  int i;
  if (size < 8) return 0;
  for (i = 7; i >= 0; i--) length = length << 8 | bytes[i];
  if (length > size - 8) return 0;
  header->text = (const char *)bytes + 8;
  header->size = (size_t)length;
  *data = 8 + (size_t)length;
  return 1;
}

/* Copy elements between this machine's order of bytes and that of files, which is little-endian. */
static RNNX_UNUSED void rnnx_copy(void *to, const void *from, size_t size, size_t width) {
  const uint16_t probe = 1;
  size_t i, j;
  if (*(const unsigned char *)&probe == 1) {
    memcpy(to, from, size);
    return;
  }
  for (i = 0; i + width <= size; i += width) {
    for (j = 0; j < width; j++) ((unsigned char *)to)[i + j] = ((const unsigned char *)from)[i + width - 1 - j];
  }
}

#endif
