//! Source policies of clients of builds.

use bollard_buildkit_proto::moby::buildkit::v1::sourcepolicy::Policy;
use bollard_buildkit_proto::pb;
use build::sources::rules::Rules;
use prost::Message;

/// A policy is refused, or answers for any source within bounds, the same each time; what it has made of one it leaves as it is.
pub fn source_policy(bytes: &[u8]) {
    let Ok(policy) = Policy::decode(bytes) else { return };
    let names: Vec<String> = policy.rules.iter().filter_map(|rule| Some(rule.selector.clone()?.identifier)).collect();
    let Ok(rules) = Rules::read(std::slice::from_ref(&policy)) else { return };
    for name in names.iter().map(String::as_str).chain(["", "docker-image://docker.io/library/a:1"]) {
        let source = pb::SourceOp { identifier: name.to_owned(), ..pb::SourceOp::default() };
        let made = rules.evaluate(&source);
        let again = rules.evaluate(&source);
        assert_eq!(made.as_ref().ok(), again.as_ref().ok());
        if let Ok(Some(made)) = made {
            assert_ne!(made, source);
            assert!(matches!(rules.evaluate(&made), Ok(None)), "{made:?} is changed again");
        }
    }
}
