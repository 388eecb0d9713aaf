package rnnx;

import java.util.List;

/**
 * What the ids of a model over symbols mean.
 *
 * @param input the input that takes ids
 * @param output the output that gives one score per symbol
 * @param symbols code points; id i means the i-th
 */
public record Vocabulary(String input, String output, List<Integer> symbols) {
    /**
     * The ids of the characters of {@code text}; {@code what} it is stands in the message ("prompt"). Throws
     * {@code character-outside-vocabulary}, naming the first such character and its position.
     */
    public long[] encode(String text, String what) {
        int[] points = text.codePoints().toArray();
        long[] ids = new long[points.length];
        for (int position = 0; position < points.length; position++) {
            ids[position] = symbols.indexOf(points[position]);
            if (ids[position] < 0) {
                throw new RnnxException(
                        "character-outside-vocabulary",
                        "a " + what + " of the vocabulary's " + symbols.size() + " characters",
                        String.format("'%s' (U+%04X) at character %d (from 0)",
                                Character.toString(points[position]), points[position], position),
                        "leave it out or replace it; 'rnnx inspect MODEL --json' lists the vocabulary");
            }
        }
        return ids;
    }

    /** The text that {@code ids} stand for. Throws {@code id-outside-vocabulary}, naming the first such id. */
    public String decode(long... ids) {
        StringBuilder text = new StringBuilder();
        for (int position = 0; position < ids.length; position++) {
            if (ids[position] < 0 || ids[position] >= symbols.size()) {
                throw new RnnxException(
                        "id-outside-vocabulary",
                        "ids in 0.." + (symbols.size() - 1),
                        ids[position] + " at position " + position + " (from 0)",
                        "use the ids of the vocabulary this model was trained with");
            }
            text.appendCodePoint(symbols.get((int) ids[position]));
        }
        return text.toString();
    }
}
