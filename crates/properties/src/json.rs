//! Bodies of requests in JSON, as the reference's decoder takes them.

use api::encode::to_vec;
use api::{ContainerConfig, ExecConfig, HostConfig, VolumeCreateRequest, decode};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A body is refused, or means the same when it is written and read again.
pub fn json(bytes: &[u8]) {
    if let Ok(request) = decode::create_request(bytes) {
        same::<ContainerConfig>(&to_vec(&request.config.unwrap_or_default()));
        same::<HostConfig>(&to_vec(&request.host_config.unwrap_or_default()));
    }
    same::<ExecConfig>(bytes);
    same::<VolumeCreateRequest>(bytes);
}

fn same<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Ok(value) = decode::from_slice::<T>(bytes) else { return };
    let written = to_vec(&value);
    let again: T = decode::from_slice(&written).unwrap_or_else(|error| {
        panic!("{}: {}", String::from_utf8_lossy(&written), error.body_message());
    });
    assert_eq!(String::from_utf8_lossy(&to_vec(&again)), String::from_utf8_lossy(&written));
}
