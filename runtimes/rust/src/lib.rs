//! Networks with memory, exported by rnnx, run one time step at a time.
//!
//! A model is a function `(inputs, states) -> (outputs, next states)`. The contract inside the ONNX file says
//! which graph input is which state, what it starts as, and which axis is the batch and which is time. A
//! [`Session`] is a loaded model; a [`Stream`] is a sequence being run, and owns the states.
//!
//! ```no_run
//! use rnnx::{Session, View};
//!
//! let session = Session::open("denoiser.onnx")?;
//! let mut stream = session.stream()?;
//! let frame = [0.0f32; 257];
//! let outputs = stream.step(&[("x", View::new(&[1, 257], &frame))])?;
//! let y: &[f32] = outputs.get("y")?.as_slice()?; // [1, 257]
//! # let _ = y;
//! # Ok::<(), rnnx::Error>(())
//! ```
//!
//! Sessions are shared between threads; a stream belongs to one at a time:
//!
//! ```
//! fn is_sync<T: Send + Sync>() {}
//! fn is_send<T: Send>() {}
//! is_sync::<rnnx::Session>();
//! is_send::<rnnx::Stream>();
//! ```

#![warn(missing_docs)]

mod call;
mod checks;
pub mod contract;
mod contract_json;
mod engine;
mod error;
mod external;
mod model_file;
mod pool;
pub mod replay;
mod sampling;
mod session;
mod shape;
mod snapshot;
mod stream;
mod tensor;
pub mod tensor_file;
mod text;
pub mod trace;
mod waiting;

pub use contract::Contract;
pub use engine::Provider;
pub use error::{Error, Result};
pub use half::f16;
pub use pool::Pool;
pub use sampling::Sampler;
pub use session::{read_file, Options, Session};
pub use shape::Axis;
pub use stream::{Outputs, Stream, StreamBuilder};
pub use tensor::{DType, Element, Tensor, View};
pub use text::TextStream;

/// The version of this crate, which is rnnx's.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
