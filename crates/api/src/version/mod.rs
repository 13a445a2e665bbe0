//! Versions of the API and the differences between them.
//!
//! The types of this crate have the newest shape. An answer for an older client is that shape as a JSON value, taken
//! back step by step: `v1_51` makes what 1.51 answered of what 1.52 answers, and so on. One file per older version
//! that differs; a version without a file is equal to the next one. Each conversion is total: a value of another
//! shape is left alone.

mod v1_42;
mod v1_43;
mod v1_44;
mod v1_45;
mod v1_46;
mod v1_47;
mod v1_48;
mod v1_49;
mod v1_50;
mod v1_51;

use std::fmt;

use serde_json::{Map, Value};

use crate::event::EventMessage;

/// A version of the API, `1.45`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiVersion {
    pub major: u32,
    pub minor: u32,
}

impl ApiVersion {
    /// The newest version, which this crate's types describe.
    pub const MAX: ApiVersion = ApiVersion::v1(56);
    /// The oldest version that can be spoken at all.
    pub const MIN: ApiVersion = ApiVersion::v1(24);

    /// Version `1.<minor>`.
    pub const fn v1(minor: u32) -> ApiVersion {
        ApiVersion { major: 1, minor }
    }

    /// Reads digits separated by dots; what follows the second number is ignored.
    pub fn parse(text: &str) -> Option<ApiVersion> {
        let number = |part: &str| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok()).flatten();
        let mut parts = text.split('.');
        let major = number(parts.next()?)?;
        let minor = number(parts.next().unwrap_or("0"))?;
        parts.all(|part| number(part).is_some()).then_some(ApiVersion { major, minor })
    }

    /// Whether this version is older than `1.<minor>`.
    pub const fn before(self, minor: u32) -> bool {
        self.major < 1 || (self.major == 1 && self.minor < minor)
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// One step back: the version below which it is taken, and what it does.
type Step = (u32, fn(&mut Map<String, Value>));

fn apply(version: ApiVersion, steps: &[Step], value: &mut Value) {
    let Value::Object(map) = value else { return };
    for (before, step) in steps {
        if version.before(*before) {
            step(map);
        }
    }
}

fn apply_to_each(version: ApiVersion, steps: &[Step], value: &mut Value) {
    let Value::Array(list) = value else { return };
    for item in list {
        apply(version, steps, item);
    }
}

const CONTAINER_LIST: &[Step] =
    &[(52, v1_51::container_summary), (48, v1_47::container), (46, v1_45::container_summary), (44, v1_43::container)];
const CONTAINER_INSPECT: &[Step] =
    &[(52, v1_51::container_inspect), (48, v1_47::container), (45, v1_44::container_inspect), (44, v1_43::container)];
const IMAGE_LIST: &[Step] =
    &[(51, v1_50::image_summary), (48, v1_47::image), (44, v1_43::image), (43, v1_42::image_summary)];
/// Disk usage always counted containers, and never had a name for what has none.
const DF_IMAGES: &[Step] = &[(44, v1_43::image)];
const IMAGE_INSPECT: &[Step] = &[
    (52, v1_51::image_inspect),
    (50, v1_49::image_inspect),
    (48, v1_47::image),
    (45, v1_44::image_inspect),
    (44, v1_43::image_inspect),
];
const INFO: &[Step] = &[(50, v1_49::info), (49, v1_48::info), (47, v1_46::info), (46, v1_45::info), (44, v1_43::info)];
const NETWORK: &[Step] = &[(52, v1_51::network), (48, v1_47::network)];
const STATS: &[Step] = &[(52, v1_51::stats)];
const EVENT: &[Step] = &[(52, v1_51::event)];

/// `GET /containers/json`, the whole list.
pub fn container_list(version: ApiVersion, value: &mut Value) {
    apply_to_each(version, CONTAINER_LIST, value);
}

/// `GET /containers/{id}/json`.
pub fn container_inspect(version: ApiVersion, value: &mut Value) {
    apply(version, CONTAINER_INSPECT, value);
}

/// `GET /images/json`, the whole list.
pub fn image_list(version: ApiVersion, value: &mut Value) {
    apply_to_each(version, IMAGE_LIST, value);
}

/// The images of `GET /system/df`.
fn df_images(version: ApiVersion, value: &mut Value) {
    apply_to_each(version, DF_IMAGES, value);
}

/// `GET /images/{name}/json`.
pub fn image_inspect(version: ApiVersion, value: &mut Value) {
    apply(version, IMAGE_INSPECT, value);
}

/// `GET /info`.
pub fn info(version: ApiVersion, value: &mut Value) {
    apply(version, INFO, value);
}

/// `GET /networks/{id}`.
pub fn network_inspect(version: ApiVersion, value: &mut Value) {
    apply(version, NETWORK, value);
}

/// `GET /networks`, the whole list.
pub fn network_list(version: ApiVersion, value: &mut Value) {
    apply_to_each(version, NETWORK, value);
}

/// One sample of `GET /containers/{id}/stats`.
pub fn stats(version: ApiVersion, value: &mut Value) {
    apply(version, STATS, value);
}

/// One event.
pub fn event(version: ApiVersion, value: &mut Value) {
    apply(version, EVENT, value);
}

/// Whether clients of this version are told of the event at all.
pub fn knows_event(version: ApiVersion, event: &EventMessage) -> bool {
    !(version.before(46) && event.kind == "image" && event.action == "create")
}

/// `GET /system/df`: below 1.52 the lists alone; from 1.52 totals, with the lists beside them unless `verbose`, where
/// the lists stand inside the totals.
pub fn disk_usage(version: ApiVersion, verbose: bool, value: &mut Value) {
    let Value::Object(map) = value else { return };
    let lists = if version.before(52) || !verbose { v1_51::disk_usage_lists(version, map) } else { Map::new() };
    if version.before(52) {
        map.clear();
    } else if !verbose {
        for usage in map.values_mut().filter_map(Value::as_object_mut) {
            usage.shift_remove("Items");
        }
    }
    map.extend(lists);
}

/// Adds a field unless it is there already.
fn add(map: &mut Map<String, Value>, key: &str, value: Value) {
    map.entry(key).or_insert(value);
}

/// The endpoints of a container, in list and inspect alike.
fn endpoints(map: &mut Map<String, Value>) -> impl Iterator<Item = (&String, &mut Map<String, Value>)> {
    let networks = map.get_mut("NetworkSettings").and_then(|settings| settings.get_mut("Networks"));
    let networks = networks.and_then(Value::as_object_mut).into_iter().flatten();
    networks.filter_map(|(name, endpoint)| Some((name, endpoint.as_object_mut()?)))
}

#[cfg(test)]
mod tests;
