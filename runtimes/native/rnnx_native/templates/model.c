/* @title@: the network itself. Written by `rnnx compile`; docs/native.md says how to use it. */
@precise@
#include "model.h"

#include <math.h>
#include <string.h>

#include "kernels/json.h"

/* A compiler that lays out structures in another way than model.h says stops here. */
typedef char model_state_has_the_size_said[sizeof(model_state) <= MODEL_STATE_BYTES ? 1 : -1];

/* ---- Kernels: what layers are made of. ---- */

@kernels@
@table@
/* ---- The network, for each number of rows and steps that it was compiled for. ---- */

@programs@
/* ---- States. ---- */

void model_init(model_state *s, const model_weights *weights) {
  s->weights = weights;
@kernels_choice@
  model_reset(s);
}

void model_reset(model_state *s) {
@reset@
  s->buffer_index = 0;
  s->position = 0;
}

@defaults@@steps@
/* ---- Weights files. ---- */

static const unsigned char model_architecture[32] = {
@architecture@
};

int model_weights_load(model_weights *weights, const void *bytes, size_t size) {
  /* 0: "RNNXWTS1"; 8: 0x01020304, as this machine writes it; 16: bytes of the parameters; 24: checksum;
   * 32: architecture; 64: model id, padded with zeros; 192: the parameters. */
  const unsigned char *const at = (const unsigned char *)bytes;
  uint64_t stored, sum = UINT64_C(0xcbf29ce484222325);
  uint32_t order;
  size_t i;
  if (size < 192) return MODEL_TOO_SHORT;
  memcpy(&order, at + 8, sizeof order);
  if (memcmp(at, "RNNXWTS1", 8) != 0 || order != UINT32_C(0x01020304) || at[191] != 0) return MODEL_WRONG_FORMAT;
  if (memcmp(at + 32, model_architecture, 32) != 0) return MODEL_WRONG_MODEL;
  memcpy(&stored, at + 16, sizeof stored);
  if (stored != sizeof(model_parameters)) return MODEL_WRONG_MODEL;
  if (size - 192 < sizeof(model_parameters)) return MODEL_TOO_SHORT;
  if ((uintptr_t)bytes % 8 != 0) return MODEL_NOT_ALIGNED;
  for (i = 192; i < 192 + sizeof(model_parameters); i += 8) { /* FNV-1a, eight bytes at a time */
    uint64_t word;
    memcpy(&word, at + i, sizeof word);
    sum = (sum ^ word) * UINT64_C(0x100000001b3);
  }
  memcpy(&stored, at + 24, sizeof stored);
  if (stored != sum) return MODEL_DAMAGED;
  weights->parameters = (const model_parameters *)(const void *)(at + 192);
  weights->id = (const char *)at + 64;
  return MODEL_OK;
}

const char *model_error(int error) {
  static const char *const texts[] = {
      "no error",
      "fewer bytes than there must be",
      "not a file of this kind, or one of a newer version",
      "weights of another architecture, or a snapshot of another model, batch or size",
      "the bytes are not those that were written",
      "weights must begin at a multiple of 8 bytes"};
  return error >= 0 && error <= MODEL_NOT_ALIGNED ? texts[error] : "no such error";
}

/* ---- Snapshots. ---- */

static const char model_header_begin[] =
@header_begin@
static const char model_header_end[] =
@header_end@

size_t model_save(const model_state *s, void *bytes, size_t size) {
  unsigned char *const at = (unsigned char *)bytes;
  const size_t before = sizeof model_header_begin - 1, after = sizeof model_header_end - 1, id = strlen(s->weights->id);
  const char middle[] = "\",\"position\":\"";
  char digits[20];
  size_t count = 0, length, place, i;
  uint64_t rest = s->position;
  do {
    digits[count++] = (char)('0' + rest % 10);
    rest /= 10;
  } while (rest > 0);
  length = before + id + (sizeof middle - 1) + count + after;
  length += (8 - length % 8) % 8;
  if (bytes == NULL || size < 8 + length + @state_bytes@u) return 0;
  memset(at, ' ', 8 + length);
  for (i = 0; i < 8; i++) at[i] = (unsigned char)((uint64_t)length >> 8 * i);
  place = 8;
  memcpy(at + place, model_header_begin, before);
  place += before;
  memcpy(at + place, s->weights->id, id);
  place += id;
  memcpy(at + place, middle, sizeof middle - 1);
  place += sizeof middle - 1;
  while (count > 0) at[place++] = (unsigned char)digits[--count];
  memcpy(at + place, model_header_end, after);
  place = 8 + length;
@save@
  return place;
}

int model_load(model_state *s, const void *bytes, size_t size) {
  const unsigned char *const at = (const unsigned char *)bytes;
  rnnx_slice header, metadata, position, id;
  size_t data, digit = 1;
  uint64_t steps;
@load_declarations@
  if (!rnnx_header(at, size, &header, &data)) return MODEL_TOO_SHORT;
  metadata = rnnx_member(header, "__metadata__");
  if (!rnnx_is(rnnx_member(metadata, "format"), "\"rnnx-snapshot\"")) return MODEL_WRONG_FORMAT;
  if (!rnnx_is(rnnx_member(metadata, "version"), "\"1\"")) return MODEL_WRONG_FORMAT;
  id = rnnx_member(metadata, "model");
  if (id.size != strlen(s->weights->id) + 2 || memcmp(id.text + 1, s->weights->id, id.size - 2) != 0) {
    return MODEL_WRONG_MODEL;
  }
  position = rnnx_member(metadata, "position");
  if (position.size < 3 || !rnnx_decimal(position, &digit, &steps) || digit != position.size - 1) {
    return MODEL_WRONG_FORMAT;
  }
@load@
  s->buffer_index = 1 - s->buffer_index;
  s->position = steps;
  return MODEL_OK;
}
