/* Activations of double arrays: the C library's functions are precise, and no network in double is in a hurry. */
#ifndef RNNX_ACTIVATIONS_F64_H
#define RNNX_ACTIVATIONS_F64_H
#include "unused.h"

static RNNX_UNUSED double rnnx_exp1_f64(double x) { return exp(x); }
static RNNX_UNUSED double rnnx_sigmoid1_f64(double x) { return 1.0 / (1.0 + exp(-x)); }
static RNNX_UNUSED double rnnx_tanh1_f64(double x) { return tanh(x); }

static RNNX_UNUSED void rnnx_exp_f64(double *y, const double *x, int n) {
  int i;
  for (i = 0; i < n; i++) y[i] = exp(x[i]);
}

static RNNX_UNUSED void rnnx_sigmoid_f64(double *y, const double *x, int n) {
  int i;
  for (i = 0; i < n; i++) y[i] = rnnx_sigmoid1_f64(x[i]);
}

static RNNX_UNUSED void rnnx_tanh_f64(double *y, const double *x, int n) {
  int i;
  for (i = 0; i < n; i++) y[i] = tanh(x[i]);
}

#endif
