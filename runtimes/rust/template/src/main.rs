//! Opens a model and runs it: text if it has a vocabulary, else steps on zeros.
//!
//!     cargo run --release -- [MODEL] [PROMPT]

use rnnx::{Session, Tensor};
use std::io::Write;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().unwrap_or_else(|| "model.onnx".into());
    let prompt = arguments.next();
    let session = Session::open(&model).unwrap_or_else(|error| fail(&error));
    let done = if session.contract().vocabulary.is_some() { write(&session, prompt) } else { step(&session) };
    done.unwrap_or_else(|error| fail(&error));
}

/// Print 200 symbols that continue the prompt.
fn write(session: &Session, prompt: Option<String>) -> rnnx::Result<()> {
    let first = session.contract().vocabulary.as_ref().and_then(|vocabulary| vocabulary.symbols.first());
    let prompt = prompt.or(first.map(char::to_string)).unwrap_or_default();
    let mut text = session.text(7, 0.8)?;
    text.read(&prompt)?;
    print!("{prompt}");
    for symbol in text.take(200) {
        print!("{}", symbol?);
        std::io::stdout().flush().ok();
    }
    println!();
    Ok(())
}

/// Print the outputs of five steps on zeros; a model of whole sequences takes them as one chunk.
fn step(session: &Session) -> rnnx::Result<()> {
    let contract = session.contract();
    let dims = contract.free_dimensions();
    let mut stream = dims.iter().fold(session.stream_with(), |builder, name| builder.dim(*name, 1)).open()?;
    let whole = contract.whole_only.is_some();
    let required = contract.inputs.iter().filter(|input| input.is_required());
    let zeros: Vec<(&str, Tensor)> = required
        .map(|input| {
            let spec = &input.spec;
            let shape = if whole { spec.chunk_shape(5, |_| 1) } else { spec.step_shape(|_| 1) };
            (spec.name.as_str(), Tensor::zeros(spec.dtype, shape))
        })
        .collect();
    let inputs: Vec<_> = zeros.iter().map(|(name, tensor)| (*name, tensor.view())).collect();
    for _ in 0..if whole { 1 } else { 5 } {
        let outputs = if whole { stream.run(&inputs)? } else { stream.step(&inputs)? };
        for (name, value) in outputs.iter() {
            let count = value.shape().iter().product::<usize>().min(6);
            let numbers: Vec<f64> = (0..count).map(|index| value.number(index)).collect();
            println!("{name} {:?}: {numbers:?}", value.shape());
        }
    }
    Ok(())
}

fn fail(error: &rnnx::Error) -> ! {
    eprintln!("error[{}]: {error}", error.code());
    std::process::exit(2)
}
