package rnnx;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;

/** A dtype, a shape, and entries in a direct buffer, with the last axis running fastest. */
public final class Tensor {
    private final DType dtype;
    private final int[] shape;
    private final ByteBuffer data; // direct, in this machine's byte order; position 0, limit at its end

    private Tensor(DType dtype, int[] shape, ByteBuffer data) {
        this.dtype = dtype;
        this.shape = shape;
        this.data = data;
    }

    /**
     * A tensor over memory of the caller: what is written there later is what a later step reads.
     *
     * @param data direct; its bytes from position to limit are the entries. Whether they are as many as the shape says
     *     is checked where the tensor is used.
     */
    public static Tensor wrap(DType dtype, ByteBuffer data, int... shape) {
        if (!data.isDirect()) {
            throw new IllegalArgumentException("a direct buffer is needed: ByteBuffer.allocateDirect");
        }
        return new Tensor(dtype, shape.clone(), data.slice().order(ByteOrder.nativeOrder()));
    }

    /** A tensor of zeros. */
    public static Tensor zeros(DType dtype, int... shape) {
        return allocate(dtype, Shapes.count(shape), shape);
    }

    /** float32 */
    public static Tensor of(float[] values, int... shape) {
        Tensor tensor = allocate(DType.FLOAT32, values.length, shape);
        tensor.data.asFloatBuffer().put(values);
        return tensor;
    }

    /** float64 */
    public static Tensor of(double[] values, int... shape) {
        Tensor tensor = allocate(DType.FLOAT64, values.length, shape);
        tensor.data.asDoubleBuffer().put(values);
        return tensor;
    }

    /** int64 */
    public static Tensor of(long[] values, int... shape) {
        Tensor tensor = allocate(DType.INT64, values.length, shape);
        tensor.data.asLongBuffer().put(values);
        return tensor;
    }

    /** int32 */
    public static Tensor of(int[] values, int... shape) {
        Tensor tensor = allocate(DType.INT32, values.length, shape);
        tensor.data.asIntBuffer().put(values);
        return tensor;
    }

    /** bool */
    public static Tensor of(boolean[] values, int... shape) {
        Tensor tensor = allocate(DType.BOOL, values.length, shape);
        for (int index = 0; index < values.length; index++) {
            tensor.set(index, values[index] ? 1 : 0);
        }
        return tensor;
    }

    /** Any dtype, the numbers rounded to nearest: {@code Tensor.of(DType.FLOAT16, new double[] {0.5}, 1)}. */
    public static Tensor of(DType dtype, double[] values, int... shape) {
        Tensor tensor = allocate(dtype, values.length, shape);
        for (int index = 0; index < values.length; index++) {
            tensor.set(index, values[index]);
        }
        return tensor;
    }

    private static Tensor allocate(DType dtype, int count, int[] shape) {
        ByteBuffer data = ByteBuffer.allocateDirect(Math.multiplyExact(count, dtype.size));
        return new Tensor(dtype, shape.clone(), data.order(ByteOrder.nativeOrder()));
    }

    /** The dtype of the entries. */
    public DType dtype() {
        return dtype;
    }

    /** The sizes of the axes. */
    public int[] shape() {
        return shape.clone();
    }

    /** Number of entries. */
    public int count() {
        return data.limit() / dtype.size;
    }

    /** The entries themselves, in this machine's byte order. */
    public ByteBuffer buffer() {
        return data.duplicate().order(ByteOrder.nativeOrder());
    }

    /** A copy of the entries of a float32 tensor. Throws {@code wrong-dtype} for another. */
    public float[] floats() {
        require(DType.FLOAT32);
        float[] values = new float[count()];
        data.asFloatBuffer().get(values);
        return values;
    }

    /** A copy of the entries of an int64 tensor. Throws {@code wrong-dtype} for another. */
    public long[] longs() {
        require(DType.INT64);
        long[] values = new long[count()];
        data.asLongBuffer().get(values);
        return values;
    }

    /** The entries of any dtype as float64. */
    public double[] doubles() {
        double[] values = new double[count()];
        Arrays.setAll(values, this::number);
        return values;
    }

    private void require(DType asked) {
        if (dtype != asked) {
            throw new RnnxException("wrong-dtype", "values asked for as " + dtype, asked.toString(), "ask for that type");
        }
    }

    /** Entry {@code index} of the flattened values as float64. */
    public double number(int index) {
        int at = index * dtype.size;
        return switch (dtype) {
            case FLOAT16 -> Half.toDouble(data.getShort(at));
            case FLOAT32 -> data.getFloat(at);
            case FLOAT64 -> data.getDouble(at);
            case INT8 -> data.get(at);
            case INT16 -> data.getShort(at);
            case INT32 -> data.getInt(at);
            case INT64 -> data.getLong(at);
            case UINT8, BOOL -> data.get(at) & 0xff;
            case UINT16 -> data.getShort(at) & 0xffff;
            case UINT32 -> data.getInt(at) & 0xffffffffL;
            case UINT64 -> unsigned(data.getLong(at));
        };
    }

    private static double unsigned(long bits) {
        return bits >= 0 ? bits : new java.math.BigInteger(Long.toUnsignedString(bits)).doubleValue();
    }

    /** Write an entry, rounded to nearest. */
    void set(int index, double number) {
        int at = index * dtype.size;
        double whole = Math.rint(number);
        switch (dtype) {
            case FLOAT16 -> data.putShort(at, Half.of(number));
            case FLOAT32 -> data.putFloat(at, (float) number);
            case FLOAT64 -> data.putDouble(at, number);
            case INT8, UINT8 -> data.put(at, (byte) whole);
            case INT16, UINT16 -> data.putShort(at, (short) whole);
            case INT32 -> data.putInt(at, (int) whole);
            case UINT32 -> data.putInt(at, (int) (long) whole);
            case INT64 -> data.putLong(at, (long) whole);
            case UINT64 -> data.putLong(at, new java.math.BigDecimal(whole).longValue());
            case BOOL -> data.put(at, (byte) (number != 0 ? 1 : 0));
        }
    }

    /** A copy with memory of its own. */
    public Tensor copy() {
        Tensor copied = allocate(dtype, count(), shape);
        copied.data.put(0, data, 0, data.limit());
        return copied;
    }

    /** The same memory in another shape of as many entries. */
    public Tensor reshaped(int... other) {
        if (Shapes.count(other) != count()) {
            throw new IllegalArgumentException(count() + " entries in the shape " + Arrays.toString(other));
        }
        return new Tensor(dtype, other.clone(), data);
    }

    /** Row {@code index} of [step, ...], in its memory. */
    public Tensor row(int index) {
        int size = data.limit() / shape[0];
        ByteBuffer row = data.slice(index * size, size).order(ByteOrder.nativeOrder());
        return new Tensor(dtype, Arrays.copyOfRange(shape, 1, shape.length), row);
    }

    // Without the copies and views that callers get, for what is done at each step.

    int[] sizes() {
        return shape;
    }

    ByteBuffer data() {
        return data;
    }

    void copyFrom(Tensor other) {
        data.put(0, other.data, 0, data.limit());
    }
}
