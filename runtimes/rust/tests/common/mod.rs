//! The models that all languages are tested with.
#![allow(dead_code)]

use rnnx::{read_file, Session, Tensor};
use std::path::PathBuf;

pub fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../parity_tests/golden").join(name)
}

pub fn open(name: &str) -> Session {
    Session::open(golden(name)).expect("the golden opens; RNNX_ONNXRUNTIME names ONNX Runtime's library")
}

pub fn bytes(name: &str) -> Vec<u8> {
    read_file(golden(name), "a golden").expect("the golden is there")
}

/// Values that differ from step to step, float32 of `shape`.
pub fn frame(shape: &[usize], step: usize) -> Tensor {
    let count = shape.iter().product::<usize>();
    let values: Vec<f32> = (0..count).map(|index| ((step * 31 + index * 7) % 19) as f32 / 9.5 - 1.0).collect();
    Tensor::new(shape, &values)
}

pub fn code<T>(result: rnnx::Result<T>) -> &'static str {
    result.err().expect("an error").code()
}
