//! What a build gets of its client, through the session that the build names.

mod auth;
pub(crate) mod bytes;
mod local;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};

use bollard_buildkit_proto::moby::buildkit::secrets::v1::GetSecretRequest;
use bollard_buildkit_proto::moby::sshforward::v1::{BytesMessage, CheckAgentRequest};
use bollard_buildkit_proto::moby::upload::v1::BytesMessage as UploadMessage;
use build::job::{Answer, Attributes, Connection, Incoming, Inputs, Job, Local};
use model::digest::Digest;
use model::lock::Mutex;
use model::{Error, Kind, Result};
use registry::Credentials;
use tonic::{Code, Request};

use crate::content::Store;
use crate::error::answered;
use crate::metadata;
use crate::progress::Progress;
use crate::session::{Channel, Session, Sessions};

const SECRET: &str = "/moby.buildkit.secrets.v1.Secrets/GetSecret";
const CHECK_AGENT: &str = "/moby.sshforward.v1.SSH/CheckAgent";
const FORWARD_AGENT: &str = "/moby.sshforward.v1.SSH/ForwardAgent";
const PULL: &str = "/moby.upload.v1.Upload/Pull";
/// Bytes of a secret.
const SECRET_BYTES: usize = 500 << 10;
/// The host of addresses that the client itself serves.
const UPLOADS: &str = "http://buildkit-session/";

/// See the module.
pub(crate) struct ClientInputs {
    sessions: Sessions,
    /// The session of the build.
    session: String,
    /// What the build tells.
    pub(crate) progress: Arc<Progress>,
    /// The build itself.
    job: OnceLock<Weak<Job>>,
    /// Directories that were asked for in this build: each is sent once.
    locals: Mutex<HashMap<(String, Attributes), Slot>>,
    body: Option<Body>,
}

/// A context that came with the request of a build: it is read once.
pub(crate) struct Body {
    /// By which the build asks for it.
    pub(crate) address: String,
    content: Mutex<Option<Incoming>>,
}

impl Body {
    pub(crate) fn new(content: Incoming) -> Body {
        let id = model::id::ContainerId::from_bytes(sys::random::bytes32());
        Body { address: format!("http://build-context-{id}"), content: Mutex::new(Some(content)) }
    }
}

/// The files of a directory, held by whoever asks for them.
type Slot = Arc<tokio::sync::Mutex<Option<Local>>>;

impl ClientInputs {
    pub(crate) fn new(sessions: &Sessions, session: &str, progress: &Arc<Progress>) -> ClientInputs {
        ClientInputs {
            sessions: sessions.clone(),
            session: session.to_owned(),
            progress: progress.clone(),
            job: OnceLock::new(),
            locals: Mutex::default(),
            body: None,
        }
    }

    pub(crate) fn with_body(self, body: Option<Body>) -> ClientInputs {
        ClientInputs { body, ..self }
    }

    /// Whose inputs they are.
    pub(crate) fn bind(&self, job: &Arc<Job>) {
        // It is bound once, where it is made.
        drop(self.job.set(Arc::downgrade(job)));
    }

    fn job(&self) -> Result<Arc<Job>> {
        self.job.get().and_then(Weak::upgrade).ok_or_else(|| Error::system("context canceled"))
    }

    /// The session of the build.
    pub(crate) async fn session(&self) -> Result<Arc<Session>> {
        if self.session.is_empty() {
            return Err(Error::not_found("no active sessions"));
        }
        self.sessions.get(&self.session).await
    }

    async fn calling(&self, method: &str) -> Result<Channel> {
        self.session().await?.calling(method)
    }

    async fn local_files(&self, name: &str, attributes: &Attributes) -> Result<Local> {
        let key = (name.to_owned(), attributes.clone());
        let slot = self.locals.lock().entry(key).or_default().clone();
        let mut slot = slot.lock().await;
        if let Some(local) = &*slot {
            return Ok(local.clone());
        }
        let given = attributes.get("local.session").filter(|id| !id.is_empty());
        let session = match given {
            Some(id) => match self.sessions.get(id).await {
                Ok(session) => session,
                Err(_) => self.session().await?,
            },
            None => self.session().await?,
        };
        let job = self.job()?;
        let transfer = local::Transfer { job: &job, session: &session, progress: &self.progress };
        let local = transfer.run(name, attributes).await?;
        Ok(slot.insert(local).clone())
    }

    async fn secret_value(&self, id: &str) -> Result<Option<Vec<u8>>> {
        let Ok(channel) = self.calling(SECRET).await else { return Ok(None) };
        let request = GetSecretRequest { id: id.to_owned(), ..GetSecretRequest::default() };
        match channel.secrets().get_secret(request).await {
            Ok(answer) => {
                let data = answer.into_inner().data;
                if data.len() > SECRET_BYTES {
                    return Err(Error::invalid(format!("secret {id} is more than {SECRET_BYTES} bytes")));
                }
                Ok(Some(data))
            }
            Err(status) if matches!(status.code(), Code::NotFound | Code::Unimplemented) => Ok(None),
            Err(status) => Err(answered(&status)),
        }
    }

    async fn check_agent(&self, id: &str) -> Result<()> {
        let missing = || Error::not_found(format!("no SSH key {id:?} forwarded from the client"));
        let channel = self.calling(CHECK_AGENT).await.map_err(|_| missing())?;
        match channel.ssh().check_agent(CheckAgentRequest { id: id.to_owned() }).await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::Unimplemented => Err(missing()),
            Err(status) => Err(answered(&status)),
        }
    }

    async fn connect_agent(&self, id: &str) -> Result<Box<dyn Connection>> {
        let channel = self.calling(FORWARD_AGENT).await?;
        let (outgoing, sent) = bytes::outgoing(|data| BytesMessage { data });
        let mut request = Request::new(sent);
        metadata::append(request.metadata_mut(), "buildkit.ssh.id", &[id.to_owned()]);
        let call = async move { Ok(channel.ssh().forward_agent(request).await?.into_inner()) };
        let incoming = bytes::answered(call, |message: BytesMessage| message.data);
        Ok(Box::new(tokio::io::join(incoming, outgoing)))
    }

    async fn pull(&self, address: &str) -> Result<Incoming> {
        let missing = || Error::not_found(format!("the client sends nothing for {address}"));
        if let Some(body) = self.body.as_ref().filter(|body| body.address == address) {
            return body.content.lock().take().ok_or_else(missing);
        }
        let path = address.strip_prefix(UPLOADS).ok_or_else(missing)?;
        let channel = self.calling(PULL).await?;
        // Nothing is sent to it, but its side stays open as long as it is read.
        let (outgoing, sent) = bytes::outgoing(|data| UploadMessage { data });
        let mut request = Request::new(sent);
        metadata::append(request.metadata_mut(), "urlpath", &[format!("/{path}")]);
        metadata::append(request.metadata_mut(), "urlhost", &["buildkit-session".into()]);
        let answer = channel.upload().pull(request).await.map_err(|status| answered(&status))?;
        Ok(Box::new(bytes::Holding { _held: outgoing, read: bytes::incoming(answer.into_inner(), |m| m.data) }))
    }
}

impl Inputs for ClientInputs {
    fn local<'a>(&'a self, name: &'a str, attributes: &'a Attributes) -> Answer<'a, Result<Local>> {
        Box::pin(self.local_files(name, attributes))
    }

    fn secret<'a>(&'a self, id: &'a str) -> Answer<'a, Result<Option<Vec<u8>>>> {
        Box::pin(self.secret_value(id))
    }

    fn credentials<'a>(&'a self, host: &'a str) -> Answer<'a, Result<Credentials>> {
        Box::pin(async move {
            let asked = async {
                let session = self.session().await?;
                let credentials = auth::credentials(session.calling(auth::CREDENTIALS)?, host).await?;
                match credentials.is_empty() {
                    true => Ok::<_, Error>(credentials),
                    false => Ok(Credentials { delegate: auth::delegate(&session, host).await, ..credentials }),
                }
            };
            match asked.await {
                Ok(credentials) => Ok(credentials),
                Err(error) if matches!(error.kind(), Kind::NotFound | Kind::NotImplemented) => {
                    Ok(Credentials::default())
                }
                Err(error) => Err(error),
            }
        })
    }

    fn has_agent<'a>(&'a self, id: &'a str) -> Answer<'a, Result<()>> {
        Box::pin(self.check_agent(id))
    }

    fn agent<'a>(&'a self, id: &'a str) -> Answer<'a, Result<Box<dyn Connection>>> {
        Box::pin(self.connect_agent(id))
    }

    fn upload<'a>(&'a self, address: &'a str) -> Answer<'a, Result<Incoming>> {
        Box::pin(self.pull(address))
    }

    fn layout_blob<'a>(&'a self, store: &'a str, digest: &'a Digest) -> Answer<'a, Result<Incoming>> {
        Box::pin(async move {
            let session = self.session().await?;
            Store { session: &session, name: store }.read(digest).await
        })
    }
}
