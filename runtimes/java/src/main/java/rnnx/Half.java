package rnnx;

/** Half floats as their bits, since Java 17 has no such type. */
final class Half {
    private Half() {}

    static double toDouble(short bits) {
        int exponent = bits >> 10 & 31;
        int fraction = bits & 1023;
        double sign = bits < 0 ? -1 : 1;
        if (exponent == 31) {
            return fraction == 0 ? sign * Double.POSITIVE_INFINITY : Double.NaN;
        }
        double steps = exponent == 0 ? fraction : 1024 + fraction;
        return sign * Math.scalb(steps, Math.max(exponent, 1) - 25);
    }

    /** The half float nearest to a number, ties to even. */
    static short of(double number) {
        int sign = Double.doubleToRawLongBits(number) < 0 ? 0x8000 : 0;
        double size = Math.abs(number);
        if (Double.isNaN(number)) {
            return (short) (sign | 0x7e00);
        }
        if (size >= 65520) { // halfway to the number behind the largest
            return (short) (sign | 0x7c00);
        }
        // Below 2^-14 the steps stay at 2^-24. A number that rounds up carries into the exponent, as it should.
        int exponent = Math.max(Math.getExponent(size), -14);
        int steps = (int) Math.rint(Math.scalb(size, 10 - exponent));
        return (short) (sign | (exponent + 14 << 10) + steps);
    }

    static boolean isFinite(short bits) {
        return (bits & 0x7c00) != 0x7c00;
    }
}
