/* The bytes of a model, before ONNX Runtime sees them: whether they are one, and the contract in their
 * metadata. Field numbers are those of onnx.proto. */
#include "internal.h"
#include "protobuf.h"

#include <string.h>

/* Finds the contract in a whole model, with version (1), graph (7) and operator set (8). */
static bool read_whole(span model, span *contract)
{
    bool seen[9] = {false};
    span key, value;
    for (field part; model.at < model.end;) {
        if (!rx_next_field(&model, &part))
            return false;
        if (part.number == 1 && !part.is_bytes)
            seen[1] = part.value != 0;
        else if ((part.number == 7 || part.number == 8) && part.is_bytes)
            seen[part.number] = true;
        if (part.number != 14 || !part.is_bytes)
            continue;
        if (!rx_text_entry(part.bytes, &key, &value))
            return false;
        if (rx_is_text(key, "rnnx.contract"))
            *contract = value;
    }
    return seen[1] && seen[7] && seen[8];
}

bool rx_model_read(rx_model *made, arena *memory, const char *path, const void *data, size_t size,
                   rnnx_error *error)
{
    const unsigned char *bytes = data;
    const span model = {bytes, bytes + size};
    const char *label = path ? path : "the model";
    span contract = {NULL, NULL};
    rx_external found =
        read_whole(model, &contract) ? rx_external_check(memory, model, path, error) : RX_MALFORMED;
    if (found == RX_REFUSED)
        return false;
    if (found == RX_MALFORMED)
        return rx_fail(error, "not-onnx",
                       "expected an ONNX model in %s; found %zu bytes that are none, or are cut short; fix: "
                       "name a file that 'rnnx export' wrote, or export it again",
                       label, size);
    if (!contract.at)
        return rx_fail(error, "no-contract",
                       "expected an rnnx contract in %s; found an ONNX model without one; fix: export it "
                       "with 'rnnx export'",
                       label);
    made->is_external = found == RX_EXTERNAL;
    made->size = (size_t)(contract.end - contract.at);
    made->contract = rx_arena_copy(memory, (const char *)contract.at, made->size);
    return made->contract || rx_fail_memory(error);
}
