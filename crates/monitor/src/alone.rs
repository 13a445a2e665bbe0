//! A monitor as a program of its own, for tests and measurements.
#![forbid(unsafe_code)]

fn main() {
    if std::env::args().next().as_deref() == Some(monitor::ENTER) {
        monitor::enter()
    }
    monitor::main()
}
