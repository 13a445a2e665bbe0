//! A monitor as a program of its own, for tests and measurements.
#![forbid(unsafe_code)]

fn main() {
    monitor::main()
}
