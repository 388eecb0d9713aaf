//! Values with a dtype and a shape: [`View`] borrows them, [`Tensor`] owns them.

use crate::{Error, Result};
use half::f16;

/// The dtypes of a contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum DType {
    Float16,
    Float32,
    Float64,
    Int8,
    Int16,
    Int32,
    Int64,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Bool,
}

/// (dtype, name in a contract, name in safetensors, number in ONNX's TensorProto.DataType, bytes)
const DTYPES: [(DType, &str, &str, u64, usize); 12] = [
    (DType::Float16, "float16", "F16", 10, 2),
    (DType::Float32, "float32", "F32", 1, 4),
    (DType::Float64, "float64", "F64", 11, 8),
    (DType::Int8, "int8", "I8", 3, 1),
    (DType::Int16, "int16", "I16", 5, 2),
    (DType::Int32, "int32", "I32", 6, 4),
    (DType::Int64, "int64", "I64", 7, 8),
    (DType::Uint8, "uint8", "U8", 2, 1),
    (DType::Uint16, "uint16", "U16", 4, 2),
    (DType::Uint32, "uint32", "U32", 12, 4),
    (DType::Uint64, "uint64", "U64", 13, 8),
    (DType::Bool, "bool", "BOOL", 9, 1),
];

impl DType {
    /// As a contract names it: `float32`.
    pub fn name(self) -> &'static str {
        DTYPES[self as usize].1
    }

    /// Bytes of one entry.
    pub fn size(self) -> usize {
        DTYPES[self as usize].4
    }

    /// Whether it has NaN and infinity.
    pub fn is_float(self) -> bool {
        matches!(self, Self::Float16 | Self::Float32 | Self::Float64)
    }

    /// Whether a number has a counterpart in it: of integers once it is rounded, of bool 0 and 1.
    pub(crate) fn holds(self, number: f64) -> bool {
        let end = 2f64.powi(8 * self.size() as i32);
        let whole = number.round_ties_even();
        match self {
            Self::Float16 | Self::Float32 | Self::Float64 => true,
            Self::Bool => number == 0.0 || number == 1.0,
            Self::Int8 | Self::Int16 | Self::Int32 | Self::Int64 => (-end / 2.0..end / 2.0).contains(&whole),
            Self::Uint8 | Self::Uint16 | Self::Uint32 | Self::Uint64 => (0.0..end).contains(&whole),
        }
    }

    pub(crate) fn code(self) -> &'static str {
        DTYPES[self as usize].2
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        DTYPES.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    pub(crate) fn from_code(code: &str) -> Option<Self> {
        DTYPES.iter().find(|row| row.2 == code).map(|row| row.0)
    }

    pub(crate) fn from_onnx(number: u64) -> Option<Self> {
        DTYPES.iter().find(|row| row.3 == number).map(|row| row.0)
    }
}

/// A Rust type that is the entry of a tensor.
///
/// # Safety
/// The type has no padding and is laid out as ONNX Runtime lays out `DTYPE`.
pub unsafe trait Element: Copy + 'static {
    /// Its dtype.
    const DTYPE: DType;
}

macro_rules! elements {
    ($($type:ty => $dtype:ident),*) => { $(
        // SAFETY: primitive types of the size that the dtype says, in this machine's byte order.
        unsafe impl Element for $type { const DTYPE: DType = DType::$dtype; }
    )* };
}
elements!(f16 => Float16, f32 => Float32, f64 => Float64, i8 => Int8, i16 => Int16, i32 => Int32, i64 => Int64,
    u8 => Uint8, u16 => Uint16, u32 => Uint32, u64 => Uint64, bool => Bool);

/// Borrowed values: a dtype, a shape, and entries with the last axis running fastest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct View<'a> {
    pub(crate) dtype: DType,
    pub(crate) shape: &'a [usize],
    pub(crate) bytes: &'a [u8],
}

impl<'a> View<'a> {
    /// Look at `data` as a tensor of `shape`. Whether the two fit is checked where the view is used.
    pub fn new<T: Element>(shape: &'a [usize], data: &'a [T]) -> Self {
        // SAFETY: an Element has no padding, and any byte may be read as u8.
        let bytes = unsafe { std::slice::from_raw_parts(data.as_ptr().cast(), std::mem::size_of_val(data)) };
        Self { dtype: T::DTYPE, shape, bytes }
    }

    /// The dtype of the entries.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The sizes of the axes.
    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }

    /// The entries.
    ///
    /// # Errors
    /// `wrong-dtype` if they are of another type than `T`.
    pub fn as_slice<T: Element>(&self) -> Result<&'a [T]> {
        if T::DTYPE != self.dtype {
            let (asked, dtype) = (T::DTYPE.name(), self.dtype.name());
            return Err(Error::new("wrong-dtype", format!("values asked for as {dtype}"), asked, "ask for that type"));
        }
        let count = self.bytes.len() / size_of::<T>();
        debug_assert!(self.bytes.as_ptr().cast::<T>().is_aligned());
        // SAFETY: the dtype is T's, and every View is made of aligned memory: a slice of T, the words of a
        // Tensor, or a buffer of ONNX Runtime. Entries of `bool` are 0 or 1: checked where files are read.
        Ok(unsafe { std::slice::from_raw_parts(self.bytes.as_ptr().cast(), count) })
    }

    /// The memory of the entries, in this machine's byte order.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// A copy that owns its values.
    pub fn to_tensor(&self) -> Tensor {
        let mut tensor = Tensor::zeros(self.dtype, self.shape.to_vec());
        let size = self.bytes.len().min(tensor.size);
        tensor.bytes_mut()[..size].copy_from_slice(&self.bytes[..size]);
        tensor
    }

    /// Entry `index` of the flattened values, as float64.
    pub fn number(&self, index: usize) -> f64 {
        let size = self.dtype.size();
        let entry = &self.bytes[index * size..][..size];
        macro_rules! read {
            ($type:ty) => {
                <$type>::from_ne_bytes(entry.try_into().unwrap())
            };
        }
        match self.dtype {
            DType::Float16 => read!(f16).to_f64(),
            DType::Float32 => f64::from(read!(f32)),
            DType::Float64 => read!(f64),
            DType::Int8 => f64::from(read!(i8)),
            DType::Int16 => f64::from(read!(i16)),
            DType::Int32 => f64::from(read!(i32)),
            DType::Int64 => read!(i64) as f64,
            DType::Uint8 | DType::Bool => f64::from(entry[0]),
            DType::Uint16 => f64::from(read!(u16)),
            DType::Uint32 => f64::from(read!(u32)),
            DType::Uint64 => read!(u64) as f64,
        }
    }

    /// Number of entries that the shape asks for.
    pub(crate) fn count(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Values of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    /// Words and not bytes, so that entries of every dtype are aligned.
    words: Vec<u64>,
    size: usize,
}

impl Tensor {
    /// A tensor of `shape` with the entries of `data`.
    ///
    /// # Panics
    /// If `data` has another number of entries than the shape.
    pub fn new<T: Element>(shape: impl Into<Vec<usize>>, data: &[T]) -> Self {
        let shape = shape.into();
        assert_eq!(shape.iter().product::<usize>(), data.len(), "entries of shape {shape:?}");
        View::new(&shape, data).to_tensor()
    }

    /// A tensor of zeros.
    pub fn zeros(dtype: DType, shape: Vec<usize>) -> Self {
        let size = shape.iter().product::<usize>() * dtype.size();
        Self { dtype, shape, words: vec![0; size.div_ceil(8)], size }
    }

    /// Numbers converted to `dtype`, rounding to nearest.
    pub(crate) fn from_numbers(dtype: DType, shape: Vec<usize>, numbers: impl Iterator<Item = f64>) -> Self {
        let mut tensor = Self::zeros(dtype, shape);
        let size = dtype.size();
        for (entry, number) in tensor.bytes_mut().chunks_exact_mut(size).zip(numbers) {
            macro_rules! write {
                ($value:expr) => {
                    entry.copy_from_slice(&$value.to_ne_bytes())
                };
            }
            let whole = number.round_ties_even();
            match dtype {
                DType::Float16 => write!(f16::from_f64(number)),
                DType::Float32 => write!((number as f32)),
                DType::Float64 => write!(number),
                DType::Int8 => write!((whole as i8)),
                DType::Int16 => write!((whole as i16)),
                DType::Int32 => write!((whole as i32)),
                DType::Int64 => write!((whole as i64)),
                DType::Uint8 => write!((whole as u8)),
                DType::Uint16 => write!((whole as u16)),
                DType::Uint32 => write!((whole as u32)),
                DType::Uint64 => write!((whole as u64)),
                DType::Bool => entry[0] = u8::from(number != 0.0),
            }
        }
        tensor
    }

    /// The same entries in another shape.
    ///
    /// # Panics
    /// If `shape` asks for another number of entries.
    pub fn reshaped(mut self, shape: impl Into<Vec<usize>>) -> Self {
        let shape = shape.into();
        assert_eq!(shape.iter().product::<usize>() * self.dtype.size(), self.size, "entries of shape {shape:?}");
        self.shape = shape;
        self
    }

    /// The tensor, borrowed.
    pub fn view(&self) -> View<'_> {
        View { dtype: self.dtype, shape: &self.shape, bytes: self.bytes() }
    }

    /// The sizes of the axes.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The dtype of the entries.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The entries; see [`View::as_slice`].
    ///
    /// # Errors
    /// `wrong-dtype` if they are of another type than `T`.
    pub fn as_slice<T: Element>(&self) -> Result<&[T]> {
        self.view().as_slice()
    }

    /// The memory of the entries, in this machine's byte order.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `size` bytes of the words are ours, and any byte may be read as u8.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast(), self.size) }
    }

    /// Overwrite all entries, from their bytes in this machine's order. Truth values are 0 or 1: others become 1.
    ///
    /// # Panics
    /// If there are not as many bytes as the entries take.
    pub fn set_bytes(&mut self, bytes: &[u8]) {
        let is_bool = self.dtype == DType::Bool;
        self.bytes_mut().copy_from_slice(bytes);
        if is_bool {
            self.bytes_mut().iter_mut().for_each(|byte| *byte = u8::from(*byte != 0));
        }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; u64 takes any bytes.
        unsafe { std::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast(), self.size) }
    }
}
