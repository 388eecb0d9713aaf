#define _POSIX_C_SOURCE 200809L
#include "by_hand.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST = 64 };

struct by_hand {
    ort_engine engine;
    ort_buffer input, outputs[MOST], states[2][MOST];
    size_t output_count, state_count;
    OrtIoBinding *bindings[2];
    int side;
};

static void check(by_hand *own, OrtStatus *status)
{
    rnnx_error error;
    if (!rx_engine_ok(&own->engine, status, &error)) {
        fprintf(stderr, "%s\n", error.text);
        exit(2);
    }
}

/* A buffer for one step of batch 1. */
static void make(by_hand *own, const rnnx_spec *spec, ort_buffer *made)
{
    int64_t shape[RNNX_MAX_RANK];
    rnnx_error error;
    for (int axis = 0; axis < spec->rank; axis++)
        shape[axis] = spec->shape[axis].factor;
    if (!rx_buffer_make(&own->engine, spec->dtype, spec->rank, shape, made, &error))
        exit(2);
}

by_hand *by_hand_open(const char *path, const rnnx_contract *contract)
{
    by_hand *own = calloc(1, sizeof *own);
    const rnnx_options options = {.provider = "cpu"};
    rnnx_error error;
    if (!own || contract->output_count > MOST || contract->state_count > MOST ||
        !rx_engine_open(&own->engine, path, NULL, 0, &options, &error))
        exit(2);
    const OrtApi *api = own->engine.api;
    own->output_count = contract->output_count;
    own->state_count = contract->state_count;
    make(own, &contract->inputs[0], &own->input);
    for (size_t i = 0; i < contract->output_count; i++)
        make(own, &contract->outputs[i], &own->outputs[i]);
    for (int side = 0; side < 2; side++)
        for (size_t i = 0; i < contract->state_count; i++)
            make(own, &contract->states[i], &own->states[side][i]);
    for (int side = 0; side < 2; side++) {
        check(own, api->CreateIoBinding(own->engine.session, &own->bindings[side]));
        OrtIoBinding *binding = own->bindings[side];
        check(own, api->BindInput(binding, contract->inputs[0].name, own->input.value));
        for (size_t i = 0; i < contract->output_count; i++)
            check(own, api->BindOutput(binding, contract->outputs[i].name, own->outputs[i].value));
        for (size_t i = 0; i < contract->state_count; i++) {
            check(own, api->BindInput(binding, contract->states[i].takes, own->states[side][i].value));
            check(own, api->BindOutput(binding, contract->states[i].gives, own->states[1 - side][i].value));
        }
    }
    return own;
}

void by_hand_step(by_hand *own, const float *frame)
{
    memcpy(own->input.data, frame, own->input.bytes);
    check(own, own->engine.api->RunWithBinding(own->engine.session, NULL, own->bindings[own->side]));
    own->side = 1 - own->side;
}

void by_hand_close(by_hand *own)
{
    for (int side = 0; side < 2; side++) {
        own->engine.api->ReleaseIoBinding(own->bindings[side]);
        for (size_t i = 0; i < own->state_count; i++)
            rx_buffer_free(&own->engine, &own->states[side][i]);
    }
    for (size_t i = 0; i < own->output_count; i++)
        rx_buffer_free(&own->engine, &own->outputs[i]);
    rx_buffer_free(&own->engine, &own->input);
    rx_engine_close(&own->engine);
    free(own);
}

size_t by_hand_entries(const by_hand *own)
{
    return own->input.bytes / sizeof(float);
}

double by_hand_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}
