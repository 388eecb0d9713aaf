/* Numbers of all dtypes, and how tensors are put into words. */
#include "internal.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    size_t size;
} DTYPES[] = {
    [RNNX_FLOAT16] = {"float16", 2}, [RNNX_FLOAT32] = {"float32", 4}, [RNNX_FLOAT64] = {"float64", 8},
    [RNNX_INT8] = {"int8", 1},       [RNNX_INT16] = {"int16", 2},     [RNNX_INT32] = {"int32", 4},
    [RNNX_INT64] = {"int64", 8},     [RNNX_UINT8] = {"uint8", 1},     [RNNX_UINT16] = {"uint16", 2},
    [RNNX_UINT32] = {"uint32", 4},   [RNNX_UINT64] = {"uint64", 8},   [RNNX_BOOL] = {"bool", 1},
};

size_t rx_dtype_size(rnnx_dtype dtype)
{
    return DTYPES[dtype].size;
}

const char *rx_dtype_name(rnnx_dtype dtype)
{
    return DTYPES[dtype].name;
}

bool rx_dtype_named(const char *name, rnnx_dtype *dtype)
{
    for (int i = 0; i <= RNNX_BOOL; i++) {
        if (strcmp(name, DTYPES[i].name) == 0) {
            *dtype = (rnnx_dtype)i;
            return true;
        }
    }
    return false;
}

bool rx_dtype_is_float(rnnx_dtype dtype)
{
    return dtype <= RNNX_FLOAT64;
}

bool rx_dtype_holds(rnnx_dtype dtype, double number)
{
    if (rx_dtype_is_float(dtype))
        return true;
    if (dtype == RNNX_BOOL)
        return number == 0 || number == 1;
    bool has_sign = dtype <= RNNX_INT64;
    double end = ldexp(1, (int)rx_dtype_size(dtype) * 8 - has_sign), whole = nearbyint(number);
    return whole >= (has_sign ? -end : 0) && whole < end;
}

static double from_half(uint16_t half)
{
    int exponent = half >> 10 & 31, fraction = half & 1023;
    double size = exponent == 31 ? (fraction ? NAN : INFINITY)
                  : exponent     ? ldexp(1024 + fraction, exponent - 25)
                                 : ldexp(fraction, -24);
    return half >> 15 ? -size : size;
}

/* Rounds to nearest, ties to even, straight from float64: going through float32 would round twice. */
static uint16_t to_half(double number)
{
    uint16_t sign = signbit(number) ? 0x8000 : 0;
    double size = fabs(number);
    int exponent;
    if (isnan(number))
        return 0x7E00;
    if (size == 0)
        return sign;
    if (size >= 65520)
        return sign | 0x7C00;
    frexp(size, &exponent); /* size = fraction * 2^exponent with a fraction from 0.5 on */
    if (exponent < -13)
        exponent = -13;                                     /* below 2^-14 the steps stay 2^-24 */
    int steps = (int)nearbyint(ldexp(size, 11 - exponent)); /* 1024..2048, or less where they stay */
    return (uint16_t)(sign | (((exponent + 13) << 10) + steps));
}

double rx_value_at(rnnx_dtype dtype, const void *data, size_t index)
{
    switch (dtype) {
    case RNNX_FLOAT16:
        return from_half(((const uint16_t *)data)[index]);
    case RNNX_FLOAT32:
        return (double)((const float *)data)[index];
    case RNNX_FLOAT64:
        return ((const double *)data)[index];
    case RNNX_UINT64:
        return (double)((const uint64_t *)data)[index];
    default:
        return (double)rx_integer_at(dtype, data, index);
    }
}

int64_t rx_integer_at(rnnx_dtype dtype, const void *data, size_t index)
{
    switch (dtype) {
    case RNNX_INT8:
        return ((const int8_t *)data)[index];
    case RNNX_INT16:
        return ((const int16_t *)data)[index];
    case RNNX_INT32:
        return ((const int32_t *)data)[index];
    case RNNX_INT64:
    case RNNX_UINT64:
        return ((const int64_t *)data)[index];
    case RNNX_UINT16:
        return ((const uint16_t *)data)[index];
    case RNNX_UINT32:
        return ((const uint32_t *)data)[index];
    default:
        return ((const uint8_t *)data)[index];
    }
}

static void put(rnnx_dtype dtype, void *data, size_t index, double number)
{
    double whole = nearbyint(number);
    switch (dtype) {
    case RNNX_FLOAT16:
        ((uint16_t *)data)[index] = to_half(number);
        break;
    case RNNX_FLOAT32:
        ((float *)data)[index] = (float)number;
        break;
    case RNNX_FLOAT64:
        ((double *)data)[index] = number;
        break;
    case RNNX_INT8:
    case RNNX_UINT8:
        ((uint8_t *)data)[index] = (uint8_t)(int64_t)whole;
        break;
    case RNNX_INT16:
    case RNNX_UINT16:
        ((uint16_t *)data)[index] = (uint16_t)(int64_t)whole;
        break;
    case RNNX_INT32:
    case RNNX_UINT32:
        ((uint32_t *)data)[index] = (uint32_t)(int64_t)whole;
        break;
    case RNNX_INT64:
        ((int64_t *)data)[index] = (int64_t)whole;
        break;
    case RNNX_UINT64:
        ((uint64_t *)data)[index] = (uint64_t)whole;
        break;
    case RNNX_BOOL:
        ((uint8_t *)data)[index] = number != 0;
        break;
    }
}

/* Looks at the bits, so that it works under -ffast-math too: all ones in the exponent is NaN or infinity. */
bool rx_values_are_finite(rnnx_dtype dtype, const void *data, size_t count)
{
    const char *at = data;
    bool odd = false;
    if (dtype == RNNX_FLOAT16) {
        for (size_t i = 0; i < count; i++)
            odd |= (((const uint16_t *)data)[i] & 0x7C00) == 0x7C00;
    } else if (dtype == RNNX_FLOAT32) {
        for (size_t i = 0; i < count; i++) {
            uint32_t bits;
            memcpy(&bits, at + i * sizeof bits, sizeof bits);
            odd |= (bits & 0x7F800000) == 0x7F800000;
        }
    } else if (dtype == RNNX_FLOAT64) {
        for (size_t i = 0; i < count; i++) {
            uint64_t bits;
            memcpy(&bits, at + i * sizeof bits, sizeof bits);
            odd |= (bits & 0x7FF0000000000000) == 0x7FF0000000000000;
        }
    }
    return !odd;
}

static double number_of(const json *value)
{
    if (value->type != JSON_STRING)
        return value->number;
    return value->text[0] == 'n' ? NAN : value->text[0] == '-' ? -INFINITY : INFINITY;
}

static void fill(const json *value, int missing, rnnx_dtype dtype, int rank, const int64_t *shape, void *data,
                 size_t *index)
{
    if (!rank) {
        put(dtype, data, (*index)++, number_of(value));
        return;
    }
    const json *child = missing ? value : value->first;
    for (int64_t i = 0; i < *shape; i++) {
        fill(child, missing ? missing - 1 : 0, dtype, rank - 1, shape + 1, data, index);
        if (!missing && child->next)
            child = child->next; /* a list of one is repeated */
    }
}

void rx_fill_number(double number, rnnx_dtype dtype, void *data, size_t count)
{
    for (size_t i = 0; i < count; i++)
        put(dtype, data, i, number);
}

void rx_fill_values(const json *value, rnnx_dtype dtype, int rank, const int64_t *shape, void *data)
{
    int depth = 0;
    size_t index = 0;
    for (const json *inner = value; inner->type == JSON_ARRAY; inner = inner->first)
        depth++;
    fill(value, rank - depth, dtype, rank, shape, data, &index);
}

size_t rx_count_of(int rank, const int64_t *shape)
{
    size_t count = 1;
    for (int axis = 0; axis < rank; axis++)
        count *= (size_t)shape[axis];
    return count;
}

void rx_add(line *to, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    int length = vsnprintf(to->text + to->used, sizeof to->text - to->used, format, values);
    va_end(values);
    to->used += length > 0 ? (size_t)length : 0;
    if (to->used >= sizeof to->text)
        to->used = sizeof to->text - 1;
}

void rx_add_shape(line *to, int rank, const int64_t *shape)
{
    rx_add(to, "[");
    for (int axis = 0; axis < rank; axis++)
        rx_add(to, "%s%lld", axis ? ", " : "", (long long)shape[axis]);
    rx_add(to, "]");
}

void rx_add_dims(line *to, const rnnx_spec *spec, int rank, const rnnx_dim *shape, const int64_t *sizes)
{
    rx_add(to, "%s[", rx_dtype_name(spec->dtype));
    for (int axis = 0; axis < rank; axis++) {
        if (shape[axis].index < 0)
            rx_add(to, "%s%lld", axis ? ", " : "", (long long)shape[axis].factor);
        else
            rx_add(to, "%s%s", axis ? ", " : "", shape[axis].text);
        if (shape[axis].index >= 0 && sizes && sizes[shape[axis].index])
            rx_add(to, "=%lld", (long long)(shape[axis].factor * sizes[shape[axis].index]));
    }
    rx_add(to, "]");
}

void rx_add_name(line *to, const char *name)
{
    rx_add(to, "%s%s", to->used ? ", " : "", name);
}

bool rx_fail(rnnx_error *error, const char *code, const char *format, ...)
{
    va_list values;
    if (!error)
        return false;
    snprintf(error->code, sizeof error->code, "%s", code);
    va_start(values, format);
    vsnprintf(error->text, sizeof error->text, format, values);
    va_end(values);
    return false;
}

bool rx_fail_memory(rnnx_error *error)
{
    return rx_fail(error, "out-of-memory", "expected memory to be left; found none; fix: close something");
}
