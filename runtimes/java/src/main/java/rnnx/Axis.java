package rnnx;

import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * One dimension of a shape in a contract: {@code factor} entries, or so many for each 1 of what {@code name} stands for.
 *
 * @param name {@code batch}, {@code time}, a free dimension; empty for a number
 * @param factor entries
 * @param isMultiple whether it is written {@code N*time}: such an axis stays in a step, with N entries
 */
public record Axis(String name, int factor, boolean isMultiple) {
    private static final Pattern NAMED = Pattern.compile("(?:([1-9][0-9]{0,8})\\*)?([A-Za-z_][A-Za-z0-9_]*)");

    static Axis of(int size) {
        return new Axis("", size, false);
    }

    /** Parse {@code batch} or {@code 160*time}; null for anything else. */
    static Axis parse(String text) {
        Matcher match = NAMED.matcher(text);
        if (!match.matches() || match.group(1) != null && !match.group(2).equals("time")) {
            return null;
        }
        boolean isMultiple = match.group(1) != null;
        return new Axis(match.group(2), isMultiple ? Integer.parseInt(match.group(1)) : 1, isMultiple);
    }

    boolean isNamed() {
        return !name.isEmpty();
    }

    /** As a contract writes it. */
    @Override
    public String toString() {
        return !isNamed() ? String.valueOf(factor) : isMultiple ? factor + "*" + name : name;
    }
}
