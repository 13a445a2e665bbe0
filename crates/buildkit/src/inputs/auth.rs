//! What a client shows to registries.

use bollard_buildkit_proto::moby::filesync::v1::CredentialsRequest;
use model::Result;
use registry::Credentials;
use tonic::Code;

use crate::error::answered;
use crate::session::Channel;

pub(super) const CREDENTIALS: &str = "/moby.filesync.v1.Auth/Credentials";
/// How references and clients call the same registry.
const HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// The account of a client with a registry; none, if it has none.
pub(super) async fn credentials(channel: Channel, host: &str) -> Result<Credentials> {
    let asked = if host == HUB.0 { HUB.1 } else { host };
    match channel.auth().credentials(CredentialsRequest { host: asked.to_owned() }).await {
        Ok(answer) => {
            let answer = answer.into_inner();
            let mut credentials = Credentials::default();
            // Without a name it is a token to ask for others with.
            if answer.username.is_empty() {
                credentials.identitytoken = answer.secret;
            } else {
                (credentials.username, credentials.password) = (answer.username, answer.secret);
            }
            Ok(credentials)
        }
        Err(status) if matches!(status.code(), Code::Unimplemented | Code::Unavailable | Code::NotFound) => {
            Ok(Credentials::default())
        }
        Err(status) => Err(answered(&status)),
    }
}
