//! 100,000 steps: nothing is allocated on the way, and the process does not grow.

mod common;

use rnnx::View;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Mutex;

struct Counting;

thread_local! {
    /// Of this thread alone: the harness has threads of its own.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is handed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        System.alloc(layout)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        System.dealloc(pointer, layout);
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Resident memory of this process in kilobytes.
fn resident_kilobytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

/// One at a time, since each test looks at the memory of the whole process.
static TURN: Mutex<()> = Mutex::new(());

#[test]
fn streams_that_are_dropped_leave_nothing_behind() {
    let _turn = TURN.lock();
    let session = common::open("gru.onnx");
    let open = |count: usize| {
        for _ in 0..count {
            let mut stream = session.stream_with().batch(64).open().expect("a stream");
            stream.step(&[("x", common::frame(&[64, 4], 0).view())]).expect("a step");
        }
    };
    open(500);
    let resident = resident_kilobytes();
    open(3000); // with 9 kB of buffers each
    let growth = resident_kilobytes().saturating_sub(resident);
    assert!(growth < 4096, "{growth} kB more after 3,000 streams");
}

#[test]
fn a_step_allocates_nothing_and_memory_stays_flat() {
    let _turn = TURN.lock();
    let session = common::open("gru.onnx");
    let mut stream = session.stream().expect("a stream");
    let mut frame = [0.1f32; 4];
    let mut last = 0.0;
    let mut steps = |count: usize| {
        for index in 0..count {
            frame[index % 4] = (index % 17) as f32 / 8.0 - 1.0;
            let outputs = stream.step(&[("x", View::new(&[1, 4], &frame))]).expect("a step");
            last = outputs.get("y").expect("an output").as_slice::<f32>().expect("float32")[0];
        }
    };
    steps(10_000);
    let resident = resident_kilobytes();
    let allocations = ALLOCATIONS.get();
    steps(100_000);
    assert_eq!(ALLOCATIONS.get(), allocations, "allocations in 100,000 steps");
    let growth = resident_kilobytes().saturating_sub(resident);
    assert!(growth < 512, "{growth} kB more after 100,000 steps");
    assert!(last.is_finite());
    assert_eq!(stream.position(), 110_000);
}
