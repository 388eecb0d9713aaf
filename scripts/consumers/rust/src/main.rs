//! Steps a model and prints what comes out, a line for each step.

use rnnx::{Session, View};

fn main() -> rnnx::Result<()> {
    let path = std::env::args().nth(1).expect("a model");
    let mut stream = Session::open(path)?.stream()?;
    for step in 0..5 {
        let frame: Vec<f32> = (0..4).map(|at| ((step * 31 + at * 7) % 19) as f32 / 9.5 - 1.0).collect();
        let outputs = stream.step(&[("x", View::new(&[1, 4], &frame))])?;
        let y: &[f32] = outputs.get("y")?.as_slice()?;
        println!("{}", y.iter().map(f32::to_string).collect::<Vec<_>>().join(" "));
    }
    Ok(())
}
