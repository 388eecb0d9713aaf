package rnnx;

/** The dtypes of a contract. */
public enum DType {
    FLOAT16("F16", 10, 2),
    FLOAT32("F32", 1, 4),
    FLOAT64("F64", 11, 8),
    INT8("I8", 3, 1),
    INT16("I16", 5, 2),
    INT32("I32", 6, 4),
    INT64("I64", 7, 8),
    UINT8("U8", 2, 1),
    UINT16("U16", 4, 2),
    UINT32("U32", 12, 4),
    UINT64("U64", 13, 8),
    BOOL("BOOL", 9, 1);

    /** Its name in safetensors. */
    final String code;

    /** Its number in ONNX's TensorProto.DataType. */
    final int onnx;

    /** Bytes of one entry. */
    public final int size;

    DType(String code, int onnx, int size) {
        this.code = code;
        this.onnx = onnx;
        this.size = size;
    }

    /** As a contract names it: {@code float32}. */
    @Override
    public String toString() {
        return name().toLowerCase(java.util.Locale.ROOT);
    }

    /** Whether a number has a counterpart in it: of integers once it is rounded, of bool 0 and 1. */
    boolean holds(double number) {
        if (isFloat()) {
            return true;
        }
        if (this == BOOL) {
            return number == 0 || number == 1;
        }
        boolean hasSign = ordinal() <= INT64.ordinal();
        double end = Math.scalb(1.0, 8 * size - (hasSign ? 1 : 0));
        double whole = Math.rint(number);
        return whole >= (hasSign ? -end : 0) && whole < end;
    }

    /** Whether it has NaN and infinity. */
    public boolean isFloat() {
        return ordinal() <= FLOAT64.ordinal();
    }
}
