package rnnx;

/** The library itself. */
public final class Rnnx {
    private Rnnx() {}

    /** The version of the library that runs, which a program that was compiled with another one is told too. */
    public static String version() {
        return "0.1.0";
    }
}
