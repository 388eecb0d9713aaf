package rnnx;

/** What everything in this package throws when it fails; code and text are the same in every language. */
public final class RnnxException extends RuntimeException {
    private static final long serialVersionUID = 1;

    private final String code;
    private final String expected;
    private final String found;
    private final String fix;

    /** An error in the manner of this package, for programs that report like it. */
    public RnnxException(String code, String expected, String found, String fix) {
        super("expected " + expected + "; found " + found + "; fix: " + fix);
        this.code = code;
        this.expected = expected;
        this.found = found;
        this.fix = fix;
    }

    RnnxException(String code, String expected, String found, String fix, Throwable cause) {
        this(code, expected, found, fix);
        initCause(cause);
    }

    /** Stable identifier in kebab-case: {@code wrong-shape}, {@code missing-input}. */
    public String code() {
        return code;
    }

    /** What should have been there. */
    public String expected() {
        return expected;
    }

    /** What was there instead. */
    public String found() {
        return found;
    }

    /** What can be done about it. */
    public String fix() {
        return fix;
    }
}
