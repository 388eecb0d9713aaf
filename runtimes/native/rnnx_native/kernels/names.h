/* How kernels are called: rnnx_lstm_i8_avx2 is the LSTM with weights of KIND _i8 for the instruction set ISA _avx2. The
 * files of kernels are included once for each of both; portable code has an empty ISA. */
#ifndef RNNX_NAMES_H
#define RNNX_NAMES_H

#define RNNX_PASTE(name, kind, isa) rnnx_##name##kind##isa
#define RNNX_NAME(name, kind, isa) RNNX_PASTE(name, kind, isa)
#define NAME(name) RNNX_NAME(name, KIND, ISA)
/* The same for what there is once for the numbers that are computed in, REAL: NUMBERS is _f32 or _f64. */
#define REAL_NAME(name) RNNX_NAME(name, NUMBERS, ISA)

#endif
