//! `RUN`.

use super::command_line::CommandLine;
use super::flags::{Flags, Takes};
use super::mount::Mount;
use crate::error::{Error, Result};
use crate::parse::Node;
use crate::suggest::{Case, with_suggestion};
use crate::text::{boolean, csv_fields, quote};

/// A command of the build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What is run.
    pub command: CommandLine,
    /// Values of `--mount`, variables in them not yet filled in.
    pub mounts: Vec<String>,
    /// Of `--network`.
    pub network: Network,
    /// Of `--security`.
    pub security: Security,
    /// Of `--device`.
    pub devices: Vec<Device>,
}

/// The network of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// That of the build.
    Default,
    /// Its own loopback alone.
    None,
    /// The host's.
    Host,
}

/// The rights of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// Those of a container.
    Sandbox,
    /// All.
    Insecure,
}

/// A device by its name in the Container Device Interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// `vendor/class=name`.
    pub name: String,
    /// Whether the command cannot do without.
    pub required: bool,
}

impl Run {
    pub(super) fn read(node: &Node, command: CommandLine) -> Result<Run> {
        let known = [
            ("mount", Takes::Values),
            ("network", Takes::Value),
            ("security", Takes::Value),
            ("device", Takes::Values),
        ];
        let flags = Flags::read(&node.flags, &known)?;
        let devices = flags.list("device").iter().map(|text| Device::parse(text)).collect::<Result<_>>()?;
        let mounts = flags.list("mount");
        for text in &mounts {
            Mount::parse(text, None)?;
        }
        let network = match flags.text("network").as_str() {
            "" if flags.list("network").is_empty() => Network::Default,
            "default" => Network::Default,
            "none" => Network::None,
            "host" => Network::Host,
            other => return Err(Error::new(format!("invalid network mode {}", quote(other)))),
        };
        let security = match flags.text("security").as_str() {
            "" if flags.list("security").is_empty() => Security::Sandbox,
            "sandbox" => Security::Sandbox,
            "insecure" => Security::Insecure,
            other => return Err(Error::new(format!("security {} is not valid", quote(other)))),
        };
        Ok(Run { command, mounts, network, security, devices })
    }
}

impl Device {
    /// From `name[,required[=true]]` or `name=…`.
    pub fn parse(text: &str) -> Result<Device> {
        let mut device = Device::default();
        let fields = csv_fields(text).map_err(|error| error.prefix("failed to parse csv devices"))?;
        for field in fields {
            let (key, value) = field.split_once('=').map_or((field.as_str(), None), |(key, value)| (key, Some(value)));
            match (key.to_lowercase().as_str(), value) {
                ("required", None) => device.required = true,
                ("name", Some(_)) if !device.name.is_empty() => {
                    return Err(Error::new(format!("device name already set to {}", device.name)));
                }
                ("name", Some(value)) => device.name = value.to_owned(),
                ("required", Some(value)) => {
                    let invalid = || Error::new(format!("invalid value for required: {value}"));
                    device.required = boolean(value).ok_or_else(invalid)?;
                }
                _ if device.name.is_empty() => device.name = field.clone(),
                (_, None) => return Err(Error::new(format!("invalid field '{field}' must be a key=value pair"))),
                (key, Some(_)) => {
                    let error = Error::new(format!("unexpected key '{key}' in '{field}'"));
                    return Err(with_suggestion(error, key, ["name", "required"], Case::Sensitive));
                }
            }
        }
        Ok(device)
    }
}
