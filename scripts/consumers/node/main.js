// Steps a model and prints what comes out, a line for each step.
import { Tensor, open } from "rnnx";

const stream = (await open(process.argv[2])).stream();
for (let step = 0; step < 5; step++) {
  const frame = Float32Array.from({ length: 4 }, (_, at) => ((step * 31 + at * 7) % 19) / 9.5 - 1);
  const { y } = await stream.step({ x: new Tensor("float32", [1, 4], frame) });
  console.log(y.data.join(" "));
}
