//! Moments as protobuf has them.

use bollard_buildkit_proto::google::protobuf;
use model::time::Timestamp;

/// Nanoseconds of a second.
const SECOND: i64 = 1_000_000_000;

pub(crate) fn proto(time: Timestamp) -> protobuf::Timestamp {
    let nanos = time.unix_nanos();
    let part = i32::try_from(nanos.rem_euclid(SECOND)).unwrap_or(0);
    protobuf::Timestamp { seconds: nanos.div_euclid(SECOND), nanos: part }
}

pub(crate) fn now() -> protobuf::Timestamp {
    proto(events::now())
}

/// Nanoseconds since 1970.
pub(crate) fn nanos(time: &protobuf::Timestamp) -> i64 {
    time.seconds.saturating_mul(SECOND).saturating_add(time.nanos.into())
}

/// The other way round.
pub(crate) fn moment(time: &protobuf::Timestamp) -> Timestamp {
    Timestamp::from_unix_nanos(nanos(time))
}
