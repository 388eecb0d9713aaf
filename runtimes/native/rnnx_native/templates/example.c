/* The smallest program that runs @title@:
 *
 *   cc -O3 model.c model_weights.c example.c -lm && ./a.out
 */
#include "model.h"

#include <stdio.h>
#include <string.h>

int main(void) {
  static model_state s; /* may lie anywhere; it is large for some networks, so not on the stack here */
  static model_input input;
  static model_output output;
  int step;

  memset(&input, 0, sizeof input);
@defaults_call@
  model_init(&s, &model_default_weights);
  for (step = 0; step < 5; step++) {
    /* Put one step's numbers into `input`: @input_list@. */
    model_step(&s, &input, &output);
    printf("step %d: @first_output@[0] = %g\n", step, (double)output.@first_output@[0]);
  }
  return 0;
}
