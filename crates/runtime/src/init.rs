//! PID 1 of containers started with `--init`.

/// Runs `args` (after `--`) as a child, forwards signals to it, reaps every orphan, and ends with the child's code.
pub fn main(args: &[std::ffi::OsString]) -> ! {
    let _ = args;
    todo!()
}
