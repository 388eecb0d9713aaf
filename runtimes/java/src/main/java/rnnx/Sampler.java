package rnnx;

import static rnnx.Checks.shown;

import java.util.Arrays;
import java.util.function.DoublePredicate;

/**
 * Draws symbols from scores, the same in every language: splitmix64 (Steele, Lea, Flood 2014, "Fast splittable
 * pseudorandom number generators") and the inverse of a running sum.
 */
public final class Sampler {
    private static final double SMALLEST_SUM = 0x1p-1000;

    private final double temperature;
    private long state;
    private double[] weights = new double[0]; // kept between draws

    /**
     * @param seed unsigned 64 bits
     * @param temperature 0 for the best symbol each time, 1 for the model's own probabilities, more for more variety
     * @throws RnnxException {@code temperature-invalid}
     */
    public Sampler(long seed, double temperature) {
        if (!Double.isFinite(temperature) || temperature < 0) {
            throw new RnnxException(
                    "temperature-invalid",
                    "a finite temperature of 0 or more",
                    shown(temperature),
                    "try 0.7; 0 always takes the best symbol");
        }
        this.state = seed;
        this.temperature = temperature;
    }

    /** The generator's state; a sampler made with it as its seed continues where this one stands. */
    public long state() {
        return state;
    }

    /** The temperature. */
    public double temperature() {
        return temperature;
    }

    void goBack(long earlier) {
        state = earlier;
    }

    /** The next number of splitmix64, unsigned. */
    public long nextLong() {
        state += 0x9E3779B97F4A7C15L;
        long z = state;
        z = (z ^ z >>> 30) * 0xBF58476D1CE4E5B9L;
        z = (z ^ z >>> 27) * 0x94D049BB133111EBL;
        return z ^ z >>> 31;
    }

    /** The next u in [0, 1), a multiple of 2^-53. */
    public double uniform() {
        return (nextLong() >>> 11) * 0x1p-53;
    }

    /**
     * Draw an index with probability proportional to its weight; takes one number.
     *
     * @throws RnnxException {@code weights-invalid}; no number is drawn then
     */
    public int sampleWeights(double... values) {
        double total = 0;
        boolean isValid = true;
        for (double value : values) {
            total += value; // one after the other, so that the sums are the same in every language
            isValid = isValid && value >= 0;
        }
        if (!isValid || !(total >= SMALLEST_SUM) || Double.isInfinite(total)) {
            throw new RnnxException(
                    "weights-invalid",
                    "weights [symbols], none negative, with a finite sum of at least 2^-1000",
                    "shape [" + values.length + "] with " + offender(values),
                    "check what the weights were computed from");
        }
        double threshold = uniform() * total;
        double sum = 0;
        for (int index = 0; index < values.length; index++) {
            sum += values[index];
            if (sum > threshold) {
                return index;
            }
        }
        throw new IllegalStateException("u is below 1, so that the last sum is above u times itself");
    }

    /**
     * Draw a symbol from its logits, of any float dtype; takes one number, or none at temperature 0.
     *
     * @throws RnnxException {@code scores-invalid} for NaN, plus infinity, or nothing to choose from
     */
    public int sample(Tensor scores) {
        if (weights.length != scores.count()) {
            weights = new double[scores.count()];
        }
        double highest = Double.NEGATIVE_INFINITY;
        int best = 0;
        boolean isNaN = false;
        for (int index = 0; index < weights.length; index++) {
            weights[index] = scores.number(index);
            isNaN |= Double.isNaN(weights[index]);
            if (weights[index] > highest) {
                highest = weights[index];
                best = index;
            }
        }
        if (isNaN || Double.isInfinite(highest)) {
            throw new RnnxException(
                    "scores-invalid",
                    "scores [symbols] below infinity with at least one finite",
                    "shape [" + weights.length + "] with " + offender(weights),
                    "check the model's weights and inputs for NaN");
        }
        if (temperature == 0) {
            return best;
        }
        for (int index = 0; index < weights.length; index++) {
            weights[index] = StrictMath.exp((weights[index] - highest) / temperature);
        }
        return sampleWeights(weights);
    }

    private static String offender(double[] values) {
        if (values.length == 0) {
            return "no entries";
        }
        DoublePredicate[] wrongs = {Double::isNaN, value -> value == Double.POSITIVE_INFINITY, value -> value < 0};
        for (DoublePredicate isWrong : wrongs) {
            for (int index = 0; index < values.length; index++) {
                if (isWrong.test(values[index])) {
                    return shown(values[index]) + " at index " + index;
                }
            }
        }
        return Arrays.stream(values).allMatch(value -> value == 0) ? "all zero" : "a sum out of range";
    }
}
