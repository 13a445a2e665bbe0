//! What users see of a step: `[build 2/5] RUN make`.

use model::platform::Platform;

use super::stage::StageState;
use crate::platform::normalized;
use crate::shell::{Lexer, Variables};

/// The text of an instruction with its variables filled in, its keyword in capitals. What cannot be filled in stays.
pub(super) fn of_command(text: &str, lexer: &Lexer, variables: &dyn Variables) -> String {
    let text = lexer.word(text, variables).unwrap_or_else(|_| text.to_owned());
    match text.split_once(' ') {
        None => text.to_uppercase(),
        Some((keyword, rest)) => format!("{} {rest}", keyword.to_uppercase()),
    }
}

/// Where a title is shown.
pub(super) struct Shown<'a> {
    /// Whether the build is for more than one platform.
    pub multiple: bool,
    /// That of the step.
    pub platform: Option<&'a Platform>,
    /// Variables of the step, which may say that it builds for another platform.
    pub variables: &'a dyn Variables,
}

/// The next step of a stage.
pub(super) fn next(state: &mut StageState, text: &str, shown: &Shown<'_>) -> String {
    state.count.done += 1;
    same(state, text, shown)
}

/// Another part of the same step.
pub(super) fn same(state: &StageState, text: &str, shown: &Shown<'_>) -> String {
    let count = state.count;
    if count.total == 0 {
        return text.to_owned();
    }
    let mut out = String::from("[");
    if let Some(platform) = shown.platform.filter(|_| shown.multiple) {
        let platform = normalized(platform);
        out += &format!("{platform}{} ", crossing(&platform, shown.variables));
    }
    if !state.name.is_empty() {
        out += &format!("{} ", state.name);
    }
    let width = count.total.to_string().len();
    out += &format!("{:>width$}/{}] ", count.done, count.total);
    if count.trigger {
        out += "ONBUILD ";
    }
    out + text
}

/// `->arm64` where a step on one platform builds for another.
fn crossing(on: &Platform, variables: &dyn Variables) -> String {
    let value = |name: &str| variables.value(name).unwrap_or_default().to_owned();
    let whole = variables.value("TARGETPLATFORM").and_then(|text| Platform::parse_in_full(text, on).ok());
    let parts = ["TARGETOS", "TARGETARCH", "TARGETVARIANT"];
    let target = match whole {
        Some(target) => target,
        None if parts.iter().any(|name| variables.value(name).is_some()) => {
            let [os, architecture, variant] = parts.map(value);
            let or = |given: String, own: &str| if given.is_empty() { own.to_owned() } else { given };
            Platform { os: or(os, &on.os), architecture: or(architecture, &on.architecture), variant }
        }
        None => return String::new(),
    };
    let target = normalized(&target);
    if target.os != on.os {
        return format!("->{target}");
    }
    match (target.architecture == on.architecture, target.variant.as_str()) {
        (true, _) => String::new(),
        (false, "") => format!("->{}", target.architecture),
        (false, variant) => format!("->{}/{variant}", target.architecture),
    }
}
