//! What a client shows to registries: an account, and tokens that it has fetched itself.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bollard_buildkit_proto::moby::filesync::v1::{CredentialsRequest, FetchTokenRequest, GetTokenAuthorityRequest};
use model::{Error, Result};
use registry::{Credentials, Delegate, FetchedToken, Tokens, WantedToken};
use tonic::Code;

use crate::error::answered;
use crate::session::{Channel, Session};

pub(super) const CREDENTIALS: &str = "/moby.filesync.v1.Auth/Credentials";
const FETCH_TOKEN: &str = "/moby.filesync.v1.Auth/FetchToken";
const AUTHORITY: &str = "/moby.filesync.v1.Auth/GetTokenAuthority";
/// The name under which tokens are asked for.
const CLIENT: &str = "buildkit-client";
/// Bytes of a key by which a client is known, and of a token.
const KEY: usize = 32;
const TOKEN: usize = 64 << 10;
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

/// Has the client of a session fetch tokens for a registry, if it does that.
pub(super) async fn delegate(session: &Session, host: &str) -> Delegate {
    let (Ok(channel), Ok(asked)) = (session.calling(FETCH_TOKEN), session.calling(AUTHORITY)) else {
        return Delegate::default();
    };
    let host = if host == HUB.0 { HUB.1 } else { host };
    let request = GetTokenAuthorityRequest { host: host.to_owned(), salt: sys::random::bytes32().to_vec() };
    match asked.auth().get_token_authority(request).await {
        Ok(answer) if answer.get_ref().public_key.len() == KEY => Delegate(Some(Arc::new(OfClient(channel)))),
        // It shows the account instead.
        _ => Delegate::default(),
    }
}

/// Tokens that a client fetches.
struct OfClient(Channel);

impl OfClient {
    async fn ask(&self, wanted: WantedToken<'_>) -> Result<FetchedToken> {
        let request = FetchTokenRequest {
            client_id: CLIENT.to_owned(),
            host: wanted.host.to_owned(),
            realm: wanted.realm.to_owned(),
            service: wanted.service.to_owned(),
            scopes: wanted.scopes.to_vec(),
        };
        let answer = self.0.clone().auth().fetch_token(request).await.map_err(|status| answered(&status))?.into_inner();
        if answer.token.len() > TOKEN || !answer.token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::invalid("a token of the client that is none"));
        }
        Ok(FetchedToken { token: answer.token, expires_in: answer.expires_in })
    }
}

impl Tokens for OfClient {
    fn fetch<'a>(&'a self, wanted: WantedToken<'a>) -> Pin<Box<dyn Future<Output = Result<FetchedToken>> + Send + 'a>> {
        Box::pin(self.ask(wanted))
    }
}
