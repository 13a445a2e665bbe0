//! Build arguments in front of the first `FROM`, and those that every build has.

use std::collections::BTreeMap;

use bollard_buildkit_proto::pb;
use model::platform::Platform;

use super::capture::{Capture, Known};
use crate::error::{Error, Result};
use crate::instruction::{Command, Instruction};
use crate::platform::normalized;
use crate::shell::{Env, Lexer, Variables as _};

/// Whether packages of the context are listed, too.
pub(super) const SCAN_CONTEXT: &str = "BUILDKIT_SBOM_SCAN_CONTEXT";
/// Whether those of a stage are.
pub(super) const SCAN_STAGE: &str = "BUILDKIT_SBOM_SCAN_STAGE";
/// Arguments that are no variables of commands.
pub(super) const NOT_IN_ENV: [&str; 2] = [SCAN_CONTEXT, SCAN_STAGE];
/// Bytes of arguments in front of the first `FROM`.
const MAX_GLOBAL: usize = 1 << 20;
/// The time that a build pretends it is.
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Platform arguments: of the builder and of the target. Those of the request of these names win.
pub(super) fn defaults([builder, target]: [&Platform; 2], given: &BTreeMap<String, String>, stage: &str) -> Env {
    let (builder, target) = (normalized(builder), normalized(target));
    let stage = if stage.is_empty() { "default" } else { stage };
    let values = [
        ("BUILDPLATFORM", builder.to_string()),
        ("BUILDOS", builder.os),
        ("BUILDOSVERSION", String::new()),
        ("BUILDARCH", builder.architecture),
        ("BUILDVARIANT", builder.variant),
        ("TARGETPLATFORM", target.to_string()),
        ("TARGETOS", target.os),
        ("TARGETOSVERSION", String::new()),
        ("TARGETARCH", target.architecture),
        ("TARGETVARIANT", target.variant),
        ("TARGETSTAGE", stage.to_owned()),
    ];
    let mut env = Env::default();
    for (name, value) in values {
        env.set(name, given.get(name).cloned().unwrap_or(value));
    }
    env
}

/// Adds the arguments in front of the first `FROM`.
pub(super) fn global(
    mut env: Env,
    lexer: &Lexer,
    commands: &[Command],
    given: &BTreeMap<String, String>,
) -> Result<(Env, Capture)> {
    let mut capture = Capture::default();
    for command in commands {
        let Instruction::Arg(arguments) = &command.instruction else { continue };
        for argument in arguments {
            let mut known = Known::new(argument, command.lines);
            let value = match (given.get(&argument.name), &argument.value) {
                (Some(value), _) => Some(value.clone()),
                (None, Some(default)) => {
                    let found = lexer.expand(default, &env).map_err(|error| error.at(command.lines))?;
                    known.uses = found.used;
                    // One that is made from itself is made from what that was made from.
                    if known.uses.remove(&argument.name)
                        && let Some(before) = capture.all.get(&argument.name)
                    {
                        known.uses.extend(before.uses.clone());
                    }
                    Some(found.text)
                }
                (None, None) => None,
            };
            if let Some(value) = value {
                env.set(&argument.name, &value);
                known.value = value;
            }
            capture.all.insert(argument.name.clone(), known);
            if env.size() > MAX_GLOBAL {
                let why = format!("arguments in front of the first FROM have more than {MAX_GLOBAL} bytes");
                return Err(Error::new(why).at(command.lines));
            }
        }
    }
    Ok((env, capture))
}

/// The time that the build pretends it is, in seconds since 1970. What is empty is not set at all.
pub(super) fn epoch(mut env: Env, given: &mut BTreeMap<String, String>) -> Result<(Option<i64>, Env)> {
    let default = env.value(EPOCH).filter(|value| !value.is_empty()).map(str::to_owned);
    let Some(value) = given.get(EPOCH).cloned().or(default) else { return Ok((None, env)) };
    if value.is_empty() {
        given.remove(EPOCH);
        env.remove(EPOCH);
        return Ok((None, env));
    }
    match value.parse::<i64>() {
        Ok(seconds) => Ok((Some(seconds), env)),
        Err(_) => Err(Error::new(format!("invalid {EPOCH}: {value}"))),
    }
}

/// Proxies of the request, in whatever case they are written. They need no `ARG`.
pub(super) fn proxy(given: &BTreeMap<String, String>) -> Option<pb::ProxyEnv> {
    let mut proxy = pb::ProxyEnv::default();
    let mut any = false;
    for (name, value) in given {
        let field = match name.to_lowercase().as_str() {
            "http_proxy" => &mut proxy.http_proxy,
            "https_proxy" => &mut proxy.https_proxy,
            "ftp_proxy" => &mut proxy.ftp_proxy,
            "no_proxy" => &mut proxy.no_proxy,
            "all_proxy" => &mut proxy.all_proxy,
            _ => continue,
        };
        field.clone_from(value);
        any = true;
    }
    any.then_some(proxy)
}
