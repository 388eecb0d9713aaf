/* Comes after all kernels, and takes back what they define: a model may have such names. */
#include "registers.h"
#include "kind.h"
#undef NAME
#undef REAL_NAME
#undef ISA
#undef HAS
#undef VNNI
#undef TARGET
#undef ALONE
#undef INTO
#undef DENSE_PARAMETERS
#undef PROJECT_PARAMETERS
#undef LSTM_PARAMETERS
#undef GRU_PARAMETERS
#undef RNN_PARAMETERS
