//! Words of instructions: quotes, escapes, `$name` and `${name…}` as a shell of POSIX would read them, and what the Dockerfile
//! format adds (`${name/pattern/word}`).

mod env;
mod lexer;
mod pattern;

pub use env::{Env, Variables};
pub use lexer::{Escapes, Expansion, Lexer, Quotes, Unset};
