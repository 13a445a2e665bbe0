//! Platforms as BuildKit spells them: the variant of 32-bit ARM is always said.

use model::platform::Platform;

use crate::error::{Error, Result};
use crate::llb;

/// The usual spelling.
pub fn normalized(platform: &Platform) -> Platform {
    let mut platform = Platform::new(&platform.os, &platform.architecture, &platform.variant);
    if platform.architecture == "arm" && platform.variant.is_empty() {
        platform.variant = "v7".into();
    }
    platform
}

/// From text, as a Dockerfile or a request has it: a variant that was named stays.
pub fn parse(text: &str, host: &Platform) -> Result<Platform> {
    Ok(Platform::parse_in_full(text, host)?)
}

/// Platforms separated by commas, in their usual spelling.
pub fn list(text: &str, host: &Platform) -> Result<Vec<Platform>> {
    let read = |text: &str| {
        let why = |error: Error| error.prefix(format!("failed to parse target platform {text}"));
        parse(text, host).map(|platform| normalized(&platform)).map_err(why)
    };
    text.split(',').map(read).collect()
}

/// That of an operation.
pub fn encoded(platform: &Platform) -> bollard_buildkit_proto::pb::Platform {
    llb::platform(&normalized(platform))
}
