//! Gantry's own labels: those of a container that begin with `gantry.` and mean something to the engine.
//!
//! Only the request that creates a container can give them. They are read once, at create, into [`OwnLabels`]; nothing
//! reads them out of the container's labels later. An image's label of the prefix is not inherited, since an image must
//! not decide what protects the host from it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::egress::{EGRESS, Egress};
use crate::{Error, Result};

/// What all of them begin with.
pub const PREFIX: &str = "gantry.";

/// Of a container: prunes leave it alone. Of an image: the collector leaves it alone. `false` is as good as no label.
pub const KEEP: &str = "gantry.keep";

/// What a container's own labels ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OwnLabels {
    /// [`KEEP`].
    pub keep: bool,
    /// [`EGRESS`]: all that the container may reach; `None` = whatever its networks let it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,
}

impl OwnLabels {
    /// Reads the labels of a create request; labels without the prefix are anybody's.
    ///
    /// Errors: `InvalidParameter` for a label of the prefix that this version does not know, which may be meant to protect
    /// something, and for a malformed value.
    pub fn parse(labels: &BTreeMap<String, String>) -> Result<OwnLabels> {
        let mut own = OwnLabels::default();
        for (name, value) in labels.iter().filter(|(name, _)| is_own(name)) {
            match name.as_str() {
                KEEP => own.keep = asks_to_keep(value),
                EGRESS => own.egress = Some(Egress::parse(value)?),
                _ => {
                    return Err(Error::invalid(format!(
                        "unknown label {name:?}: labels that begin with {PREFIX:?} are those of the engine, and it has \
                         none of this name"
                    )));
                }
            }
        }
        Ok(own)
    }
}

/// Whether a label is one of the engine's.
pub fn is_own(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// What a value of [`KEEP`] means.
pub fn asks_to_keep(value: &str) -> bool {
    value != "false"
}

/// The warning for a container whose image has labels of the engine; [`KEEP`] is meant for the image itself.
pub fn warning(image_labels: &BTreeMap<String, String>) -> Option<String> {
    let names: Vec<&str> =
        image_labels.keys().map(String::as_str).filter(|name| is_own(name) && *name != KEEP).collect();
    (!names.is_empty()).then(|| {
        format!(
            "The image's labels have no effect: {}. Labels that begin with {PREFIX:?} count only when the container is \
             created with them",
            names.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn known_labels_are_typed() {
        let keep = |pairs: &[(&str, &str)]| OwnLabels::parse(&labels(pairs)).expect("known").keep;
        assert!(keep(&[("gantry.keep", "")]) && keep(&[("gantry.keep", "yes"), ("x", "y")]));
        assert!(!keep(&[]) && !keep(&[("gantry.keep", "false")]));
        // Labels of others.
        assert!(!keep(&[("Gantry.keep", ""), ("gantry", ""), ("org.gantry.keep", ""), ("gantrykeep", "")]));
    }

    #[test]
    fn unknown_labels_are_refused_by_name() {
        for name in ["gantry.", "gantry.egress2", "gantry.Egress", "gantry.Keep", "gantry.keep ", "gantry.keep.x"] {
            let error = OwnLabels::parse(&labels(&[(name, "x")])).expect_err(name);
            assert_eq!(error.kind(), crate::Kind::InvalidParameter);
            assert!(error.message().starts_with(&format!("unknown label {name:?}: ")), "{error}");
        }
    }

    #[test]
    fn labels_of_images_are_warned_about() {
        assert_eq!(warning(&labels(&[("a", ""), ("gantry.keep", "")])), None);
        let text = warning(&labels(&[("gantry.secrets", "db"), ("gantry.egress", "all")])).expect("a warning");
        assert!(text.starts_with("The image's labels have no effect: gantry.egress, gantry.secrets. "), "{text}");
    }
}
