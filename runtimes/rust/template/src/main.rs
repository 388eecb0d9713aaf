//! Proves a model on its trace, then runs it: over raw values, frame by frame, or as a writer of text.
//!
//!     cargo run --release -- [MODEL]                 prove it, and say what a frame is
//!     cargo run --release -- MODEL INPUT > OUTPUT    read frame, step, write frame; INPUT is a file, or - for
//!                                                    standard input
//!     cargo run --release -- MODEL "Once"            a model over symbols continues a prompt

use rnnx::contract::Spec;
use rnnx::{Error, Result, Session, Tensor};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().unwrap_or_else(|| "model.onnx".into());
    match run(&model, arguments.next()) {
        Ok(agrees) => ExitCode::from(u8::from(!agrees)),
        Err(error) => {
            eprintln!("error[{}]: {error}", error.code());
            ExitCode::from(2)
        }
    }
}

/// Standard error is for people; standard output is for what the model gives. False if it disagrees with its trace.
fn run(model: &str, source: Option<String>) -> Result<bool> {
    let session = Session::open(model)?;
    let contract = session.contract();
    if !prove(&session, &Path::new(model).with_extension("trace.safetensors"))? {
        return Ok(false);
    }
    if contract.vocabulary.is_some() {
        write(&session, source)?;
    } else if let Some(why) = &contract.whole_only {
        eprintln!("it takes whole sequences: give them to run, not to step ({why})");
    } else if let Some(source) = source {
        run_frames(&session, &source)?;
    } else {
        eprintln!("a frame in:  {}", described(&required(&session)));
        eprintln!("a frame out: {}", described(&contract.outputs.iter().collect::<Vec<_>>()));
        if let Some(rate) = contract.steps_per_second {
            eprintln!("frames a second: {rate}");
        }
        eprintln!("run it: cargo run --release -- {model} in.raw > out.raw");
    }
    Ok(true)
}

/// Replay the trace beside the model.
fn prove(session: &Session, path: &Path) -> Result<bool> {
    if !path.exists() {
        eprintln!("not proved: there is no trace at {}", path.display());
        return Ok(true);
    }
    let verdict = session.replay(path)?;
    if verdict.agrees() {
        eprintln!("agrees: {} steps, {:.1e}", verdict.steps, verdict.max_error);
    } else {
        eprintln!("{verdict}");
    }
    Ok(verdict.agrees())
}

/// Print 200 symbols that continue the prompt.
fn write(session: &Session, prompt: Option<String>) -> Result<()> {
    let first = session.contract().vocabulary.as_ref().and_then(|vocabulary| vocabulary.symbols.first());
    let prompt = prompt.or(first.map(char::to_string)).unwrap_or_default();
    let mut text = session.text(7, 0.8)?;
    text.read(&prompt)?;
    print!("{prompt}");
    for symbol in text.take(200) {
        print!("{}", symbol?);
        io::stdout().flush().ok();
    }
    println!();
    Ok(())
}

fn required(session: &Session) -> Vec<&Spec> {
    let inputs = session.contract().inputs.iter();
    inputs.filter(|input| input.is_required()).map(|input| &input.spec).collect()
}

/// What one step takes or gives, one tensor behind the other, batch 1: `x float32[1, 3]`.
fn described(specs: &[&Spec]) -> String {
    let parts = specs.iter().map(|spec| format!("{} {}{:?}", spec.name, spec.dtype.name(), spec.step_shape(|_| 1)));
    parts.collect::<Vec<_>>().join(", ")
}

/// Read a frame, step, write a frame, until the input ends; then a frame that is not whole gets zeros.
fn run_frames(session: &Session, source: &str) -> Result<()> {
    let contract = session.contract();
    let dims = contract.free_dimensions();
    let mut stream = dims.iter().fold(session.stream_with(), |builder, name| builder.dim(*name, 1)).open()?;
    let specs = required(session);
    let mut tensors: Vec<_> = specs.iter().map(|spec| Tensor::zeros(spec.dtype, spec.step_shape(|_| 1))).collect();
    let size = tensors.iter().map(|tensor| tensor.bytes().len()).sum();
    let file: Box<dyn Read> = if source == "-" { Box::new(io::stdin()) } else { Box::new(open(source)?) };
    let (mut input, mut output) = (BufReader::new(file), BufWriter::new(io::stdout()));
    let mut frame = vec![0; size];
    loop {
        let count = read_up_to(&mut input, &mut frame).map_err(|error| failed("read", source, &error))?;
        if count == 0 {
            break;
        }
        if count < size {
            eprintln!("the last frame had {count} of {size} bytes: zeros stand for the others");
            frame[count..].fill(0);
        }
        let mut rest = &frame[..];
        for tensor in &mut tensors {
            let (own, others) = rest.split_at(tensor.bytes().len());
            tensor.set_bytes(own);
            rest = others;
        }
        let given: Vec<_> = specs.iter().zip(&tensors).map(|(spec, t)| (spec.name.as_str(), t.view())).collect();
        let outputs = stream.step(&given)?; // here your data goes through the model
        for (_, value) in outputs.iter() {
            output.write_all(value.bytes()).map_err(|error| failed("write", "standard output", &error))?;
        }
    }
    output.flush().map_err(|error| failed("write", "standard output", &error))?;
    eprintln!("{} steps", stream.position());
    Ok(())
}

fn open(path: &str) -> Result<File> {
    File::open(path).map_err(|error| failed("read", path, &error))
}

fn failed(what: &str, path: &str, error: &io::Error) -> Error {
    Error::new("cannot-read", format!("to {what} {path}"), error.to_string(), "name a file that can be")
}

/// Fill a buffer as far as the input goes.
fn read_up_to(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < buffer.len() {
        match input.read(&mut buffer[count..])? {
            0 => break,
            read => count += read,
        }
    }
    Ok(count)
}
